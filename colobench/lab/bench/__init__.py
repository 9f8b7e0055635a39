"""Measurements beside which a session's own figures stand."""
