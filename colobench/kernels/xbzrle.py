"""XBZRLE, QEMU's delta encoding of pages: the positions and the new values of changed bytes.

An encoding consists of pairs of runs, ``zrun nzrun zrun nzrun ...``. A zrun is the length of a run
of unchanged bytes. An nzrun is the length of a run of changed bytes, then these bytes. Lengths are
ULEB128 of one or two bytes. Only the first zrun may be 0, and a last run of unchanged bytes is left
out. Source of the format: QEMU's ``docs/devel/migration/xbzrle.rst`` and the output of its generic
encoder, byte by byte.

An encoding fits into `limit` bytes if it is no longer than that. If the page's last byte is
unchanged, two more bytes must be free, even if the whole page is unchanged: QEMU requires room for
the longest length before it looks for a run, when it does not know yet whether there is one. A page
whose encoding does not fit is sent whole.

Comparing 64 bytes at once gives a word with a bit for each changed byte. Runs begin at the bits
that differ from the bit before them, so the cost is per run and not per byte.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from colobench.kernels.atomics import address
from colobench.kernels.jit import Bytes, Pages, inlined, instruction, kernel
from colobench.kernels.pages import PAGE_SIZE
from colobench.kernels.raw import copy, count_ones, pointer, trailing_zeros

#: Bytes of room that `out` needs beyond the limit: a block adds them before the limit is checked.
SLACK = 192
#: Result of the encoders if the encoding does not fit, and of `decode` for a wrong encoding.
OVERFLOW = MALFORMED = -1

_BLOCK = 64
_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
_LINE = ir.VectorType(_BYTE, _BLOCK)
_ZERO, _ONE, _LAST = np.uint64(0), np.uint64(1), np.uint64(63)


@instruction(lambda *_: types.uint64(types.int64, types.int64))
def _changes(builder: Any, old: Any, new: Any) -> Any:
    """Compare 64 bytes; bit i of the word is set if byte i differs."""
    lines = [builder.load(pointer(builder, place, _LINE), align=1) for place in (old, new)]
    return builder.bitcast(builder.icmp_unsigned("!=", *lines), _WORD)


@instruction(lambda *_: types.void(types.int64, types.int64))
def _copy_line(builder: Any, to: Any, source: Any) -> None:
    """Copy 64 bytes, all read before any is written."""
    line = builder.load(pointer(builder, source, _LINE), align=1)
    builder.store(line, pointer(builder, to, _LINE), align=1)


@instruction(lambda _: types.int64(types.int64))
def _load_byte(builder: Any, place: Any) -> Any:
    """Read a byte."""
    return builder.zext(builder.load(pointer(builder, place, _BYTE)), _WORD)


@instruction(lambda *_: types.void(types.int64, types.int64))
def _store_byte(builder: Any, to: Any, value: Any) -> None:
    """Write the lower 8 bits."""
    builder.store(builder.trunc(value, _BYTE), pointer(builder, to, _BYTE))


@inlined
def _put_length(to: int, length: int) -> int:
    """Write a length in one or two bytes, without a branch; return the address after it."""
    long = int(length > 127)
    _store_byte(to, (length & 127) | (long << 7))
    _store_byte(to + 1, length >> 7)
    return to + 1 + long


@inlined
def _put_run(to: int, source: int, length: int, end: int) -> int:
    """Write an nzrun, and up to 63 bytes after it; nothing from `end` on is read."""
    to = _put_length(to, length)
    if source + length + _BLOCK > end:
        copy(to, source, length)
    else:
        for offset in range(0, length, _BLOCK):
            _copy_line(to + offset, source + offset)
    return to + length


@inlined
def _put_short_run(to: int, source: int, length: int, end: int) -> int:
    """Write an nzrun of less than 64 bytes like `_put_run`."""
    _store_byte(to, length)
    if source + _BLOCK > end:
        copy(to + 1, source, length)
    else:
        _copy_line(to + 1, source)
    return to + 1 + length


@inlined
def encode_page(old: int, new: int, out: int, limit: int) -> int:
    """Encode the page at an address; see `encode`."""
    to = out
    end = new + PAGE_SIZE
    # Beginning of the open run, and whether its bytes are changed.
    run = new
    carry = _ZERO
    for at in range(new, end, _BLOCK):
        changes = _changes(at - new + old, at)
        edges = changes ^ ((changes << _ONE) | carry)
        if edges == _ZERO:
            continue
        if carry != _ZERO:
            edge = at + trailing_zeros(edges)
            edges &= edges - _ONE
            if to - out + edge - run > limit:
                return OVERFLOW
            to = _put_run(to, run, edge - run, end)
            run = edge
        carry = changes >> _LAST
        pairs = count_ones(edges) >> 1
        while pairs > 0:
            # Two runs at once; the second is undone if there is none. A CPU cannot predict their
            # number, and a misprediction takes longer than a pair.
            for pair in range(2):
                begin = at + trailing_zeros(edges)
                rest = edges & (edges - _ONE)
                stop = at + trailing_zeros(rest)
                behind = _put_short_run(_put_length(to, begin - run), begin, stop - begin, end)
                if pair < pairs:
                    to, run, edges = behind, stop, rest & (rest - _ONE)
            pairs -= 2
        if edges != _ZERO:
            edge = at + trailing_zeros(edges)
            to = _put_length(to, edge - run)
            run = edge
        if to - out > limit:
            return OVERFLOW
    length = to - out
    if carry != _ZERO:
        if length + end - run > limit:
            return OVERFLOW
        length = _put_run(to, run, end - run, end) - out
    else:
        limit -= 2
    return length if length <= limit else OVERFLOW


@kernel("i8(u1[::1], i8, u1[::1], i8, u1[::1], i8)")
def encode(old: Bytes, begin_old: int, new: Bytes, begin_new: int, out: Bytes, limit: int) -> int:
    """Encode the changed bytes of a page.

    Parameters
    ----------
    old, begin_old
        uint8; ``old[begin_old:begin_old + 4096]`` is the page as the receiver has it.
    new, begin_new
        uint8; ``new[begin_new:begin_new + 4096]`` is the present page, which must not change
        meanwhile.
    out
        uint8, room for ``limit + SLACK`` bytes; bytes after the encoding are overwritten. It
        overlaps neither page.
    limit
        Limit of the encoding, bytes; in QEMU one page.

    Returns
    -------
    int
        Bytes of the encoding, 0 if the page is unchanged, or OVERFLOW.
    """
    return encode_page(address(old) + begin_old, address(new) + begin_new, address(out), limit)


@kernel("i8(u1[::1], u1[::1], i4[::1], i8, u1[::1], i4[::1])")
def encode_pages(
    old: Bytes, new: Bytes, pages: Pages, count: int, out: Bytes, lengths: Pages
) -> int:
    """Encode the changed bytes of many pages, one encoding after another.

    Parameters
    ----------
    old, new
        uint8, whole pages of 4096 bytes: as the receiver has them, and as they are now.
    pages
        int32; the first `count` are the pages to encode.
    count
        Number of pages.
    out
        uint8, room for ``4096 * count + SLACK`` bytes.
    lengths
        int32[count], set for each page to the result of `encode` with a limit of 4096.

    Returns
    -------
    int
        Bytes of all encodings together.
    """
    to = address(out)
    for i in range(count):
        begin = pages[i] * PAGE_SIZE
        length = encode_page(address(old) + begin, address(new) + begin, to, PAGE_SIZE)
        lengths[i] = length
        if length != OVERFLOW:
            to += length
    total: int = to - address(out)
    return total


def _ends(width: int) -> Any:
    """Make the instruction that copies `width` to ``2 * width`` bytes by copying both ends."""

    @instruction(lambda *_: types.void(types.int64, types.int64, types.int64))
    def copy_ends(builder: Any, to: Any, source: Any, length: Any) -> None:
        """Copy bytes between places that do not overlap."""
        part = ir.VectorType(_BYTE, width)
        behind = builder.sub(length, _WORD(width))
        places = [(source, to), (builder.add(source, behind), builder.add(to, behind))]
        parts = [builder.load(pointer(builder, place, part), align=1) for place, _ in places]
        for value, (_, place) in zip(parts, places, strict=True):
            builder.store(value, pointer(builder, place, part), align=1)

    return copy_ends


_copy_ends_4, _copy_ends_8, _copy_ends_16, _copy_ends_32 = (_ends(4 << i) for i in range(4))


@inlined
def _copy_exactly(to: int, source: int, length: int) -> None:
    """Copy at least 1 byte and touch no other; most runs are short and need no call."""
    if length < 4:
        middle, last = length >> 1, length - 1
        _store_byte(to, _load_byte(source))
        _store_byte(to + middle, _load_byte(source + middle))
        _store_byte(to + last, _load_byte(source + last))
    elif length <= 8:
        _copy_ends_4(to, source, length)
    elif length <= 16:
        _copy_ends_8(to, source, length)
    elif length <= 32:
        _copy_ends_16(to, source, length)
    elif length <= 64:
        _copy_ends_32(to, source, length)
    else:
        copy(to, source, length)


@inlined
def _take_length(at: int, stop: int) -> tuple[int, int]:
    """Read a length before `stop`; return the address after it (`at` if there is none), and it."""
    if at < stop:
        length = _load_byte(at)
        if length < 128:
            return at + 1, length
        if at + 1 < stop:
            high = _load_byte(at + 1)
            if high < 128:
                return at + 2, (length & 127) | (high << 7)
    return at, 0


@kernel("i8(u1[::1], i8, u1[::1], i8, i8)")
def decode(memory: Bytes, offset: int, data: Bytes, begin: int, length: int) -> int:
    """Decode an encoding into the page from which it was made.

    Parameters
    ----------
    memory, offset
        uint8; ``memory[offset:offset + 4096]`` is the page. Nothing outside of it is written.
    data, begin, length
        uint8; ``data[begin:begin + length]`` is the encoding. Nothing outside of it is read.

    Returns
    -------
    int
        Number of bytes from the page's first to the last changed one, or MALFORMED: a run reaches
        beyond the page or the data, is 0 where it must not be, or has a length of more than two
        bytes. Earlier runs may have been decoded then.
    """
    first = address(data) + begin
    at, stop = first, first + length
    place = address(memory) + offset
    end = place + PAGE_SIZE
    while at < stop:
        behind, unchanged = _take_length(at, stop)
        if behind == at or (unchanged == 0 and at != first):
            return MALFORMED
        place += unchanged
        at, changed = _take_length(behind, stop)
        if at == behind or changed == 0 or changed > stop - at or changed > end - place:
            return MALFORMED
        _copy_exactly(place, at, changed)
        place += changed
        at += changed
    total: int = place - address(memory) - offset
    return total
