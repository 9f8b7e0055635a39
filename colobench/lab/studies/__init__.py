"""Experiments with a pair: each runs something and gives values that print themselves."""
