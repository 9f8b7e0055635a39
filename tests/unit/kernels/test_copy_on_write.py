"""Copy-on-write: a frozen page is copied as it was, whatever the guest writes, and whenever."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from colobench.kernels import copy_on_write as kernels
from colobench.memory.frozen import FrozenPages
from colobench.memory.ram import PAGE_SIZE, RAM, lay_out
from freezing import write
from share import amount

PAGES = 128
WORDS = PAGE_SIZE // 8
#: Epochs of a race, and pages that have to be copied by both sides at the same time in all races.
EPOCHS, OVERTAKEN, MOST_RACES = 300, amount(50, 50_000), 1000
pages_of_ram = st.lists(st.integers(0, PAGES - 1), max_size=40)


@pytest.fixture(scope="module")
def ram():
    ram = RAM("frozen", lay_out({"frozen": PAGES * PAGE_SIZE}))
    yield ram
    ram.close()


@pytest.fixture(scope="module")
def frozen(ram):
    return FrozenPages(ram)


def bitmap_of(pages) -> np.ndarray:
    return np.array(naive.bitmap_of(set(pages), PAGES // 64), dtype=np.uint64)


def copy_between(frozen, ram, out, wanted, begin, end, epoch=0) -> np.ndarray:
    counts = np.zeros(kernels.COUNT_SLOTS, dtype=np.int64)
    kernels.copy_frozen(out, ram.array, frozen.marks, wanted, begin, end, epoch, counts)
    return counts


@given(pages_of_ram, pages_of_ram, pages_of_ram)
def test_copies_are_of_the_moment_of_the_freeze_and_only_frozen_pages_are_copied_aside(
    ram, frozen, chosen, early, late
) -> None:
    ram.array.view(np.uint64)[:] = 1
    wanted = bitmap_of(chosen)
    frozen.freeze(wanted)
    write(ram, frozen, early, 2)
    out = np.zeros_like(ram.array)
    counts = copy_between(frozen, ram, out, wanted, 0, len(wanted))
    write(ram, frozen, late, 3)
    copies = out.view(np.uint64).reshape(PAGES, WORDS)
    assert {page for page in range(PAGES) if copies[page].all()} == set(chosen)
    assert (copies[sorted(set(chosen))] == 1).all()
    assert counts.tolist() == [len(set(chosen) & set(early)), 0]
    aside = len(set(chosen) & set(early + late))
    assert frozen.copies() == aside
    frozen.thaw()
    write(ram, frozen, range(PAGES), 4)
    assert frozen.copies() == aside


def test_bytes_on_two_pages_have_both_copied(ram, frozen) -> None:
    ram.array[:] = 7
    wanted = bitmap_of(range(PAGES))
    frozen.freeze(wanted)
    marks, memory = frozen.marks.ctypes.data, ram.array.ctypes.data
    assert kernels.copy_aside(marks, memory, 5 * PAGE_SIZE - 1, 2) == 2
    assert kernels.copy_aside(marks, memory, 5 * PAGE_SIZE - 1, 1) == 0
    assert kernels.copy_aside(marks, memory, 64 * PAGE_SIZE - 1, PAGE_SIZE + 2) == 3
    ram.array[:] = 8
    out = np.zeros_like(ram.array)
    assert copy_between(frozen, ram, out, wanted, 0, 2).tolist() == [5, 0]
    assert [page for page in range(PAGES) if out[page * PAGE_SIZE] == 7] == [4, 5, 63, 64, 65]
    frozen.thaw()


def race(ram, frozen, epochs: int) -> tuple[int, int]:
    """Let a guest write all pages while two threads copy them; count wrong and overtaken pages."""
    dice = np.random.default_rng(1)
    wanted = bitmap_of(range(PAGES))
    wrong = overtaken = 0
    out = np.zeros_like(ram.array)
    copies = out.view(np.uint64).reshape(PAGES, WORDS)
    begin = threading.Barrier(3)
    found: dict[int, np.ndarray] = {}
    orders = [dice.permutation(PAGES) for _ in range(8)]

    def guest() -> None:
        for epoch in range(epochs):
            begin.wait()
            write(ram, frozen, orders[epoch % 8], epoch + 2)
            begin.wait()

    def host(half: int) -> None:
        for _ in range(epochs):
            begin.wait()
            found[half] = copy_between(frozen, ram, out, wanted, half, half + 1)
            begin.wait()

    def judge(epoch: int) -> None:
        nonlocal wrong, overtaken
        wrong += int((copies != epoch + 1).any(axis=1).sum())
        overtaken += int(found[0][kernels.OVERTAKEN] + found[1][kernels.OVERTAKEN])

    ram.array.view(np.uint64)[:] = 1
    threads = [threading.Thread(target=guest), threading.Thread(target=host, args=(1,))]
    for thread in threads:
        thread.start()
    for epoch in range(epochs):
        frozen.freeze(wanted)
        begin.wait()
        found[0] = copy_between(frozen, ram, out, wanted, 0, 1)
        begin.wait()
        judge(epoch)
    for thread in threads:
        thread.join()
    frozen.thaw()
    return wrong, overtaken


def test_no_page_is_copied_wrong_while_guest_and_host_race_for_it(ram, frozen) -> None:
    overtaken = 0
    for _ in range(MOST_RACES):
        wrong, more = race(ram, frozen, EPOCHS)
        assert wrong == 0
        overtaken += more
        if overtaken >= OVERTAKEN:
            return
    pytest.fail(f"expected {OVERTAKEN} pages that both sides copied at once, found {overtaken}")
