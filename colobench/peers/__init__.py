"""Other systems on the other end: real QEMU, started and driven."""
