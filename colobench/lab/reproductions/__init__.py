"""Reproductions: published shapes, measured here with real pairs and kernels, and judged."""
