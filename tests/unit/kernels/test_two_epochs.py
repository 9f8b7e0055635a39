"""Two open epochs: each has its pages as they were at its own cut, whatever is done in between."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import naive
from colobench.kernels.copy_on_write import EPOCHS, FROZEN
from colobench.memory.frozen import FrozenPages
from colobench.memory.ram import PAGE_SIZE, RAM, PageMemory, lay_out
from freezing import write
from share import amount

WORDS = 4
PAGES = 64 * WORDS
#: Few pages, so that each is often in both epochs: at the ends of words, and in between.
SOME_PAGES = st.sets(st.sampled_from([0, 1, 63, 64, 100, 127, 128, 190, 191, 192, 255]))
RACES = amount(300, 20_000)


def bitmap_of(pages) -> np.ndarray:
    return np.array(naive.bitmap_of(set(pages), WORDS), dtype=np.uint64)


@dataclass
class Epoch:
    """An open epoch of the naive twin: the value of each page at its cut, which all bytes have."""

    slot: int
    values: dict[int, int]
    #: Words of the bitmap whose pages were copied.
    copied: int = 0
    aside: set[int] = field(default_factory=set)

    def waiting(self) -> set[int]:
        """Give the pages that the epoch has not yet."""
        return {page for page in self.values if page >= 64 * self.copied} - self.aside


class TwoEpochs(RuleBasedStateMachine):
    """Stores, cuts, copies and commits in any order, beside a twin that copies all at once."""

    def __init__(self) -> None:
        super().__init__()
        self.ram = RAM("two-epochs", lay_out({"two-epochs": PAGES * PAGE_SIZE}))
        self.frozen = FrozenPages(self.ram)
        self.copies = PageMemory("two-epochs-copies", self.ram.blocks)
        self.values = dict.fromkeys(range(PAGES), 0)
        self.open: list[Epoch] = []
        self.cuts = 0

    def teardown(self) -> None:
        self.ram.close()
        self.copies.close()

    @rule(pages=SOME_PAGES, value=st.integers(1, 2**64 - 1))
    def store(self, pages, value) -> None:
        write(self.ram, self.frozen, sorted(pages), value)
        self.values |= dict.fromkeys(pages, value)
        for epoch in self.open:
            epoch.aside |= epoch.waiting() & pages

    @precondition(lambda self: len(self.open) < EPOCHS)
    @rule(pages=SOME_PAGES)
    def cut(self, pages) -> None:
        slot = self.cuts % EPOCHS
        self.cuts += 1
        self.frozen.freeze(bitmap_of(pages), slot)
        self.open.append(Epoch(slot, {page: self.values[page] for page in pages}))

    @precondition(lambda self: self.open)
    @rule(newest=st.booleans(), words=st.integers(1, WORDS))
    def copy_a_part(self, newest, words) -> None:
        epoch = self.open[-1 if newest else 0]
        begin, end = epoch.copied, min(WORDS, epoch.copied + words)
        part = {page for page in epoch.values if 64 * begin <= page < 64 * end}
        wanted = bitmap_of(epoch.values)
        assert self.frozen.copy(self.copies, wanted, begin, end, epoch.slot) == len(part)
        self.frozen.thaw(epoch.slot, begin, end)
        epoch.copied = end
        copied = self.copies.array.view(np.uint64).reshape(PAGES, -1)
        for page in part:
            assert (copied[page] == np.uint64(epoch.values[page])).all()

    @precondition(lambda self: self.open and self.open[0].copied == WORDS)
    @rule()
    def commit(self) -> None:
        self.open.pop(0)

    @invariant()
    def a_page_is_copied_aside_once_for_each_epoch_that_needs_it(self) -> None:
        assert all(self.frozen.copies(each.slot) == len(each.aside) for each in self.open)

    @invariant()
    def the_guest_looks_where_an_epoch_needs_the_page_and_nowhere_else(self) -> None:
        waiting = set[int]().union(*(each.waiting() for each in self.open))
        found = self.frozen.marks[FROZEN : FROZEN + WORDS]
        assert naive.pages_of(found) == sorted(waiting)


TwoEpochs.TestCase.settings = settings(
    deadline=None, max_examples=amount(60, 2000), stateful_step_count=30
)
test_each_epoch_has_its_pages_as_they_were_at_its_cut = TwoEpochs.TestCase


def test_no_page_of_either_epoch_is_wrong_while_the_guest_writes_and_both_are_copied() -> None:
    ram = RAM("race", lay_out({"race": PAGES * PAGE_SIZE}))
    frozen, every = FrozenPages(ram), bitmap_of(range(PAGES))
    outs = [PageMemory(f"race-{slot}", ram.blocks) for slot in range(EPOCHS)]
    begin, end = threading.Barrier(2), threading.Barrier(2)
    order = np.random.default_rng(1).permutation(PAGES)

    def guest() -> None:
        for race in range(RACES):
            begin.wait()
            write(ram, frozen, order, 3 * race + 3)
            end.wait()

    thread = threading.Thread(target=guest)
    thread.start()
    try:
        for race in range(RACES):
            # Both need all pages, and the first is copied in part when the guest is cut again.
            values = (3 * race + 1, 3 * race + 2)
            write(ram, frozen, order, values[0])
            frozen.freeze(every, 0)
            write(ram, frozen, order[: PAGES // 2], values[1])
            frozen.freeze(every, 1)
            begin.wait()
            for word in range(WORDS):
                for slot in (0, 1):
                    frozen.copy(outs[slot], every, word, word + 1, slot)
                    frozen.thaw(slot, word, word + 1)
            end.wait()
            first, second = (out.array.view(np.uint64).reshape(PAGES, -1) for out in outs)
            assert (first == values[0]).all()
            assert (second[order[: PAGES // 2]] == values[1]).all()
            assert (second[order[PAGES // 2 :]] == values[0]).all()
    finally:
        begin.abort()
        end.abort()
        thread.join()
        for each in (ram, *outs):
            each.close()
