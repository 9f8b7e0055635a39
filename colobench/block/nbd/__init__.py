"""The protocol of network block devices (NBD), both sides, without I/O.

Numbers and structures are in `format`, the conversations in `server_conversation` and
`client_conversation`. The source is the NetworkBlockDevice project's ``doc/proto.md``.
"""
