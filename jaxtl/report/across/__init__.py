"""Over runs: their comparison as tables, a picture and a page, and the published results."""
