"""The guest's network: frames, filters, compare, rewriter; values in, values out, no I/O."""
