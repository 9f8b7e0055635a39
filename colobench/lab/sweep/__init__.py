"""Sweeps: a grid of strategies, guests, links and settings, measured by workers of dask."""
