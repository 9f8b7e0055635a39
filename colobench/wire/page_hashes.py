"""Hashes of dirty pages and the answer to them, an extension of ours to COLO's conversation.

Before a checkpoint's pages are sent, the primary tells their hashes, and the secondary answers
which of them its own guest does not have (PLOVER: C. Wang et al., NSDI 2018)::

    be32 PAGE_HASHES      be32 n | be64 seed (signed)      | n page numbers, be32
                          n hashes, 16 bytes each: XXH3_128bits_withSeed in canonical form
    be32 DIVERGENT_PAGES  be32 n | n bits in ceil(n / 8) bytes, the lowest bit of the first byte
                          first: 1 if the page of that place in the list differs

Page numbers count across all RAM blocks and ascend. Nodes with the encoding `divergent` agree on it
in their settings. A real QEMU never sees it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from colobench.wire.errors import RAMError
from colobench.wire.format import BE32
from colobench.wire.messages import (
    HASH_BYTES,
    HASHED_PAGE_BYTES,
    PAGE_HASHES_HEAD,
    Message,
    encode_message,
)
from colobench.wire.reading import Parser, StreamBuffer, sized_bytes

_PAGE_NUMBER: Final = np.dtype(">i4")
_HALF_HASH: Final = np.dtype(">u8")


class ListedPages(NamedTuple):
    """The pages that are compared, int32[n], ascending; and the seed of their hashes."""

    pages: npt.NDArray[np.int32]
    seed: int


def message_bytes(pages: int) -> int:
    """Give the length in bytes of PAGE_HASHES for that many pages."""
    return 4 + PAGE_HASHES_HEAD.size + pages * HASHED_PAGE_BYTES


def encode_listed_pages(listed: ListedPages) -> bytes:
    """Encode PAGE_HASHES up to the page numbers."""
    head = encode_message(Message.PAGE_HASHES) + PAGE_HASHES_HEAD.pack(
        len(listed.pages), listed.seed
    )
    return head + listed.pages.astype(_PAGE_NUMBER).tobytes()


def encode_hashes(hashes: npt.NDArray[np.uint64]) -> bytes:
    """Encode hashes, uint64[2 n], the upper half of each first."""
    return hashes.astype(_HALF_HASH).tobytes()


def encode_divergent_pages(differs: npt.NDArray[np.bool_]) -> bytes:
    """Encode DIVERGENT_PAGES: bool[n], whether the page of that place in the list differs."""
    bits = np.packbits(differs, bitorder="little")
    return encode_message(Message.DIVERGENT_PAGES) + BE32.pack(len(differs)) + bits.tobytes()


def listed_pages(at: StreamBuffer, limit: int) -> Parser[ListedPages]:
    """Parse what follows PAGE_HASHES, up to the page numbers.

    Parameters
    ----------
    at
        The buffer that is parsed.
    limit
        Number of pages of RAM, which all numbers are below.

    Raises
    ------
    RAMError
        If the numbers are no ascending list of such pages.
    """
    offset = at.offset
    count, seed = PAGE_HASHES_HEAD.unpack((yield PAGE_HASHES_HEAD.size))
    if count > limit:
        raise RAMError(
            "number of pages with hashes", expected=f"0 to {limit}", found=count, offset=offset
        )
    offset = at.offset
    data = yield from sized_bytes(count * _PAGE_NUMBER.itemsize)
    pages = np.frombuffer(data, _PAGE_NUMBER).astype(np.int32)
    before = np.concatenate((np.array([-1], np.int32), pages[:-1]))
    wrong = np.flatnonzero((pages <= before) | (pages >= limit)) if count else pages
    if len(wrong):
        first = int(wrong[0])
        raise RAMError(
            "page with a hash",
            expected=f"a number above {before[first]} and below {limit}",
            found=int(pages[first]),
            offset=offset + first * _PAGE_NUMBER.itemsize,
        )
    return ListedPages(pages, seed)


def page_hashes(at: StreamBuffer, count: int) -> Parser[npt.NDArray[np.uint64]]:
    """Parse the hashes of that many pages: uint64[2 count], the upper half of each first."""
    data = yield from sized_bytes(count * HASH_BYTES)
    return np.frombuffer(data, _HALF_HASH).astype(np.uint64)


def divergent_pages(at: StreamBuffer, count: int) -> Parser[npt.NDArray[np.bool_]]:
    """Parse what follows DIVERGENT_PAGES: bool[count], whether each listed page differs.

    Raises
    ------
    RAMError
        If it is the answer to another number of pages, or a bit behind the last page is set.
    """
    offset = at.offset
    (found,) = BE32.unpack((yield BE32.size))
    if found != count:
        raise RAMError("number of compared pages", expected=count, found=found, offset=offset)
    offset = at.offset
    data = yield from sized_bytes(-(-count // 8))
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").astype(np.bool_)
    if bits[count:].any():
        raise RAMError(
            "bits of divergent pages",
            expected=f"none behind the first {count}",
            found=f"{int(bits.sum())} bits, the last is {int(np.flatnonzero(bits)[-1])}",
            offset=offset,
        )
    return bits[:count]
