"""Bytes of QEMU's migration stream and of COLO's messages, written and read: no I/O, no clock."""
