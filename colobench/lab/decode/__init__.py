"""Decoding of recorded streams: from files and pipes, and as text."""
