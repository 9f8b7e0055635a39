"""A key-value store in guest RAM with Redis's protocol: `execute` and `initialize`.

The protocol is in `resp`, `quoting` and `large`; the commands are in `commands`, `expiry`, `scan`,
`transactions`, `server_commands`, `client_commands` and `information`; keys, values and counters in
`keyspace`, their memory in `heap`; the state of clients in `clients`. Every write to RAM is marked.
A store's answers, and the contents of RAM, are a function of the order of requests and of the
clock, by which keys expire.
"""

from __future__ import annotations

import numpy as np

from colobench.guest import (
    client_commands,
    commands,
    expiry,
    information,
    persistence_commands,
    scan,
    server_commands,
    transactions,
)
from colobench.guest.append_only_file import (
    LOADED_MS,
    is_loading,
    log_of,
)
from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.clients import (
    COMMAND,
    FLAGS,
    ID,
    LAST,
    MULTI,
    QUEUE,
    QUEUED,
    READY,
    REFUSED_COMMAND,
    REPLY,
    REQUEST,
    SENT,
    SKIPPED,
    SLOT_BYTES,
    STAGE,
    area_in,
    capacity,
    dismiss,
    drop,
    grow,
    introduce,
    is_area,
    longest_value,
    make_area,
    piece,
    reserve,
    slots_in,
    speaks_resp3,
)
from colobench.guest.command_table import ARITIES, index
from colobench.guest.commands import AS_NUMBER, GIVE_OLD, IF_ABSENT, REPLY_ROOM
from colobench.guest.expiry import MILLISECONDS, SECONDS, UNIX_MILLISECONDS, UNIX_SECONDS
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import (
    ERRORS,
    EXPIRING,
    NOW,
    REQUESTS,
    count,
    is_region,
    is_store,
    make,
    sweep,
)
from colobench.guest.large import begin_large, rewrite, take
from colobench.guest.propagation import (
    begin_transaction,
    changes_store,
    end_transaction,
    has_room,
    propagate,
    put_refusal,
    record_bytes,
    refusal,
)
from colobench.guest.region import (
    BLOCK,
    DAMAGE,
    DAMAGE_TEXTS,
    HEADER,
    QUEUED_COMMANDS,
    SMALLEST_STORE,
    apart,
    get_number,
    note_damage,
    put_number,
)
from colobench.guest.resp import (
    ARRAY,
    INCOMPLETE,
    INVALID_COUNT,
    QUOTED,
    argument,
    find_byte,
    find_request,
    is_word,
    parse_integer,
    put_head,
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

#: Slots of `execute`'s result: bytes of requests consumed; bytes of replies written; 1 if the
#: connection is to be closed after sending them; 1 if replies wait for room.
CONSUMED, REPLIED, CLOSE, BLOCKED = range(4)
RESULT_SLOTS = 8
#: Number of a slot for `execute` that stands for commands of the append-only file.
REPLAY = -1
#: Limit of the commands that one call of `execute` takes from the append-only file.
_REPLAYED_COMMANDS = 4096
#: Results of `_next_request` in addition to those of `resp`: look again; a request was skipped.
_AGAIN, _NO_MEMORY = np.int64(-20), np.int64(-21)

_MINUS, _HASH, _NEWLINE = ord("-"), ord("#"), np.int64(10)
_GET, _SET, _SETNX, _GETSET, _MSET, _MGET, _MSETNX = (
    index(name) for name in ("get", "set", "setnx", "getset", "mset", "mget", "msetnx")
)
_INCR, _INCRBY, _DECR, _DECRBY, _APPEND = (
    index(name) for name in ("incr", "incrby", "decr", "decrby", "append")
)
_DEL, _UNLINK, _EXISTS, _TOUCH, _STRLEN, _TYPE = (
    index(name) for name in ("del", "unlink", "exists", "touch", "strlen", "type")
)
_GETRANGE, _SUBSTR, _SETRANGE = (index(name) for name in ("getrange", "substr", "setrange"))
_EXPIRE, _PEXPIRE, _EXPIREAT, _PEXPIREAT = (
    index(name) for name in ("expire", "pexpire", "expireat", "pexpireat")
)
_TTL, _PTTL, _EXPIRETIME, _PEXPIRETIME, _PERSIST = (
    index(name) for name in ("ttl", "pttl", "expiretime", "pexpiretime", "persist")
)
_SETEX, _PSETEX, _GETEX, _GETDEL = (index(name) for name in ("setex", "psetex", "getex", "getdel"))
_DBSIZE, _FLUSHALL, _FLUSHDB = (index(name) for name in ("dbsize", "flushall", "flushdb"))
_SCAN, _KEYS, _OBJECT = (index(name) for name in ("scan", "keys", "object"))
_PING, _ECHO, _TIME, _INFO, _CONFIG, _CLIENT, _COMMAND = (
    index(name) for name in ("ping", "echo", "time", "info", "config", "client", "command")
)
_BGREWRITEAOF = index("bgrewriteaof")
_FUNCTION = index("function")
_HELLO, _AUTH, _SELECT, _QUIT, _RESET = (
    index(name) for name in ("hello", "auth", "select", "quit", "reset")
)
_MULTI, _EXEC, _DISCARD, _WATCH, _UNWATCH = (
    index(name) for name in ("multi", "exec", "discard", "watch", "unwatch")
)
_U0, _U1 = np.uint64(0), np.uint64(1)
_SECOND_US, _MILLISECOND_US = np.uint64(1_000_000), np.uint64(1000)
_DAMAGES = b"".join(DAMAGE_TEXTS)
_DAMAGE_BEGINS = np.cumsum([0, *map(len, DAMAGE_TEXTS)], dtype=np.int64)
assert len(b"-ERR store damaged: \r\n") + max(map(len, DAMAGE_TEXTS)) <= commands.REPLY_ROOM


@inlined
def _run_on_values(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    longest: int,
    request: int,
    cursor: int,
    command: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """Execute a command on values; return -1 for any other command; see `commands`."""
    if command == _GET:
        at = commands.get(memory, bitmap, kv, resp3, request, cursor, at, limit)
    elif command == _SET:
        at = expiry.put_with_options(
            memory, bitmap, kv, resp3, request, cursor, arguments, at, limit
        )
    elif command in (_SETNX, _GETSET):
        options = IF_ABSENT | AS_NUMBER if command == _SETNX else GIVE_OLD
        at = commands.put_plainly(memory, bitmap, kv, resp3, request, cursor, at, limit, options)
    elif command in (_INCR, _INCRBY, _DECR, _DECRBY):
        sign = 1 if command in (_INCR, _INCRBY) else -1
        at = commands.increment(memory, bitmap, kv, request, cursor, arguments, at, limit, sign)
    elif command in (_MSET, _MSETNX):
        absent = command == _MSETNX
        at = commands.mset(memory, bitmap, kv, request, cursor, arguments, at, limit, absent)
    elif command == _MGET:
        at = commands.mget(memory, bitmap, kv, resp3, request, cursor, arguments, at, limit)
    elif command == _APPEND:
        at = commands.append(memory, bitmap, kv, longest, request, cursor, at, limit)
    elif command in (_STRLEN, _TYPE):
        kind = command == _TYPE
        at = commands.describe_value(memory, bitmap, kv, request, cursor, at, limit, kind)
    elif command in (_GETRANGE, _SUBSTR):
        at = commands.get_range(memory, bitmap, kv, request, cursor, at, limit)
    elif command == _SETRANGE:
        at = commands.set_range(memory, bitmap, kv, longest, request, cursor, at, limit)
    elif command in (_SETEX, _PSETEX):
        precise = command == _PSETEX
        at = expiry.put_with_expiry(memory, bitmap, kv, resp3, request, cursor, at, limit, precise)
    elif command == _GETEX:
        at = expiry.get_and_expire(memory, bitmap, kv, resp3, request, cursor, arguments, at, limit)
    elif command == _GETDEL:
        at = expiry.get_and_delete(memory, bitmap, kv, resp3, request, cursor, at, limit)
    else:
        at = np.int64(-1)
    return at


@inlined
def _run_on_keys(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    request: int,
    cursor: int,
    command: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """Execute a command on keys; return -1 for any other command; see `commands`."""
    if command in (_DEL, _UNLINK):
        at = commands.delete(memory, bitmap, kv, request, cursor, arguments, at, limit)
    elif command in (_EXISTS, _TOUCH):
        at = commands.exists(memory, bitmap, kv, request, cursor, arguments, at, limit)
    elif command in (_EXPIRE, _PEXPIRE, _EXPIREAT, _PEXPIREAT):
        unit = SECONDS
        if command == _PEXPIRE:
            unit = MILLISECONDS
        elif command == _EXPIREAT:
            unit = UNIX_SECONDS
        elif command == _PEXPIREAT:
            unit = UNIX_MILLISECONDS
        at = expiry.expire(memory, bitmap, kv, request, cursor, arguments, at, limit, unit)
    elif command in (_TTL, _PTTL, _EXPIRETIME, _PEXPIRETIME):
        unit = SECONDS
        if command == _PTTL:
            unit = MILLISECONDS
        elif command == _EXPIRETIME:
            unit = UNIX_SECONDS
        elif command == _PEXPIRETIME:
            unit = UNIX_MILLISECONDS
        at = expiry.time_to_live(memory, bitmap, kv, request, cursor, at, limit, unit)
    elif command == _PERSIST:
        at = expiry.persist(memory, bitmap, kv, request, cursor, at, limit)
    elif command == _DBSIZE:
        at = commands.count_keys(memory, bitmap, kv, at, limit)
    elif command in (_FLUSHALL, _FLUSHDB):
        at = commands.flush(memory, bitmap, kv, request, cursor, arguments, at, limit)
    elif command == _SCAN:
        at = scan.scan(memory, bitmap, kv, request, cursor, arguments, at, limit)
    elif command == _KEYS:
        at = scan.keys(memory, bitmap, kv, request, cursor, at, limit)
    elif command == _OBJECT:
        at = server_commands.object_command(
            memory, bitmap, kv, resp3, request, cursor, arguments, at, limit
        )
    else:
        at = np.int64(-1)
    return at


@inlined
def _run_on_server(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    clients: int,
    area: int,
    client: int,
    resp3: bool,
    longest: int,
    request: int,
    cursor: int,
    command: int,
    arguments: int,
    now_us: np.uint64,
    connected: int,
    connections: int,
    at: int,
    limit: int,
) -> int:
    """Execute any other command; see `server_commands`, `client_commands`, `transactions`."""
    if command in (_PING, _ECHO):
        at = server_commands.ping(memory, bitmap, request, cursor, arguments, at, limit)
    elif command == _TIME:
        at = server_commands.time(memory, bitmap, now_us, at, limit)
    elif command == _INFO:
        at = information.info(
            memory, bitmap, kv, resp3, request, cursor, arguments, now_us, connected, connections,
            at, limit,
        )  # fmt: skip
    elif command == _CONFIG:
        at = server_commands.config(
            memory, bitmap, kv, resp3, longest, request, cursor, arguments, at, limit
        )
    elif command == _CLIENT:
        at = client_commands.client_command(
            memory, pool, bitmap, kv, area, clients, client, request, cursor, arguments, at, limit
        )
    elif command == _COMMAND:
        at = server_commands.command(memory, bitmap, resp3, request, cursor, arguments, at, limit)
    elif command == _BGREWRITEAOF:
        at = persistence_commands.rewrite(memory, bitmap, kv, at, limit)
    elif command == _FUNCTION:
        at = server_commands.function(memory, bitmap, request, cursor, arguments, at, limit)
    elif command == _HELLO:
        at = client_commands.hello(
            memory, pool, bitmap, kv, area, client, request, cursor, arguments, at, limit
        )
    elif command == _AUTH:
        at = client_commands.authenticate(memory, bitmap, request, cursor, arguments, at, limit)
    elif command == _SELECT:
        at = server_commands.select(memory, bitmap, request, cursor, at, limit)
    elif command == _RESET:
        at = client_commands.reset(memory, pool, bitmap, kv, area, client, at, limit)
    elif command == _MULTI:
        at = transactions.multi(memory, bitmap, client, at, limit)
    elif command == _DISCARD:
        at = transactions.discard(memory, pool, bitmap, kv, area, client, at, limit)
    elif command == _WATCH:
        at = transactions.watch_keys(
            memory, bitmap, kv, client, request, cursor, arguments, at, limit
        )
    elif command == _UNWATCH:
        at = transactions.unwatch_keys(memory, bitmap, kv, client, at, limit)
    else:
        at = put_text(memory, bitmap, at, limit, b"+OK\r\n")
    return at


@inlined
def _run(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    clients: int,
    area: int,
    client: int,
    request: int,
    cursor: int,
    command: int,
    arguments: int,
    now_us: np.uint64,
    connected: int,
    connections: int,
    at: int,
    limit: int,
) -> int:
    """Execute a known command with `arguments` arguments after its name, except EXEC."""
    apart()
    resp3, longest = speaks_resp3(memory, client), longest_value(pool, area)
    end = _run_on_values(
        memory, bitmap, kv, resp3, longest, request, cursor, command, arguments, at, limit
    )
    if end < 0:
        end = _run_on_keys(
            memory, bitmap, kv, resp3, request, cursor, command, arguments, at, limit
        )
    if end < 0:
        end = _run_on_server(
            memory, pool, bitmap, kv, clients, area, client, resp3, longest, request, cursor,
            command, arguments, now_us, connected, connections, at, limit,
        )  # fmt: skip
    log = log_of(memory, kv)
    if log >= 0 and end <= limit:
        propagate(memory, bitmap, kv, log, request, cursor, arguments, command, at)
    return end


@inlined
def _has_arity(command: int, arguments: int) -> bool:
    """Say whether a command may have that number of arguments, its name included."""
    arity = ARITIES[command]
    return arity == arguments if arity > 0 else arguments >= -arity


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
        if command < 0 or not _has_arity(command, arguments):
            return note_damage(pool, bitmap, area, QUEUED_COMMANDS)
        reserved = REPLY_ROOM * (queued - number - 1)
        if source < at + capacity(pool, area, at) and at < source + size:
            # The heap is broken: the replies would overwrite the queue.
            return note_damage(pool, bitmap, area, BLOCK)
        for _ in range(2):
            limit = at + capacity(pool, area, at) - reserved
            begin = at + length
            end = _run(
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
def _exec(
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
def _is_queued(memory: Bytes, client: int, command: int) -> bool:
    """Say whether a client's command is to be queued for EXEC."""
    if not transactions.is_queueing(memory, client):
        return False
    return command not in (_EXEC, _DISCARD, _MULTI, _WATCH, _QUIT, _RESET)


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
    if _is_queued(memory, client, command):
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
    if log >= 0 and command >= 0 and _has_arity(command, arguments):
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
    elif not _has_arity(command, arguments):
        transactions.note_refusal(memory, bitmap, client)
        aborts = command == _EXEC
        end = put_arity_error(memory, bitmap, at, limit, name, length, aborts)
        if aborts and end <= limit:
            transactions.end_transaction(memory, pool, bitmap, kv, area, client)
    elif _is_queued(memory, client, command):
        end = transactions.queue(
            memory, pool, bitmap, kv, area, client, request, following, at, limit
        )
    else:
        put_number(memory, bitmap, client + COMMAND, command)
        if command == _EXEC:
            end = _exec(
                memory, pool, bitmap, kv, clients, area, client, now_us, connected, connections,
                at, limit,
            )  # fmt: skip
        else:
            end = _run(
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
    put_number(memory, bitmap, kv + NOW, np.int64(now_us // _MILLISECOND_US))
    if get_number(memory, client + ID) == 0:
        introduce(pool, bitmap, area, client, ZERO, np.int64(now_us))
    return put_number(memory, bitmap, client + LAST, np.int64(now_us // _SECOND_US))


@inlined
def _has_exec(memory: Bytes, at: int, end: int, longest: int) -> bool:
    """Say whether the commands of the append-only file from an address on include EXEC."""
    while at < end:
        if memory[at] == _HASH:
            at = find_byte(memory, at, end, _NEWLINE) + 1
            continue
        arguments, first, following = find_request(memory, at, end, longest)
        if arguments <= 0:
            return False
        name, letters, _ = argument(memory, at, first)
        if is_word(memory, name, letters, b"exec"):
            return True
        at = following
    return False


@inlined
def _replay_command(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    clients: int,
    area: int,
    request: int,
    first: int,
    arguments: int,
    out: int,
    out_end: int,
) -> bool:
    """Execute a command of the append-only file; say whether it could be executed."""
    name, letters, cursor = argument(memory, request, first)
    command = find_command(memory, name, letters)
    if command in (_MULTI, _EXEC):
        return True
    if command < 0 or not _has_arity(command, arguments) or not changes_store(command):
        return False
    end = _run(
        memory, pool, bitmap, kv, clients, area, clients, request, cursor, command, arguments - 1,
        _U0, ZERO, ZERO, out, out_end,
    )  # fmt: skip
    return end <= out_end and memory[out] != _MINUS


@inlined
def _replay(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    clients: int,
    area: int,
    log: int,
    begin: int,
    end: int,
    out: int,
    out_end: int,
    result: Words,
) -> int:
    """Execute whole commands and transactions of the append-only file, at their times.

    A command that cannot be executed ends the log: CLOSE is set.
    """
    at, executed, failed = begin, 0, False
    longest = longest_value(pool, area)
    put_number(memory, bitmap, kv + NOW, get_number(memory, log + LOADED_MS))
    # A transaction may be longer than a turn, because it is executed whole.
    within = False
    while at < end and not failed and (within or executed < _REPLAYED_COMMANDS):
        if memory[at] == _HASH:
            newline = find_byte(memory, at, end, _NEWLINE)
            if newline == end:
                break
            valid, when = parse_integer(memory, at + 4, max(ZERO, newline - at - 5))
            failed = not valid
            put_number(memory, bitmap, log + LOADED_MS, when)
            put_number(memory, bitmap, kv + NOW, when)
            at = newline + 1
            continue
        arguments, first, following = find_request(memory, at, end, longest)
        if arguments == INCOMPLETE:
            break
        if arguments <= 0:
            failed = True
            break
        name, letters, _ = argument(memory, at, first)
        if is_word(memory, name, letters, b"multi"):
            if not _has_exec(memory, following, end, longest):
                break
            within = True
        elif is_word(memory, name, letters, b"exec"):
            within = False
        failed = not _replay_command(
            memory, pool, bitmap, kv, clients, area, at, first, arguments, out, out_end
        )
        executed += 1
        at = following
    damage = get_number(memory, kv + DAMAGE)
    put_number(memory, bitmap, kv + DAMAGE, ZERO)
    result[CONSUMED], result[REPLIED] = np.uint64(at - begin), _U0
    result[CLOSE] = _U1 if failed or damage else _U0
    result[BLOCKED] = _U0
    return executed


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
        return _replay(
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
    put_number(memory, bitmap, kv + NOW, np.int64(now_us // _MILLISECOND_US))
    sweep(memory, bitmap, kv, tick)
    return put_number(memory, bitmap, kv + DAMAGE, ZERO)
