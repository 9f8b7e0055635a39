"""EXEC: the queued commands of a transaction, executed in one turn."""

from __future__ import annotations

import numpy as np

from colobench.guest import (
    transactions,
)
from colobench.guest.append_only_file import (
    log_of,
)
from colobench.guest.clients import (
    FLAGS,
    ID,
    MULTI,
    QUEUE,
    QUEUED,
    REFUSED_COMMAND,
    REPLY,
    SENT,
    capacity,
    grow,
    longest_value,
    piece,
    reserve,
    speaks_resp3,
)
from colobench.guest.command_table import index
from colobench.guest.commands import REPLY_ROOM
from colobench.guest.execution import has_arity, run
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import (
    ERRORS,
    count,
)
from colobench.guest.propagation import (
    begin_transaction,
    end_transaction,
)
from colobench.guest.region import (
    BLOCK,
    QUEUED_COMMANDS,
    get_number,
    note_damage,
    put_number,
)
from colobench.guest.resp import (
    ARRAY,
    argument,
    find_request,
    put_head,
    put_text,
)
from colobench.guest.server_commands import find_command
from colobench.guest.watches import unwatch
from colobench.kernels.jit import Bytes, Words, inlined

_MINUS = ord("-")
_QUIT, _RESET, _MULTI, _EXEC, _DISCARD, _WATCH = (
    index(name) for name in ("quit", "reset", "multi", "exec", "discard", "watch")
)


@inlined
def _run_queue(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    clients: int,
    area: int,
    client: int,
    queued: int,
    now_us: np.uint64,
    connected: int,
    connections: int,
) -> int:
    """Execute queued commands, and put their replies into the client's waiting reply.

    The waiting reply has room for REPLY_ROOM bytes of each command already. So only a reply that is
    a value may lack room; it is replaced by an error.
    """
    at = get_number(pool, client + REPLY)
    length = put_head(memory, bitmap, at, at + 2 * REPLY_ROOM, ARRAY, queued) - at
    source, size = piece(pool, area, client + QUEUE)
    offset = 0
    for number in range(queued):
        arguments, first, following = find_request(
            pool, source + offset, source + size, longest_value(pool, area)
        )
        request, command, cursor = source + offset, np.int64(-1), first
        if arguments > 0:
            name, letters, cursor = argument(memory, request, first)
            command = find_command(memory, name, letters)
        if command < 0 or not has_arity(command, arguments):
            return note_damage(pool, bitmap, area, QUEUED_COMMANDS)
        reserved = REPLY_ROOM * (queued - number - 1)
        if source < at + capacity(pool, area, at) and at < source + size:
            # The heap is broken: the replies would overwrite the queue.
            return note_damage(pool, bitmap, area, BLOCK)
        for _ in range(2):
            limit = at + capacity(pool, area, at) - reserved
            begin = at + length
            end = run(
                memory, pool, bitmap, kv, clients, area, client, request, cursor, command,
                arguments - 1, now_us, connected, connections, begin, limit,
            )  # fmt: skip
            if end <= limit:
                break
            put_number(pool, bitmap, client + REPLY + 8, length)
            place = grow(pool, bitmap, area, client + REPLY, end - at + reserved)
            if place == 0:
                text = b"-OOM no memory for a reply of this size\r\n"
                end = put_text(memory, bitmap, begin, limit, text)
                break
            at = place
            if source < at + capacity(pool, area, at) and at < source + size:
                return note_damage(pool, bitmap, area, BLOCK)
        if memory[at + length] == _MINUS:
            count(memory, bitmap, kv + ERRORS)
        length = end - at
        offset = following - source
    return put_number(pool, bitmap, client + REPLY + 8, length)


@inlined
def execute_queued(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    clients: int,
    area: int,
    client: int,
    now_us: np.uint64,
    connected: int,
    connections: int,
    at: int,
    limit: int,
) -> int:
    """EXEC; a long reply becomes the client's waiting reply."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    if not transactions.is_queueing(memory, client):
        return put_text(memory, bitmap, at, limit, b"-ERR EXEC without MULTI\r\n")
    queued = max(ZERO, get_number(memory, client + QUEUED))
    _, size = piece(pool, area, client + QUEUE)
    queued = min(queued, size)
    outdated = transactions.is_outdated(memory, bitmap, kv, client)
    if get_number(memory, client + FLAGS) & REFUSED_COMMAND:
        text = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        at = put_text(memory, bitmap, at, limit, text)
    elif outdated:
        text = b"_\r\n" if speaks_resp3(memory, client) else b"*-1\r\n"
        at = put_text(memory, bitmap, at, limit, text)
    elif reserve(pool, bitmap, area, client + REPLY, REPLY_ROOM * (queued + 2)) == 0:
        text = b"-EXECABORT Transaction discarded because of: no memory for its replies\r\n"
        at = put_text(memory, bitmap, at, limit, text)
    else:
        put_number(memory, bitmap, client + FLAGS, get_number(memory, client + FLAGS) & ~MULTI)
        unwatch(memory, bitmap, kv, get_number(memory, client + ID))
        put_number(memory, bitmap, client + SENT, ZERO)
        log = log_of(memory, kv)
        if log >= 0:
            begin_transaction(memory, bitmap, log)
        _run_queue(
            memory, pool, bitmap, kv, clients, area, client, queued, now_us, connected,
            connections,
        )  # fmt: skip
        if log >= 0:
            end_transaction(memory, bitmap, log)
    transactions.end_transaction(memory, pool, bitmap, kv, area, client)
    return at


@inlined
def is_queued(memory: Bytes, client: int, command: int) -> bool:
    """Say whether a client's command is to be queued for EXEC."""
    if not transactions.is_queueing(memory, client):
        return False
    return command not in (_EXEC, _DISCARD, _MULTI, _WATCH, _QUIT, _RESET)
