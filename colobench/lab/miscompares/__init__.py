"""Miscompares: how often two guests' answers differ, by each source of chance."""
