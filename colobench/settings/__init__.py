"""Everything that a session can be asked for, as one frozen value that is checked whole."""
