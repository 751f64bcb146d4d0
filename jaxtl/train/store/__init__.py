"""What a stage leaves on disk, and whether a run may go on from it."""
