"""Hot loops compiled by numba: arrays and integers in, integers out, no allocation, no GIL."""
