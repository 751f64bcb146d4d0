"""One invocation: check everything, train each stage once, measure, report."""
