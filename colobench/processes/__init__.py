"""Child processes as their parent sees them: start, monitor, end, and their machine."""
