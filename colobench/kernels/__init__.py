"""Hot loops, compiled by numba: arrays and integers in, integers out, nothing allocated, no GIL."""
