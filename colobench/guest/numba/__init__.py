"""A guest whose CPU is a numba kernel, with a timer, a serial console and a NIC."""
