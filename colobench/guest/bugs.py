"""Bugs that can be planted in the program kv, for the bug museum: bits of a word of the host."""

#: Nothing is ever retransmitted.
LOST_RETRANSMISSION = 1
#: The last request of a connection is executed again.
DOUBLE_EXECUTION = 2
