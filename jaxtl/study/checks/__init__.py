"""Everything that can be wrong with an experiment, found before any work starts."""
