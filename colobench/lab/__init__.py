"""Sessions of two nodes, their records, and experiments, checks and reports on top of them."""
