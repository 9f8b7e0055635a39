"""The claims, a module for each or for a few that share their measurement."""
