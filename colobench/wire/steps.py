"""Types of parsers, which are generators: see `colobench.wire.reading`.

Whoever only reads a stream imports no numpy by them, so that it starts quickly and stays small.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from colobench.wire.reading import PageRun, PageSync

T = TypeVar("T")

#: Limit of the bytes that a parser asks for at once.
REQUEST_LIMIT: Final = 65536


class LookAhead(NamedTuple):
    """Request for bytes that stay to be read.

    The answer is an `Ahead` with `size` bytes; where a driver has the whole stream, with all that
    are left if there are fewer.
    """

    size: int


class Arrived(NamedTuple):
    """Request for all bytes that have arrived, `size` of them at least, which stay to be read.

    The answer is an `Ahead`. So a parser goes on as soon as it can, on a connection whose peer may
    be silent behind the last byte that it has to send.
    """

    size: int


class Ahead(NamedTuple):
    """Bytes that follow; `final` is True if none follow behind them."""

    data: bytes
    final: bool


Request: TypeAlias = "int | PageRun | PageSync | LookAhead | Arrived"
Parser: TypeAlias = Generator["Request", Any, T]
#: A parser of these requests, or of those of `colobench.wire.lookahead`.
Steps: TypeAlias = Generator[Any, Any, T]


def sized_bytes(size: int) -> Parser[bytearray]:
    """Read `size` bytes as they are; memory is allocated only as they arrive."""
    data = bytearray()
    while len(data) < size:
        data += yield min(size - len(data), REQUEST_LIMIT)
    return data
