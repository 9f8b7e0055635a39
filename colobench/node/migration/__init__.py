"""Guest RAM between two nodes: checkpoints, and one module for each way that pages travel."""
