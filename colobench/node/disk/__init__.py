"""Disks of a node: files, and the connections by which disks are read and written."""
