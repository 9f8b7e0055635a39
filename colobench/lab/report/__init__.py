"""Records as text and as pages that open offline."""
