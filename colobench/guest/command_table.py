"""Table of the key-value store's commands, with their descriptions for COMMAND."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Description(NamedTuple):
    """A command's description in Redis's COMMAND INFO.

    ``arity`` includes the command's name; a negative number is minus the least arity. Keys are the
    arguments from ``first_key`` to ``last_key`` (-1: the last one) in steps of ``step``.
    """

    name: str
    arity: int
    flags: tuple[str, ...] = ()
    first_key: int = 0
    last_key: int = 0
    step: int = 0


_READ = ("readonly", "fast")
_WRITE = ("write", "denyoom", "fast")
_ANY_TIME = ("loading", "stale", "fast")
_TRANSACTION = ("noscript", "loading", "stale", "fast", "allow_busy")
_GREETING = ("noscript", "loading", "stale", "fast", "no_auth", "allow_busy")

#: All commands, the most frequent ones first, exactly as Redis 7.0 describes them.
COMMANDS = (
    Description("get", 2, _READ, 1, 1, 1),
    Description("set", -3, ("write", "denyoom"), 1, 1, 1),
    Description("incr", 2, _WRITE, 1, 1, 1),
    Description("ping", -1, ("fast",)),
    Description("mset", -3, ("write", "denyoom"), 1, -1, 2),
    Description("mget", -2, _READ, 1, -1, 1),
    Description("del", -2, ("write",), 1, -1, 1),
    Description("exists", -2, _READ, 1, -1, 1),
    Description("decr", 2, _WRITE, 1, 1, 1),
    Description("incrby", 3, _WRITE, 1, 1, 1),
    Description("decrby", 3, _WRITE, 1, 1, 1),
    Description("append", 3, _WRITE, 1, 1, 1),
    Description("strlen", 2, _READ, 1, 1, 1),
    Description("setnx", 3, _WRITE, 1, 1, 1),
    Description("getset", 3, _WRITE, 1, 1, 1),
    Description("unlink", -2, ("write", "fast"), 1, -1, 1),
    Description("type", 2, _READ, 1, 1, 1),
    Description("dbsize", 1, _READ),
    Description("flushall", -1, ("write",)),
    Description("flushdb", -1, ("write",)),
    Description("echo", 2, _ANY_TIME),
    Description("expire", -3, ("write", "fast"), 1, 1, 1),
    Description("ttl", 2, _READ, 1, 1, 1),
    Description("setex", 4, ("write", "denyoom"), 1, 1, 1),
    Description("multi", 1, _TRANSACTION),
    Description("exec", 1, ("noscript", "loading", "stale", "skip_slowlog")),
    Description("discard", 1, _TRANSACTION),
    Description("watch", -2, _TRANSACTION, 1, -1, 1),
    Description("unwatch", 1, _TRANSACTION),
    Description("pexpire", -3, ("write", "fast"), 1, 1, 1),
    Description("expireat", -3, ("write", "fast"), 1, 1, 1),
    Description("pexpireat", -3, ("write", "fast"), 1, 1, 1),
    Description("pttl", 2, _READ, 1, 1, 1),
    Description("expiretime", 2, _READ, 1, 1, 1),
    Description("pexpiretime", 2, _READ, 1, 1, 1),
    Description("persist", 2, ("write", "fast"), 1, 1, 1),
    Description("psetex", 4, ("write", "denyoom"), 1, 1, 1),
    Description("getex", -2, ("write", "fast"), 1, 1, 1),
    Description("getdel", 2, ("write", "fast"), 1, 1, 1),
    Description("msetnx", -3, ("write", "denyoom"), 1, -1, 2),
    Description("getrange", 4, ("readonly",), 1, 1, 1),
    Description("substr", 4, ("readonly",), 1, 1, 1),
    Description("setrange", 4, ("write", "denyoom"), 1, 1, 1),
    Description("touch", -2, _READ, 1, -1, 1),
    Description("scan", -2, ("readonly",)),
    Description("keys", 2, ("readonly",)),
    Description("object", -2),
    Description("time", 1, _ANY_TIME),
    Description("info", -1, ("loading", "stale")),
    Description("config", -2),
    Description("client", -2),
    Description("command", -1, ("loading", "stale")),
    Description("function", -2),
    Description("hello", -1, _GREETING),
    Description("auth", -2, ("noscript", "loading", "stale", "fast", "no_auth", "allow_busy")),
    Description("select", 2, _ANY_TIME),
    Description("quit", -1, _GREETING),
    Description("reset", 1, _GREETING),
    Description("bgrewriteaof", 1, ("admin", "noscript", "no_async_loading")),
)


def index(name: str) -> int:
    """Return a command's index in the table."""
    return [command.name for command in COMMANDS].index(name)


def packed(name: str) -> int:
    """Pack a name of up to 8 characters into one number, the first character lowest."""
    return int.from_bytes(name.encode().ljust(8, b"\0"), "little")


def _described(command: Description, resp3: bool) -> bytes:
    """Encode the reply for one command: 10 elements, as in Redis 7.0, the last four empty."""
    name, flags = command.name.encode(), [b"+%s\r\n" % flag.encode() for flag in command.flags]
    numbers = (command.first_key, command.last_key, command.step)
    kind = b"~" if resp3 else b"*"
    return b"".join(
        [
            b"*10\r\n$%d\r\n%s\r\n:%d\r\n" % (len(name), name, command.arity),
            b"%s%d\r\n" % (kind, len(flags)),
            *flags,
            *(b":%d\r\n" % number for number in numbers),
            (kind + b"0\r\n") * 4,
        ]
    )


def _begins(texts: list[bytes]) -> Any:
    """Return the offsets of texts that are joined, and the end of the last one."""
    return np.cumsum([0, *map(len, texts)], dtype=np.int64)


#: For each command: the first 8 and the next 8 characters of its name as numbers, the name's
#: length, the arity. NumPy's types, because kernels use them as constants.
NAMES = np.array([packed(command.name[:8]) for command in COMMANDS], dtype=np.uint64)
NAME_ENDS = np.array([packed(command.name[8:]) for command in COMMANDS], dtype=np.uint64)
LENGTHS = np.array([len(command.name) for command in COMMANDS], dtype=np.int64)
ARITIES = np.array([command.arity for command in COMMANDS], dtype=np.int64)
#: All names joined, and the offset of each, then the end of the last one.
_names = [command.name.encode() for command in COMMANDS]
ALL_NAMES, NAME_BEGINS = b"".join(_names), _begins(_names)
#: All descriptions likewise, first in RESP2, then in RESP3.
_descriptions = [_described(command, resp3) for resp3 in (False, True) for command in COMMANDS]
DESCRIPTIONS, BEGINS = b"".join(_descriptions), _begins(_descriptions)
