"""What is done to tables and their rows."""
