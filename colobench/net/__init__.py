"""The guest's network: frames, filters, compare, rewriter. Values in, values out; no I/O here."""
