"""Kills by plan under real clients, the bug museum, and one failover as a story."""
