"""Clients of the guest: open and closed loops over RESP, and the history of their requests."""
