"""Frozen values whose fields carry their own checks, help texts and names: settings."""
