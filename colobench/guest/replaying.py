"""Commands of the append-only file, executed when a guest is started on an old disk."""

from __future__ import annotations

import numpy as np

from colobench.guest.append_only_file import (
    LOADED_MS,
)
from colobench.guest.clients import (
    longest_value,
)
from colobench.guest.command_table import index
from colobench.guest.execution import BLOCKED, CLOSE, CONSUMED, REPLIED, has_arity, run
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import (
    NOW,
)
from colobench.guest.propagation import (
    changes_store,
)
from colobench.guest.region import (
    DAMAGE,
    get_number,
    put_number,
)
from colobench.guest.resp import (
    INCOMPLETE,
    argument,
    find_byte,
    find_request,
    is_word,
    parse_integer,
)
from colobench.guest.server_commands import find_command
from colobench.kernels.jit import Bytes, Words, inlined

#: Limit of the commands that one call of `execute` takes from the append-only file.
_REPLAYED_COMMANDS = 4096

_MINUS, _HASH, _NEWLINE = ord("-"), ord("#"), np.int64(10)
_MULTI, _EXEC = index("multi"), index("exec")
_U0, _U1 = np.uint64(0), np.uint64(1)


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
    if command < 0 or not has_arity(command, arguments) or not changes_store(command):
        return False
    end = run(
        memory, pool, bitmap, kv, clients, area, clients, request, cursor, command, arguments - 1,
        _U0, ZERO, ZERO, out, out_end,
    )  # fmt: skip
    return end <= out_end and memory[out] != _MINUS


@inlined
def replay(
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
