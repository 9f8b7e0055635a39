"""MULTI, DISCARD, WATCH, UNWATCH and the queue of commands; EXEC is in `queued_commands`.

Commands are queued as arrays, one after another, in a piece of the clients' area, see
`colobench.guest.clients`. If there is no memory for another one, it is refused with Redis's OOM
error, and EXEC will fail. `commands` describes the arguments of these functions.
"""

from __future__ import annotations

from colobench.guest.clients import (
    FLAGS,
    ID,
    MULTI,
    QUEUE,
    QUEUED,
    REFUSED_COMMAND,
    drop,
    extend,
    grow,
    piece,
)
from colobench.guest.commands import REPLY_ROOM, refuse
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import key_hash, sweep_chain
from colobench.guest.quoting import put_line
from colobench.guest.region import apart, get_number, put_number
from colobench.guest.resp import argument, put_text
from colobench.guest.watches import (
    count_watches,
    is_touched,
    unwatch,
    watch,
    watched_hash,
)
from colobench.kernels.jit import Bytes, Words, inlined

_STAR, _RETURN = ord("*"), 13


@inlined
def is_queueing(memory: Bytes, client: int) -> bool:
    """Say whether a client is between MULTI and EXEC."""
    return get_number(memory, client + FLAGS) & MULTI != 0


@inlined
def note_refusal(memory: Bytes, bitmap: Words, client: int) -> int:
    """Make a later EXEC fail, because a command was refused."""
    flags = get_number(memory, client + FLAGS)
    if flags & MULTI:
        put_number(memory, bitmap, client + FLAGS, flags | REFUSED_COMMAND)
    return 0


@inlined
def _append(
    pool: Bytes, bitmap: Words, area: int, client: int, request: int, following: int
) -> bool:
    """Append a request to the queue; return False if there is no memory."""
    if pool[request] == _STAR:
        return extend(pool, bitmap, area, client + QUEUE, request, following - request)
    end = following - 1
    if end > request and pool[end - 1] == _RETURN:
        end -= 1
    _, length = put_line(pool, bitmap, ZERO, -1, request, end)
    _, before = piece(pool, area, client + QUEUE)
    at = grow(pool, bitmap, area, client + QUEUE, before + length)
    if at:
        put_line(pool, bitmap, at + before, at + before + length, request, end)
        put_number(pool, bitmap, client + QUEUE + 8, before + length)
    return at != 0


@inlined
def queue(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    area: int,
    client: int,
    request: int,
    following: int,
    at: int,
    limit: int,
) -> int:
    """Queue a complete request, which ends at `following`, for EXEC."""
    apart()
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    if not _append(pool, bitmap, area, client, request, following):
        note_refusal(memory, bitmap, client)
        return refuse(memory, bitmap, kv, at, limit)
    put_number(memory, bitmap, client + QUEUED, get_number(memory, client + QUEUED) + 1)
    return put_text(memory, bitmap, at, limit, b"+QUEUED\r\n")


@inlined
def multi(memory: Bytes, bitmap: Words, client: int, at: int, limit: int) -> int:
    """MULTI."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    flags = get_number(memory, client + FLAGS)
    if flags & MULTI:
        return put_text(memory, bitmap, at, limit, b"-ERR MULTI calls can not be nested\r\n")
    put_number(memory, bitmap, client + FLAGS, flags | MULTI)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def end_transaction(
    memory: Bytes, pool: Bytes, bitmap: Words, kv: int, area: int, client: int
) -> int:
    """Delete the queue, and the client's watches."""
    apart()
    flags = get_number(memory, client + FLAGS) & ~(MULTI | REFUSED_COMMAND)
    put_number(memory, bitmap, client + FLAGS, flags)
    put_number(memory, bitmap, client + QUEUED, ZERO)
    drop(pool, bitmap, area, client + QUEUE)
    return unwatch(memory, bitmap, kv, get_number(memory, client + ID))


@inlined
def discard(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    area: int,
    client: int,
    at: int,
    limit: int,
) -> int:
    """DISCARD."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    if not is_queueing(memory, client):
        return put_text(memory, bitmap, at, limit, b"-ERR DISCARD without MULTI\r\n")
    end_transaction(memory, pool, bitmap, kv, area, client)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def watch_keys(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    client: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """WATCH key...."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    if is_queueing(memory, client):
        text = b"-ERR WATCH inside MULTI is not allowed\r\n"
        return put_text(memory, bitmap, at, limit, text)
    owner = get_number(memory, client + ID)
    for _ in range(arguments):
        key, length, cursor = argument(memory, request, cursor)
        wanted = key_hash(memory, kv, key, length)
        sweep_chain(memory, bitmap, kv, wanted)
        if not watch(memory, bitmap, kv, wanted, owner):
            text = b"-ERR too many keys are watched: 192 at most, by all clients\r\n"
            return put_text(memory, bitmap, at, limit, text)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def unwatch_keys(memory: Bytes, bitmap: Words, kv: int, client: int, at: int, limit: int) -> int:
    """UNWATCH."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    unwatch(memory, bitmap, kv, get_number(memory, client + ID))
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def is_outdated(memory: Bytes, bitmap: Words, kv: int, client: int) -> bool:
    """Say whether a key that a client watches has changed or expired."""
    apart()
    for number in range(count_watches(memory, kv)):
        sweep_chain(memory, bitmap, kv, watched_hash(memory, kv, number))
    return is_touched(memory, kv, get_number(memory, client + ID))
