"""RAM of a KVM guest as it follows from its settings and the steps done, without KVM."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from colobench.guest.kvm.boot import (
    GOLDEN,
    MIX_1,
    MIX_2,
    STEPS_PER_PIXEL,
    VALUE,
    WORDS_AT,
    WORK,
    alias_table,
    data_pages,
    initial_ram,
)
from colobench.guest.programs import Program
from colobench.guest.settings import PAGE_SIZE, SCREEN_BYTES, GuestSettings
from colobench.kernels.digest import digest
from colobench.memory.ram import RAM, lay_out

U32 = npt.NDArray[np.uint32]
_WORDS_PER_PAGE = PAGE_SIZE // 4
#: Steps whose writes are made at once.
_BATCH = 1 << 20


def random_bits(seed: int, steps: npt.NDArray[np.uint64]) -> U32:
    """Return the 32 random bits of each step: MurmurHash3's finalizer of the number and the seed.

    Only the low 32 bits of a step's number count.
    """
    bits = steps.astype(np.uint32) * np.uint32(GOLDEN) + np.uint32(seed & 0xFFFFFFFF)
    for shift, multiplier in ((16, MIX_1), (13, MIX_2), (16, 1)):
        bits ^= bits >> np.uint32(shift)
        bits *= np.uint32(multiplier)
    bits += np.uint32(seed >> 32)
    return bits


def written_words(settings: GuestSettings, steps: npt.NDArray[np.uint64]) -> tuple[U32, U32]:
    """Return the words of pc.ram, of 32 bits, that steps write: their numbers and their values."""
    bits = random_bits(settings.seed, steps)
    first, pages = data_pages(settings)
    product = bits.astype(np.uint64) * np.uint64(pages)
    page = (product >> np.uint64(32)).astype(np.uint32)
    if settings.program is Program.KVM_SEQUENTIAL:
        page = steps.astype(np.uint32) % np.uint32(pages)
    elif settings.program is Program.KVM_HOTCOLD:
        kept, alias = alias_table(pages)[page].T
        page = np.where(product.astype(np.uint32) < kept, page, alias)
    values = bits * np.uint32(VALUE)
    words = (page + np.uint32(first)) * np.uint32(_WORDS_PER_PAGE)
    words += ((values >> np.uint32(20)) & np.uint32(0xFFC)) // np.uint32(4)
    return words, values


def written_pixels(steps: npt.NDArray[np.uint64]) -> U32:
    """Return the bytes of the screen that steps increment; fewer than there are steps."""
    numbers = steps.astype(np.uint32)
    drawing = numbers[numbers % np.uint32(STEPS_PER_PIXEL) == 0]
    pixels: U32 = drawing // np.uint32(STEPS_PER_PIXEL) % np.uint32(SCREEN_BYTES)
    return pixels


def expected_digests(settings: GuestSettings, work: int) -> Iterator[int]:
    """Give the digests of all RAM that a guest with this number of steps done may have.

    A guest that was stopped within its next step has done some of its writes, but not counted it.
    """
    ram = RAM("colobench-expected", lay_out(settings.block_sizes()))
    try:
        memory, screen = map(ram.block_bytes, ram.blocks[:2])
        for address, data in initial_ram(settings).items():
            memory[address : address + len(data)] = np.frombuffer(data, np.uint8)
        words = memory.view(np.uint32)
        memory[WORDS_AT + WORK :][:8].view(np.uint64)[0] = work
        writes = settings.program is not Program.KVM_BOOT
        for begin in range(0, work if writes else 0, _BATCH):
            steps = np.arange(begin, min(begin + _BATCH, work), dtype=np.uint64)
            at, values = written_words(settings, steps)
            # Of several writes to one word, the last one counts.
            last, places = np.unique(at[::-1], return_index=True)
            words[last] = values[::-1][places]
            np.add.at(screen, written_pixels(steps), np.uint8(1))
        yield int(digest(ram.array, 0))
        if writes:
            step = np.array([work], dtype=np.uint64)
            at, values = written_words(settings, step)
            words[at] = values
            yield int(digest(ram.array, 0))
            np.add.at(screen, written_pixels(step), np.uint8(1))
            yield int(digest(ram.array, 0))
    finally:
        words = memory = screen = None  # type: ignore[assignment]
        ram.close()
