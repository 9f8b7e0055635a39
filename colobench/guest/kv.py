"""The key-value server's place in the guest: answers PING and QUIT, until the store is here."""

from __future__ import annotations

import numpy as np

from colobench.guest.store import put_byte
from colobench.kernels.jit import Bytes, Words, inlined

#: Bytes of a connection's receive buffer, and of its send buffer.
BUFFER_BYTES = 32768
_PING, _QUIT = b"*1\r\n$4\r\nPING\r\n", b"*1\r\n$4\r\nQUIT\r\n"
_PONG, _OK, _ERROR = b"+PONG\r\n", b"+OK\r\n", b"-ERR Protocol error\r\n"


@inlined
def initialize(memory: Bytes, bitmap: Words, kv: int, size: int) -> int:
    """Make an empty store in [kv, kv + size)."""
    put_byte(memory, bitmap, kv, 0)
    return 0


@inlined
def execute(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    begin: int,
    end: int,
    out: int,
    out_end: int,
    now_us: np.uint64,
    result: Words,
) -> int:
    """Execute the requests in [begin, end); see `colobench.guest.tcp` for what the words mean."""
    requests, at, to, close, lacks = 0, begin, out, 0, 0
    while end - at >= len(_PING) and close == 0 and lacks == 0:
        ping, quits = True, True
        for i in range(len(_PING)):
            ping = ping and memory[at + i] == _PING[i]
            quits = quits and memory[at + i] == _QUIT[i]
        reply = _PONG if ping else (_OK if quits else _ERROR)
        if len(reply) > out_end - to:
            lacks = 1
        else:
            for i in range(len(reply)):
                put_byte(memory, bitmap, to + i, reply[i])
            at, to, requests = at + len(_PING), to + len(reply), requests + 1
            close = 0 if ping else 1
    result[0], result[1] = np.uint64(at - begin), np.uint64(to - out)
    result[2], result[3] = np.uint64(close), np.uint64(lacks)
    return requests
