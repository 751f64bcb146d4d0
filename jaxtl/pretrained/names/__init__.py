"""Where the parameters of each architecture stand in published files."""
