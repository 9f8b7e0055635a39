"""The protected machine: its devices, and the programs that run in it."""
