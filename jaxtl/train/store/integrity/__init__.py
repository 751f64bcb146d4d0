"""Whether what is on disk is what was written, and what to make of it where it is not."""
