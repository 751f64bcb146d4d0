"""What steps read: the examples in their order, or features in their place."""
