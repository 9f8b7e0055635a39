"""The command line: a module for each verb, with `add_options` and `run`, and what they share."""
