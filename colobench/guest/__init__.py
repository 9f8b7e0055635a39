"""The machine that is protected: its devices, and the programs that run in it."""
