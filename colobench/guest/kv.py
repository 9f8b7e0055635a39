"""A key-value store in guest RAM with Redis's protocol: `execute` and `initialize`.

The protocol is in `resp`, `quoting` and `large`; the commands are in `commands`, `expiry`, `scan`,
`transactions`, `server_commands`, `client_commands` and `information`, and `execution` chooses
among them; keys, values and counters are in `keyspace`, their memory in `heap`; the state of
clients in `clients`. Every write to RAM is marked. A store's answers, and the contents of RAM, are
a function of the order of requests and of the clock, by which keys expire.
"""

from __future__ import annotations

import numpy as np

from colobench.guest import (
    commands,
    transactions,
)
from colobench.guest.append_only_file import (
    is_loading,
    log_of,
)
from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.clients import (
    COMMAND,
    ID,
    LAST,
    QUEUE,
    READY,
    REPLY,
    REQUEST,
    SENT,
    SKIPPED,
    SLOT_BYTES,
    STAGE,
    area_in,
    dismiss,
    drop,
    introduce,
    is_area,
    longest_value,
    make_area,
    piece,
    reserve,
    slots_in,
)
from colobench.guest.command_table import index
from colobench.guest.execution import (
    BLOCKED,
    CLOSE,
    CONSUMED,
    REPLIED,
    RESULT_SLOTS,
    has_arity,
    run,
)
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import (
    ERRORS,
    EXPIRING,
    REQUESTS,
    count,
    is_region,
    is_store,
    make,
    set_time,
    sweep,
)
from colobench.guest.large import begin_large, rewrite, take
from colobench.guest.propagation import (
    changes_store,
    has_room,
    put_refusal,
    record_bytes,
    refusal,
)
from colobench.guest.queued_commands import execute_queued, is_queued
from colobench.guest.region import (
    BLOCK,
    DAMAGE,
    DAMAGE_TEXTS,
    HEADER,
    SMALLEST_STORE,
    apart,
    get_number,
    put_number,
)
from colobench.guest.replaying import replay
from colobench.guest.resp import (
    INCOMPLETE,
    INVALID_COUNT,
    QUOTED,
    argument,
    find_request,
    is_word,
    put_part,
    put_protocol_error,
    put_text,
)
from colobench.guest.server_commands import find_command, put_arity_error, put_unknown
from colobench.guest.store import copy_bytes
from colobench.guest.watches import unwatch
from colobench.kernels.jit import Bytes, Words, inlined, kernel

__all__ = [
    "BLOCKED",
    "CLOSE",
    "CONSUMED",
    "REPLAY",
    "REPLIED",
    "RESULT_SLOTS",
    "SMALLEST_STORE",
    "execute",
    "forget",
    "forget_client",
    "initialize",
    "initialize_clients",
    "meet",
    "sweep_expired",
]

#: Number of a slot for `execute` that stands for commands of the append-only file.
REPLAY = -1
#: Results of `_next_request` in addition to those of `resp`: look again; a request was skipped.
_AGAIN, _NO_MEMORY = np.int64(-20), np.int64(-21)

_MINUS = ord("-")
_EXEC, _QUIT = index("exec"), index("quit")
_U0, _U1 = np.uint64(0), np.uint64(1)
_SECOND_US = np.uint64(1_000_000)
_DAMAGES = b"".join(DAMAGE_TEXTS)
_DAMAGE_BEGINS = np.cumsum([0, *map(len, DAMAGE_TEXTS)], dtype=np.int64)
assert len(b"-ERR store damaged: \r\n") + max(map(len, DAMAGE_TEXTS)) <= commands.REPLY_ROOM


@inlined
def _log_bytes(
    memory: Bytes,
    pool: Bytes,
    log: int,
    area: int,
    client: int,
    command: int,
    length: int,
    arguments: int,
) -> int:
    """Return a limit of the bytes that a command appends to the append-only file."""
    _, queued = piece(pool, area, client + QUEUE)
    longest = longest_value(pool, area)
    return record_bytes(memory, log, command, length, arguments, queued, longest)


@inlined
def _waits_for_log(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    log: int,
    area: int,
    client: int,
    request: int,
    first: int,
    following: int,
    arguments: int,
) -> bool:
    """Say whether the append-only file has no room yet for a request's record."""
    apart()
    name, letters, _ = argument(memory, request, first)
    command = find_command(memory, name, letters)
    if command < 0 or not (changes_store(command) or command == _EXEC):
        return False
    if is_queued(memory, client, command):
        return False
    needed = _log_bytes(memory, pool, log, area, client, command, following - request, arguments)
    if refusal(memory, log, command, needed) != 0:
        return False
    return not has_room(memory, bitmap, log, needed)


@inlined
def _refuse(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    log: int,
    area: int,
    client: int,
    command: int,
    length: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """Refuse a command that the append-only file does not allow; return 0 if it allows it."""
    apart()
    needed = _log_bytes(memory, pool, log, area, client, command, length, arguments)
    reason = refusal(memory, log, command, needed)
    if reason == 0:
        return 0
    transactions.note_refusal(memory, bitmap, client)
    end = put_refusal(memory, bitmap, log, reason, command, at, limit)
    if command == _EXEC and end <= limit:
        transactions.end_transaction(memory, pool, bitmap, kv, area, client)
    return end


@inlined
def _answer(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    clients: int,
    area: int,
    client: int,
    request: int,
    first: int,
    following: int,
    arguments: int,
    now_us: np.uint64,
    connected: int,
    connections: int,
    at: int,
    limit: int,
) -> tuple[int, bool]:
    """Execute a request; return the address after its reply, and whether the connection ends.

    QUIT ends the connection, and so do HTTP's words, without a reply: as in Redis, a browser must
    not be able to have the body of a request executed. Damage ends it, too, with an error as reply;
    if that has no room, the damage will be found again.
    """
    apart()
    name, length, cursor = argument(memory, request, first)
    command = find_command(memory, name, length)
    log, refused = log_of(memory, kv), ZERO
    if log >= 0 and command >= 0 and has_arity(command, arguments):
        refused = _refuse(
            memory, pool, bitmap, kv, log, area, client, command, following - request, arguments,
            at, limit,
        )  # fmt: skip
    if refused:
        end = refused
    elif command < 0:
        if is_word(memory, name, length, b"post") or is_word(memory, name, length, b"host:"):
            return at, True
        transactions.note_refusal(memory, bitmap, client)
        end = put_unknown(memory, bitmap, request, first, arguments, at, limit)
    elif not has_arity(command, arguments):
        transactions.note_refusal(memory, bitmap, client)
        aborts = command == _EXEC
        end = put_arity_error(memory, bitmap, at, limit, name, length, aborts)
        if aborts and end <= limit:
            transactions.end_transaction(memory, pool, bitmap, kv, area, client)
    elif is_queued(memory, client, command):
        end = transactions.queue(
            memory, pool, bitmap, kv, area, client, request, following, at, limit
        )
    else:
        put_number(memory, bitmap, client + COMMAND, command)
        if command == _EXEC:
            end = execute_queued(
                memory, pool, bitmap, kv, clients, area, client, now_us, connected, connections,
                at, limit,
            )  # fmt: skip
        else:
            end = run(
                memory, pool, bitmap, kv, clients, area, client, request, cursor, command,
                arguments - 1, now_us, connected, connections, at, limit,
            )  # fmt: skip
    damage = get_number(memory, kv + DAMAGE)
    if damage == 0:
        damage = get_number(pool, area + DAMAGE)
    if damage:
        put_number(memory, bitmap, kv + DAMAGE, ZERO)
        put_number(pool, bitmap, area + DAMAGE, ZERO)
        drop(pool, bitmap, area, client + REPLY)
        return _put_damage(memory, bitmap, at, limit, damage), True
    return end, command == _QUIT


@inlined
def _put_damage(memory: Bytes, bitmap: Words, at: int, limit: int, kind: int) -> int:
    """Write the error that names the damaged part of the store."""
    apart()
    number = kind - HEADER if HEADER <= kind < HEADER + len(DAMAGE_TEXTS) else 0
    at = put_text(memory, bitmap, at, limit, b"-ERR store damaged: ")
    at = put_part(
        memory, bitmap, at, limit, _DAMAGES, _DAMAGE_BEGINS[number], _DAMAGE_BEGINS[number + 1]
    )
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def _send_waiting(
    pool: Bytes, bitmap: Words, area: int, client: int, at: int, limit: int
) -> tuple[int, bool]:
    """Write as much of a client's waiting reply as has room; say whether more of it waits."""
    apart()
    if get_number(pool, client + REPLY) == 0:
        return at, False
    begin, length = piece(pool, area, client + REPLY)
    sent = max(ZERO, min(get_number(pool, client + SENT), length))
    part = max(ZERO, min(length - sent, limit - at))
    copy_bytes(pool, bitmap, at, begin + sent, part)
    if sent + part < length:
        put_number(pool, bitmap, client + SENT, sent + part)
        return at + part, True
    drop(pool, bitmap, area, client + REPLY)
    put_number(pool, bitmap, client + SENT, ZERO)
    return at + part, False


@inlined
def _next_request(
    pool: Bytes, bitmap: Words, area: int, client: int, request: int, end: int
) -> tuple[int, int, int, int]:
    """Find the request to execute next, among received bytes or in the clients' area.

    Returns the results of `find_request`, with the request's address before the address at which
    the received bytes go on. INCOMPLETE means that there is no request, _AGAIN that bytes were
    moved.
    """
    stage, longest = get_number(pool, client + STAGE), longest_value(pool, area)
    if stage == SKIPPED:
        return _NO_MEMORY, request, request, request
    if stage == READY:
        source, length = piece(pool, area, client + REQUEST)
        arguments, first = np.int64(INCOMPLETE), request
        if length > 0:
            arguments, first, _ = find_request(pool, source, source + length, longest)
        if arguments < 0:
            arguments = np.int64(INVALID_COUNT)
        return arguments, first, source, request
    if request >= end:
        return np.int64(INCOMPLETE), request, request, request
    if stage != 0:
        error, following = take(pool, bitmap, area, client, request, end, longest)
        if error:
            return error, following, request, request
        moved = following > request or get_number(pool, client + STAGE) != stage
        return _AGAIN if moved else np.int64(INCOMPLETE), request, request, following
    arguments, first, following = find_request(pool, request, end, longest)
    if arguments == QUOTED:
        error = rewrite(pool, bitmap, area, client, request, following - 1)
        return error if error else _AGAIN, request, request, following
    if arguments == INCOMPLETE and end - request >= BUFFER_BYTES:
        return _AGAIN, request, request, begin_large(pool, bitmap, area, client, request, end)
    return arguments, first, request, following


@inlined
def _answer_at_length(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    clients: int,
    area: int,
    client: int,
    request: int,
    first: int,
    following: int,
    arguments: int,
    now_us: np.uint64,
    connected: int,
    connections: int,
    at: int,
    limit: int,
    length: int,
) -> tuple[int, bool]:
    """Execute a request whose reply is too long for a buffer: it becomes the waiting reply."""
    place = reserve(pool, bitmap, area, client + REPLY, length)
    if place and request < place + length and place < following:
        # The heap is broken: the reply would overwrite the request.
        drop(pool, bitmap, area, client + REPLY)
        return _put_damage(memory, bitmap, at, limit, BLOCK), True
    if place == 0:
        text = b"-OOM no memory for a reply of this size\r\n"
        return put_text(memory, bitmap, at, limit, text), False
    end, closed = _answer(
        memory, pool, bitmap, kv, clients, area, client, request, first, following, arguments,
        now_us, connected, connections, place, place + length,
    )  # fmt: skip
    put_number(pool, bitmap, client + REPLY + 8, min(end - place, length))
    put_number(pool, bitmap, client + SENT, ZERO)
    return at, closed


@inlined
def _greet(
    memory: Bytes, pool: Bytes, bitmap: Words, kv: int, area: int, client: int, now_us: np.uint64
) -> int:
    """Store the time, and make the slot of a client that is new."""
    set_time(memory, bitmap, kv, now_us)
    if get_number(memory, client + ID) == 0:
        introduce(pool, bitmap, area, client, ZERO, np.int64(now_us))
    return put_number(memory, bitmap, client + LAST, np.int64(now_us // _SECOND_US))


@kernel("i8(u1[::1], u8[::1], i8, i8, i8, i8, i8, i8, i8, i8, i8, u8, i8, i8, u8[::1])")
def execute(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    size: int,
    clients: int,
    clients_size: int,
    slot: int,
    begin: int,
    end: int,
    out: int,
    out_end: int,
    now_us: np.uint64,
    connected: int,
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
        The store's address and size, as given to `initialize`; nothing after it is touched. If
        there is no such store, nothing is executed, and the connection is closed with an error.
    clients, clients_size
        Address and size of the clients' area, as given to `initialize_clients`; it is before the
        store.
    slot
        Number of the connection's slot in the area, from 0 on. With REPLAY, the bytes are those of
        the append-only file, and no replies are kept.
    begin, end
        Range of received bytes that are not consumed yet, at most BUFFER_BYTES. An incomplete
        request is left, unless it fills the buffer: then its bytes move to the clients' area.
    out, out_end
        Range for replies. It and the received bytes do not overlap, and are before the area. If a
        reply does not fit, its request is left and not executed; a command that changes something
        is left if there are fewer than `commands.REPLY_ROOM` bytes. A reply of more than
        BUFFER_BYTES is made in the area, and written in pieces whenever there is room; meanwhile
        nothing else of the connection is executed.
    now_us
        The guest's clock, microseconds since 1970.
    connected, connections
        Number of connections now, and of all connections so far, for INFO.
    result
        uint64[8], in which CONSUMED, REPLIED, CLOSE and BLOCKED are set. After a request that ends
        the connection all bytes count as consumed.

    Returns
    -------
    int
        Number of requests executed.
    """
    memory = memory[: kv + size]
    pool, area = memory[: clients + clients_size], area_in(clients, clients_size)
    client, log = clients + slot * SLOT_BYTES, log_of(memory, kv)
    at, request, requests, closed, blocked = out, begin, 0, False, False
    if slot == REPLAY and log >= 0 and is_store(memory, kv) and is_area(pool, area):
        return replay(
            memory, pool, bitmap, kv, clients, area, log, begin, end, out, out_end, result
        )
    if is_store(memory, kv) and is_area(pool, area) and 0 <= slot < slots_in(clients_size):
        _greet(memory, pool, bitmap, kv, area, client, now_us)
        at, blocked = _send_waiting(pool, bitmap, area, client, at, out_end)
    else:
        put_number(memory, bitmap, kv + DAMAGE, ZERO)
        put_number(memory, bitmap, area + DAMAGE, ZERO)
        at, closed = _put_damage(memory, bitmap, at, out_end, HEADER), True
        at = at if at <= out_end else out
    while not (closed or blocked):
        arguments, first, source, following = _next_request(
            pool, bitmap, area, client, request, end
        )
        if arguments == INCOMPLETE:
            break
        if arguments == _AGAIN:
            request = following
            continue
        reply = at
        if arguments == _NO_MEMORY:
            transactions.note_refusal(memory, bitmap, client)
            reply = commands.refuse(memory, bitmap, kv, at, out_end)
        elif arguments < 0:
            closed = True
            reply = put_protocol_error(memory, bitmap, at, out_end, arguments, first)
        elif arguments > 0:
            # A request that was moved ends with its piece.
            last = following
            if source != request:
                last = source + get_number(pool, client + REQUEST + 8)
            if log >= 0 and _waits_for_log(
                memory, pool, bitmap, log, area, client, source, first, last, arguments
            ):
                blocked = True
                break
            reply, closed = _answer(
                memory, pool, bitmap, kv, clients, area, client, source, first, last, arguments,
                now_us, connected, connections, at, out_end,
            )  # fmt: skip
            if reply > out_end and reply - at > BUFFER_BYTES:
                reply, closed = _answer_at_length(
                    memory, pool, bitmap, kv, clients, area, client, source, first, last,
                    arguments, now_us, connected, connections, at, out_end, reply - at,
                )  # fmt: skip
        if reply > out_end:
            closed, blocked = False, True
            break
        if reply > at:
            if memory[at] == _MINUS:
                count(memory, bitmap, kv + ERRORS)
            at = reply
        if arguments > 0 or arguments == _NO_MEMORY:
            count(memory, bitmap, kv + REQUESTS)
            requests += 1
        if get_number(memory, client + STAGE) != 0:
            drop(pool, bitmap, area, client + REQUEST)
            put_number(memory, bitmap, client + STAGE, ZERO)
        at, blocked = _send_waiting(pool, bitmap, area, client, at, out_end)
        request = end if closed else following
    result[CONSUMED] = np.uint64((end if closed else request) - begin)
    result[REPLIED] = np.uint64(at - out)
    result[CLOSE] = _U1 if closed else _U0
    result[BLOCKED] = _U1 if blocked and not closed else _U0
    return requests


@kernel("i8(u1[::1], u8[::1], i8, i8)")
def initialize(memory: Bytes, bitmap: Words, kv: int, size: int) -> int:
    """Make an empty store in [kv, kv + size), which contains all of its state.

    Pages of the hash table that are 0 already stay clean.

    Returns
    -------
    int
        1, or 0 if the region is smaller than SMALLEST_STORE, not within `memory`, or extends
        beyond 1 TiB; then nothing is written.
    """
    if not is_region(memory, kv, size):
        return 0
    return make(memory[: kv + size], bitmap, kv)


@kernel("i8(u1[::1], u8[::1], i8, i8)")
def initialize_clients(memory: Bytes, bitmap: Words, clients: int, size: int) -> int:
    """Make an area without clients in [clients, clients + size).

    Returns
    -------
    int
        1, or 0 if the area is smaller than BYTES_PER_CLIENT, not within `memory`, or extends beyond
        1 TiB; then nothing is written.
    """
    area = area_in(clients, size)
    if clients < 0 or not is_region(memory, area, clients + size - area):
        return 0
    return make_area(memory, bitmap, clients, size)


@inlined
def forget(
    memory: Bytes, bitmap: Words, kv: int, size: int, clients: int, clients_size: int, slot: int
) -> int:
    """Forget a client whose connection has ended; see `execute`."""
    apart()
    memory = memory[: kv + size]
    pool, area = memory[: clients + clients_size], area_in(clients, clients_size)
    client = clients + slot * SLOT_BYTES
    if not (0 <= slot < slots_in(clients_size)) or get_number(memory, client + ID) == 0:
        return 0
    unwatch(memory, bitmap, kv, get_number(memory, client + ID))
    dismiss(pool, bitmap, area, client)
    return put_number(pool, bitmap, area + DAMAGE, ZERO)


@inlined
def meet(
    memory: Bytes,
    bitmap: Words,
    clients: int,
    clients_size: int,
    slot: int,
    peer: int,
    now_us: np.uint64,
) -> int:
    """Make the slot of a client whose connection has begun; see `clients.introduce`."""
    pool, area = memory[: clients + clients_size], area_in(clients, clients_size)
    if not (0 <= slot < slots_in(clients_size)):
        return 0
    return introduce(pool, bitmap, area, clients + slot * SLOT_BYTES, peer, np.int64(now_us))


@kernel("i8(u1[::1], u8[::1], i8, i8, i8, i8, i8)")
def forget_client(
    memory: Bytes, bitmap: Words, kv: int, size: int, clients: int, clients_size: int, slot: int
) -> int:
    """Forget a client whose connection has ended; the parameters are those of `execute`."""
    return forget(memory, bitmap, kv, size, clients, clients_size, slot)


@kernel("i8(u1[::1], u8[::1], i8, i8, u8, i8)")
def sweep_expired(
    memory: Bytes, bitmap: Words, kv: int, size: int, now_us: np.uint64, tick: int
) -> int:
    """Delete expired keys in a bounded part of the store at each call.

    Parameters
    ----------
    memory, bitmap, kv, size, now_us
        As in `execute`.
    tick
        Any number; a second call with the same number does nothing.

    Returns
    -------
    int
        A value without meaning.
    """
    memory = memory[: kv + size]
    if get_number(memory, kv + EXPIRING) <= 0 or not is_store(memory, kv):
        return 0
    if is_loading(memory, kv):
        # Commands that follow in the append-only file are to find the keys of their time.
        return 0
    set_time(memory, bitmap, kv, now_us)
    sweep(memory, bitmap, kv, tick)
    return put_number(memory, bitmap, kv + DAMAGE, ZERO)
