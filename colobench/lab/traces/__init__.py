"""Recording of dirty-page traces: a real program is run, and its written pages are listed."""
