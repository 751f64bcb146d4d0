"""Methods: values that say what is minimised, what trains and how."""
