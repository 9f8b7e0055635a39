"""Ways of checkpointing as values: their axes, what goes with what, and models, without I/O."""
