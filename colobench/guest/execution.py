"""Which function executes which command: `run`, and `has_arity`."""

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
    log_of,
)
from colobench.guest.clients import (
    longest_value,
    speaks_resp3,
)
from colobench.guest.command_table import ARITIES, index
from colobench.guest.commands import AS_NUMBER, GIVE_OLD, IF_ABSENT
from colobench.guest.expiry import MILLISECONDS, SECONDS, UNIX_MILLISECONDS, UNIX_SECONDS
from colobench.guest.propagation import (
    propagate,
)
from colobench.guest.region import (
    apart,
)
from colobench.guest.resp import (
    put_text,
)
from colobench.kernels.jit import Bytes, Words, inlined

#: Slots of `execute`'s result: bytes of requests consumed; bytes of replies written; 1 if the
#: connection is to be closed after sending them; 1 if replies wait for room.
CONSUMED, REPLIED, CLOSE, BLOCKED = range(4)
RESULT_SLOTS = 8

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
def run(
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
def has_arity(command: int, arguments: int) -> bool:
    """Say whether a command may have that number of arguments, its name included."""
    arity = ARITIES[command]
    return arity == arguments if arity > 0 else arguments >= -arity
