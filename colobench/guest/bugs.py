"""Bugs that can be planted in the program kv, for the bug museum: bits of a word of the host."""

#: Nothing is ever sent again.
LOST_RETRANSMISSION = 1
#: What a connection has asked for last is executed once more.
DOUBLE_EXECUTION = 2
