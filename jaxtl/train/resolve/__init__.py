"""A stage before it runs: what trains, what is loaded, which trainings share a program."""
