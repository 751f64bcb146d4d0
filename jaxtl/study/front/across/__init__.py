"""Over finished runs: compared with each other, and collected into the table of results."""
