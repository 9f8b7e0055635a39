"""Types of parsers, which are generators: see `colobench.wire.reading`.

They import no numpy, so that a program which only reads a stream starts quickly and stays small.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

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

    The answer is an `Ahead` without the first `skip` bytes, which are not copied. So a parser goes
    on as soon as it can, on a connection whose peer may be silent behind the last byte that it has
    to send.
    """

    size: int
    skip: int = 0


class Ahead(NamedTuple):
    """Bytes that follow; `final` is True if none follow behind them."""

    data: bytes
    final: bool


#: A parser that asks for bytes alone.
BytesParser: TypeAlias = Generator[int, Any, T]
#: A parser of any requests: those of `colobench.wire.reading`, or of `colobench.wire.lookahead`.
Steps: TypeAlias = Generator[Any, Any, T]


def sized_bytes(size: int) -> BytesParser[bytearray]:
    """Read `size` bytes as they are; memory is allocated only as they arrive."""
    data = bytearray()
    while len(data) < size:
        data += yield min(size - len(data), REQUEST_LIMIT)
    return data
