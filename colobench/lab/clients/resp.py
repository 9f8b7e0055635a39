"""The client side of Redis's protocol, version 2, without I/O: bytes in, values out.

A simple string comes as `str`, a bulk string as `bytes`, an integer as `int`, an error as
`ErrorReply`, an array as `list`, a null as None; so ``+OK`` and a value ``OK`` are never taken for
one another, which libraries that return plain strings leave open. The format is Redis's:
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from colobench.errors import RemoteError

#: Redis's own limits: of a bulk string, and of the elements of an array.
BULK_BYTES_LIMIT, ARRAY_LIMIT = 512 * 2**20, 2**20
#: A line is an integer, a length, a status or an error; 64 KiB as in Redis's inline limit.
LINE_BYTES_LIMIT = 64 * 2**10
#: Arrays in arrays in arrays …; Redis's own clients stop at 9.
DEPTH_LIMIT = 9


class RESPError(RemoteError):
    """Bytes of a server that are not the protocol."""


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An answer that is an error.

    Attributes
    ----------
    message
        Text, such as ``ERR value is not an integer or out of range``.
    """

    message: str

    @property
    def code(self) -> str:
        """The first word: ``ERR``, ``OOM``, …"""
        return self.message.partition(" ")[0]


#: An answer that is not an array.
Scalar: TypeAlias = str | bytes | int | ErrorReply | None
Reply: TypeAlias = Scalar | list["Reply"]


def encode(*arguments: bytes) -> bytes:
    """Write a request: an array of bulk strings.

    Parameters
    ----------
    arguments
        The command's name and its arguments.
    """
    parts = [b"*%d\r\n" % len(arguments)]
    parts += [b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments]
    return b"".join(parts)


class ReplyParser:
    """Answers, out of bytes that come in pieces."""

    def __init__(self) -> None:
        self._data = bytearray()
        # Arrays that are not complete, outermost first: how many are missing, and what is there.
        self._arrays: list[tuple[int, list[Reply]]] = []
        self._finished: Reply = None

    @property
    def pending(self) -> int:
        """Bytes that are here and belong to an answer that is not."""
        return len(self._data)

    def feed(self, data: bytes) -> list[Reply]:
        """Take bytes, and give the answers that are complete by now, in order.

        Raises
        ------
        RESPError
            If the bytes are no answer. Nothing that follows can be understood.
        """
        self._data += data
        replies: list[Reply] = []
        at = 0
        while (scanned := self._scalar(at)) is not None:
            value, at = scanned
            if self._collect(value):
                replies.append(self._finished)
        del self._data[:at]
        return replies

    def _collect(self, value: Reply | _Array) -> bool:
        """Put a value where it belongs, and say whether it completed an answer."""
        if isinstance(value, _Array):
            if value.length:
                if len(self._arrays) == DEPTH_LIMIT:
                    raise RESPError(f"answer: expected at most {DEPTH_LIMIT} nested arrays")
                self._arrays.append((value.length, []))
                return False
            value = []
        while self._arrays:
            length, elements = self._arrays[-1]
            elements.append(value)
            if len(elements) < length:
                return False
            self._arrays.pop()
            value = elements
        self._finished = value
        return True

    def _scalar(self, at: int) -> tuple[Reply | _Array, int] | None:
        """Read one value, or the head of an array, and say where it ends; None if it is torn."""
        data = self._data
        end = data.find(b"\r\n", at, at + LINE_BYTES_LIMIT)
        if end < 0:
            if len(data) - at >= LINE_BYTES_LIMIT:
                raise RESPError(f"answer: expected a line's end within {LINE_BYTES_LIMIT} bytes")
            self._check_kind(at)
            return None
        kind, line, after = data[at : at + 1], bytes(data[at + 1 : end]), end + 2
        if kind == b"+":
            return line.decode("latin-1"), after
        if kind == b"-":
            return ErrorReply(line.decode("latin-1")), after
        if kind == b":":
            return _integer(line), after
        if kind == b"$":
            return self._bulk(_integer(line), after)
        self._check_kind(at)
        length = _integer(line)
        if not -1 <= length <= ARRAY_LIMIT:
            raise RESPError(f"array: expected a length of -1 to {ARRAY_LIMIT}, found {length}")
        return (None if length < 0 else _Array(length)), after

    def _bulk(self, length: int, at: int) -> tuple[bytes | None, int] | None:
        if not -1 <= length <= BULK_BYTES_LIMIT:
            raise RESPError(
                f"bulk string: expected a length of -1 to {BULK_BYTES_LIMIT}, found {length}"
            )
        if length < 0:
            return None, at
        data, end = self._data, at + length
        if len(data) < end + 2:
            return None
        if data[end : end + 2] != b"\r\n":
            raise RESPError(
                f"bulk string of {length} bytes: expected a line's end behind it, "
                f"found {bytes(data[end : end + 2])!r}"
            )
        return bytes(data[at:end]), end + 2

    def _check_kind(self, at: int) -> None:
        kind = bytes(self._data[at : at + 1])
        if kind and kind not in b"+-:$*":
            raise RESPError(f"answer: expected one of + - : $ *, found {kind!r}")


@dataclass(frozen=True, slots=True)
class _Array:
    """The head of an array."""

    length: int


def _integer(line: bytes) -> int:
    digits = line[1:] if line[:1] in (b"-", b"+") else line
    if not digits.isdigit() or len(digits) > 20:
        raise RESPError(f"answer: expected an integer, found {line[:40]!r}")
    return int(line)
