"""The guest's disk: requests, the secondary's layers, copies, generations; no I/O, no clock."""
