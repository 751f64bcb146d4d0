"""What finished stages are worth."""
