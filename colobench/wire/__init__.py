"""QEMU's migration stream and COLO's messages as bytes, both ways: no I/O, no clock."""
