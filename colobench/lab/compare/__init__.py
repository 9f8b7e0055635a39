"""Comparisons of ways of checkpointing: real pairs in turn, on the same work."""
