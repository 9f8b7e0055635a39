"""A key-value store in guest RAM that Redis' clients understand: `execute` and `initialize`.

The protocol is in `resp`, the commands are in `commands` and `server_commands`, keys, values and
counters in `keyspace`, their memory in `heap`. Every write to RAM is marked. What a store answers,
and what is in RAM then, follows from the requests in their order and, for TIME and INFO, the clock.
"""

from __future__ import annotations

import numpy as np

from colobench.guest import commands, server_commands
from colobench.guest.command_table import ARITIES, index
from colobench.guest.commands import AS_NUMBER, GIVE_OLD, IF_ABSENT
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import ERRORS, REQUESTS, count, is_region, is_store, make
from colobench.guest.region import (
    DAMAGE,
    DAMAGE_TEXTS,
    HEADER,
    SMALLEST_STORE,
    apart,
    get_number,
    put_number,
)
from colobench.guest.resp import (
    BUFFER_BYTES,
    INCOMPLETE,
    argument,
    find_request,
    is_word,
    put_part,
    put_protocol_error,
    put_text,
)
from colobench.guest.server_commands import find_command, put_arity_error, put_unknown
from colobench.kernels.jit import Bytes, Words, inlined, kernel

__all__ = [
    "BLOCKED",
    "BUFFER_BYTES",
    "CLOSE",
    "CONSUMED",
    "REPLIED",
    "RESULT_SLOTS",
    "SMALLEST_STORE",
    "execute",
    "initialize",
]

#: Slots of `execute`'s result: bytes of requests consumed, bytes of replies written, whether the
#: connection is to be closed when they are sent, whether the replies lack room.
CONSUMED, REPLIED, CLOSE, BLOCKED = range(4)
RESULT_SLOTS = 8

_MINUS = ord("-")
_GET, _SET, _SETNX, _GETSET, _MSET, _MGET = (
    index(name) for name in ("get", "set", "setnx", "getset", "mset", "mget")
)
_INCR, _INCRBY, _DECR, _DECRBY, _APPEND = (
    index(name) for name in ("incr", "incrby", "decr", "decrby", "append")
)
_DEL, _UNLINK, _EXISTS, _STRLEN, _TYPE = (
    index(name) for name in ("del", "unlink", "exists", "strlen", "type")
)
_DBSIZE, _FLUSHALL, _FLUSHDB = (index(name) for name in ("dbsize", "flushall", "flushdb"))
_PING, _ECHO, _TIME, _INFO, _CONFIG, _CLIENT, _COMMAND = (
    index(name) for name in ("ping", "echo", "time", "info", "config", "client", "command")
)
_HELLO, _SELECT, _QUIT, _RESET = (index(name) for name in ("hello", "select", "quit", "reset"))
_U0, _U1 = np.uint64(0), np.uint64(1)
_DAMAGES = b"".join(DAMAGE_TEXTS)
_DAMAGE_BEGINS = np.cumsum([0, *map(len, DAMAGE_TEXTS)], dtype=np.int64)
assert len(b"-ERR store damaged: \r\n") + max(map(len, DAMAGE_TEXTS)) <= commands.REPLY_ROOM


@inlined
def _run_on_keys(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    command: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """Execute a command on keys, or give -1 if it is another one; see `commands`."""
    if command == _GET:
        at = commands.get(memory, bitmap, kv, request, cursor, at, limit)
    elif command == _SET:
        at = commands.put_with_options(memory, bitmap, kv, request, cursor, arguments, at, limit)
    elif command in (_SETNX, _GETSET):
        options = IF_ABSENT | AS_NUMBER if command == _SETNX else GIVE_OLD
        at = commands.put_plainly(memory, bitmap, kv, request, cursor, at, limit, options)
    elif command in (_INCR, _INCRBY, _DECR, _DECRBY):
        sign = 1 if command in (_INCR, _INCRBY) else -1
        at = commands.increment(memory, bitmap, kv, request, cursor, arguments, at, limit, sign)
    elif command == _MSET:
        at = commands.mset(memory, bitmap, kv, request, cursor, arguments, at, limit)
    elif command == _MGET:
        at = commands.mget(memory, bitmap, kv, request, cursor, arguments, at, limit)
    elif command in (_DEL, _UNLINK):
        at = commands.delete(memory, bitmap, kv, request, cursor, arguments, at, limit)
    elif command == _EXISTS:
        at = commands.exists(memory, bitmap, kv, request, cursor, arguments, at, limit)
    elif command == _APPEND:
        at = commands.append(memory, bitmap, kv, request, cursor, at, limit)
    elif command in (_STRLEN, _TYPE):
        kind = command == _TYPE
        at = commands.describe_value(memory, bitmap, kv, request, cursor, at, limit, kind)
    elif command == _DBSIZE:
        at = commands.count_keys(memory, bitmap, kv, at, limit)
    elif command in (_FLUSHALL, _FLUSHDB):
        at = commands.flush(memory, bitmap, kv, request, cursor, arguments, at, limit)
    else:
        at = -1
    return at


@inlined
def _run_on_server(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    command: int,
    arguments: int,
    now_us: np.uint64,
    clients: int,
    connections: int,
    at: int,
    limit: int,
) -> int:
    """Execute any other command; see `server_commands`."""
    if command in (_PING, _ECHO):
        at = server_commands.ping(memory, bitmap, request, cursor, arguments, at, limit)
    elif command == _TIME:
        at = server_commands.time(memory, bitmap, now_us, at, limit)
    elif command == _INFO:
        at = server_commands.info(
            memory, bitmap, kv, request, cursor, arguments, now_us, clients, connections, at, limit
        )
    elif command == _CONFIG:
        at = server_commands.config(memory, bitmap, kv, request, cursor, arguments, at, limit)
    elif command == _CLIENT:
        at = server_commands.client(memory, bitmap, request, cursor, arguments, at, limit)
    elif command == _COMMAND:
        at = server_commands.command(memory, bitmap, request, cursor, arguments, at, limit)
    elif command == _HELLO:
        at = server_commands.hello(memory, bitmap, request, cursor, arguments, at, limit)
    elif command == _SELECT:
        at = server_commands.select(memory, bitmap, request, cursor, at, limit)
    else:
        text = b"+RESET\r\n" if command == _RESET else b"+OK\r\n"
        at = put_text(memory, bitmap, at, limit, text)
    return at


@inlined
def _run(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    first: int,
    arguments: int,
    now_us: np.uint64,
    clients: int,
    connections: int,
    at: int,
    limit: int,
) -> tuple[int, bool]:
    """Execute a request, and give the address behind its reply, and whether it ends the connection.

    QUIT does, and so does what is HTTP's, without a reply: as with Redis, a browser must not be led
    to have a request's body executed.
    """
    name, length, cursor = argument(memory, request, first)
    command = find_command(memory, name, length)
    if command < 0:
        if is_word(memory, name, length, b"post") or is_word(memory, name, length, b"host:"):
            return at, True
        end = put_unknown(memory, bitmap, request, first, arguments, at, limit)
    elif (ARITIES[command] > 0 and ARITIES[command] != arguments) or arguments < -ARITIES[command]:
        end = put_arity_error(memory, bitmap, at, limit, name, length)
    else:
        left = arguments - 1
        end = _run_on_keys(memory, bitmap, kv, request, cursor, command, left, at, limit)
        if end < 0:
            end = _run_on_server(
                memory, bitmap, kv, request, cursor, command, left, now_us, clients, connections,
                at, limit,
            )  # fmt: skip
    if end - at > BUFFER_BYTES:
        text = b"-ERR reply exceeds 32768 bytes\r\n"
        end = put_text(memory, bitmap, at, limit, text)
    return end, command == _QUIT


@inlined
def _put_damage(memory: Bytes, bitmap: Words, at: int, limit: int, kind: int) -> int:
    """Write what of the store is damaged."""
    apart()
    number = kind - HEADER if HEADER <= kind < HEADER + len(DAMAGE_TEXTS) else 0
    at = put_text(memory, bitmap, at, limit, b"-ERR store damaged: ")
    at = put_part(
        memory, bitmap, at, limit, _DAMAGES, _DAMAGE_BEGINS[number], _DAMAGE_BEGINS[number + 1]
    )
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def _run_safely(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    first: int,
    arguments: int,
    now_us: np.uint64,
    clients: int,
    connections: int,
    at: int,
    limit: int,
) -> tuple[int, bool]:
    """Execute a request as `_run` does; where the store is damaged, the reply says so.

    That ends the connection. A reply without room is left, and the damage will be found again.
    """
    end, closed = _run(
        memory, bitmap, kv, request, first, arguments, now_us, clients, connections, at, limit
    )
    damage = get_number(memory, kv + DAMAGE)
    if damage:
        put_number(memory, bitmap, kv + DAMAGE, ZERO)
        end, closed = _put_damage(memory, bitmap, at, limit, damage), True
    return end, closed


@kernel("i8(u1[::1], u8[::1], i8, i8, i8, i8, i8, i8, u8, i8, i8, u8[::1])")
def execute(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    size: int,
    begin: int,
    end: int,
    out: int,
    out_end: int,
    now_us: np.uint64,
    clients: int,
    connections: int,
    result: Words,
) -> int:
    """Execute the whole requests among a connection's received bytes, in order.

    Parameters
    ----------
    memory, bitmap
        uint8[...], all of RAM, and its marks, uint64[pages / 64] or empty. Addresses are bytes from
        the beginning of `memory`.
    kv, size
        The store's address and size, as `initialize` was told; nothing behind it is touched. What
        is no such store executes nothing, and the connection is closed with an error.
    begin, end
        Bytes that were received and not consumed yet, BUFFER_BYTES at most. A request that is not
        whole yet is left. One that can never be whole within BUFFER_BYTES is a protocol error.
    out, out_end
        The room for replies; it lies apart from the bytes received, and both lie before the store.
        A request whose reply does not fit is left and nothing of it is executed; a command that
        changes something is left if there are fewer than `commands.REPLY_ROOM` bytes. With a room
        of BUFFER_BYTES every request is answered: a longer reply is an error.
    now_us
        Microseconds since 1970, for TIME and INFO.
    clients, connections
        How many are connected, and how many ever were, for INFO.
    result
        uint64[8], of which CONSUMED, REPLIED, CLOSE and BLOCKED are set. After what ends the
        connection all bytes count as consumed.

    Returns
    -------
    int
        How many requests were executed.
    """
    memory = memory[: kv + size]
    at, request, requests, closed, blocked = out, begin, 0, False, False
    if not is_store(memory, kv):
        put_number(memory, bitmap, kv + DAMAGE, ZERO)
        at, closed = _put_damage(memory, bitmap, at, out_end, HEADER), True
        at = at if at <= out_end else out
    while request < end and not closed:
        arguments, first, following = find_request(memory, request, end)
        if arguments == INCOMPLETE:
            break
        reply = at
        if arguments < 0:
            closed = True
            reply = put_protocol_error(memory, bitmap, at, out_end, arguments, first)
        elif arguments > 0:
            reply, closed = _run_safely(
                memory, bitmap, kv, request, first, arguments, now_us, clients, connections, at,
                out_end,
            )  # fmt: skip
        if reply > out_end:
            closed, blocked = False, True
            break
        if reply > at:
            if memory[at] == _MINUS:
                count(memory, bitmap, kv + ERRORS)
            at = reply
        if arguments > 0:
            count(memory, bitmap, kv + REQUESTS)
            requests += 1
        request = end if closed else following
    result[CONSUMED] = np.uint64((end if closed else request) - begin)
    result[REPLIED] = np.uint64(at - out)
    result[CLOSE] = _U1 if closed else _U0
    result[BLOCKED] = _U1 if blocked else _U0
    return requests


@kernel("i8(u1[::1], u8[::1], i8, i8)")
def initialize(memory: Bytes, bitmap: Words, kv: int, size: int) -> int:
    """Make an empty store in [kv, kv + size), whatever is there, in which all of its state lies.

    Pages of the hash table that are 0 already stay clean.

    Returns
    -------
    int
        1, or 0 if the region is smaller than SMALLEST_STORE, not within `memory`, or reaches
        beyond 1 TiB; then nothing is written.
    """
    if not is_region(memory, kv, size):
        return 0
    return make(memory[: kv + size], bitmap, kv)
