"""Copy-on-write: pages that are frozen are copied aside before a guest writes to them.

A guest that can be frozen marks its pages in a longer array than usual, of which only the parts in
use take memory: uint64[MARKS_WORDS]. Its words are those of the dirty bitmap; from FROZEN on a
bitmap of the same form; then EPOCH_WORDS words for each of the EPOCHS epochs that may be open at
once, see `NEEDED` and what follows it.

The guest looks only at FROZEN, before each store. If the page's bit is set, it copies the page
aside for each open epoch that needs it and has no copy yet.

No thread waits for another. The guest copies a page aside, sets its bit in the epoch's COPIED, and
then writes the page. The host copies the page, and then looks at COPIED: if the bit is set, the
page may have been written meanwhile, and the copy aside replaces the host's own.

While the guest runs, the host only takes bits out of an epoch's NEEDED, and sets FROZEN to what all
epochs need and have not. The guest, which may be changing the same word of FROZEN, can bring bits
back: then it looks once more, and finds nothing to copy. No bit of a page that is needed is lost.
"""

from __future__ import annotations

import numpy as np

from colobench.kernels.atomics import address
from colobench.kernels.jit import Bytes, Integers, Words, kernel
from colobench.kernels.pages import PAGE_SIZE
from colobench.kernels.raw import (
    copy,
    count_ones,
    fence,
    load_number,
    load_word,
    store_number,
    store_word,
    stream,
    trailing_zeros,
)

#: Words of each bitmap: enough for 1 TiB of RAM. A longer array can be frozen.
BITMAP_WORDS = 1 << 22
#: Pages that some epoch needs, and the word with the address of `copy_aside`.
FROZEN, COPY_ASIDE = BITMAP_WORDS, 2 * BITMAP_WORDS
#: Epochs that may be open at once.
EPOCHS = 2
#: Of the first epoch; those of the second follow EPOCH_WORDS later: bitmaps of the pages that it
#: needs, and of those that the guest has copied for it; words with the address of the memory for
#: its copies, which are one after another; the address of a table, int32[pages], with the place of
#: each page's copy there; and the number of copies.
NEEDED, COPIED = 2 * BITMAP_WORDS + 1, 3 * BITMAP_WORDS + 1
COPIES_AT, PLACES_AT, COPIES = range(4 * BITMAP_WORDS + 1, 4 * BITMAP_WORDS + 4)
EPOCH_WORDS = 2 * BITMAP_WORDS + 3
MARKS_WORDS = NEEDED + EPOCHS * EPOCH_WORDS
#: Slots of `copy_frozen`'s counts.
TAKEN_ASIDE, OVERTAKEN = range(2)
COUNT_SLOTS = 2

_ZERO, _ONE = np.uint64(0), np.uint64(1)


@kernel("i8(i8, i8, i8, i8)")
def copy_aside(marks: int, memory: int, at: int, length: int) -> int:
    """Copy the pages of some bytes aside for all epochs that need them, before these are written.

    Parameters
    ----------
    marks
        Address of uint64[MARKS_WORDS], see this module.
    memory
        Address of the pages.
    at, length
        Bytes of `memory` that are about to be written, at least one.

    Returns
    -------
    int
        Number of copies that were made.

    Notes
    -----
    Only the guest's thread may call it. A page is copied once for an epoch. If the host thaws pages
    at the same time, a needless copy may be made.
    """
    copied = 0
    for page in range(at >> 12, ((at + length - 1) >> 12) + 1):
        bit = _ONE << np.uint64(page & 63)
        frozen_at = marks + 8 * (FROZEN + (page >> 6))
        if load_word(frozen_at) & bit == _ZERO:
            continue
        for epoch in range(EPOCHS):
            base = marks + 8 * EPOCH_WORDS * epoch
            needed = load_word(base + 8 * (NEEDED + (page >> 6)))
            copied_at = base + 8 * (COPIED + (page >> 6))
            if needed & bit == _ZERO or load_word(copied_at) & bit != _ZERO:
                continue
            place = np.int64(load_word(base + 8 * COPIES))
            to = np.int64(load_word(base + 8 * COPIES_AT)) + place * PAGE_SIZE
            copy(to, memory + page * PAGE_SIZE, PAGE_SIZE)
            store_number(np.int64(load_word(base + 8 * PLACES_AT)) + 4 * page, np.int32(place))
            store_word(base + 8 * COPIES, np.uint64(place + 1))
            # The copy must be visible before its bit, and the bit before any write to the page.
            fence()
            store_word(copied_at, load_word(copied_at) | bit)
            fence()
            copied += 1
        store_word(frozen_at, load_word(frozen_at) & ~bit)
    return copied


@kernel("i8(u1[::1], u1[::1], u8[::1], u8[::1], i8, i8, i8, i8[::1])")
def copy_frozen(
    out: Bytes,
    memory: Bytes,
    marks: Words,
    pages: Words,
    begin: int,
    end: int,
    epoch: int,
    counts: Integers,
) -> int:
    """Copy pages as they were when they were frozen, while the guest writes.

    Parameters
    ----------
    out, memory
        uint8[bytes], whole pages: the copies, each at its page's place, and the guest's RAM.
    marks
        uint64[MARKS_WORDS], see this module; not changed.
    pages
        uint64[words], the frozen pages; bit i of word w is page 64 w + i. Not changed.
    begin, end
        Range of words of `pages` whose pages are copied. Threads may copy different ranges.
    epoch
        Epoch for which the pages are frozen, below EPOCHS.
    counts
        int64[COUNT_SLOTS]: TAKEN_ASIDE is increased by the number of pages whose copy aside was
        taken; OVERTAKEN by those among them that were copied here at the same time, in vain.

    Returns
    -------
    int
        Number of pages copied.
    """
    to, source = address(out), address(memory)
    base = EPOCH_WORDS * epoch
    aside = np.int64(marks[base + COPIES_AT])
    places = np.int64(marks[base + PLACES_AT])
    count = 0
    for word in range(begin, end):
        wanted = pages[word]
        if wanted == _ZERO:
            continue
        copied_at = address(marks) + 8 * (base + COPIED + word)
        early = load_word(copied_at) & wanted
        bits = wanted & ~early
        while bits != _ZERO:
            at = (64 * word + trailing_zeros(bits)) * PAGE_SIZE
            bits &= bits - _ONE
            stream(to + at, source + at, PAGE_SIZE)
        # All was read before this second look.
        fence()
        bits = load_word(copied_at) & wanted
        late = bits & ~early
        counts[TAKEN_ASIDE] += count_ones(bits)
        counts[OVERTAKEN] += count_ones(late)
        count += count_ones(wanted)
        while bits != _ZERO:
            page = 64 * word + trailing_zeros(bits)
            bits &= bits - _ONE
            place = np.int64(load_number(places + 4 * page))
            copy(to + page * PAGE_SIZE, aside + place * PAGE_SIZE, PAGE_SIZE)
    fence()
    return count
