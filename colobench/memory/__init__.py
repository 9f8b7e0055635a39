"""Guest memory: RAM blocks, the RAM cache, dirty bitmaps, and the trackers that fill bitmaps."""
