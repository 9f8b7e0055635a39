"""The cockpit: runs with any settings, overlaid while they go on, kept, exported and repeated."""
