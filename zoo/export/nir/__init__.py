"""Networks as graphs of NIR."""
