"""Values whose fields carry their own checks, words and names: what settings are made of."""
