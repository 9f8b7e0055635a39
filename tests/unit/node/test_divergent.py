"""The encoding divergent between two memories: what is not sent is there, and nothing too soon."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.memory.ram import PAGE_SIZE, PageMemory, lay_out
from colobench.node.breakpoints import Breakpoints
from colobench.node.channel import Channel
from colobench.node.flush import flush
from colobench.node.migration.divergent import ComparedPages, PageComparison
from colobench.node.workers import Workers
from colobench.protocol.colo import Role
from colobench.settings.checkpoint import Capture, Layout
from colobench.settings.transport import Encoding
from colobench.wire.errors import RAMError
from colobench.wire.messages import Message, message
from colobench.wire.page_hashes import ListedPages, encode_hashes, encode_listed_pages
from share import amount

BLOCKS = lay_out({"pc.ram": 200 * PAGE_SIZE, "vga": 3 * PAGE_SIZE})
PAGES = [block.first_page + i for block in BLOCKS for i in range(block.pages)]
#: What either guest writes to a page: nothing, or a number.
writes = st.dictionaries(st.sampled_from(PAGES), st.sampled_from([0, 1, 2]), max_size=40)


class Sides:
    """RAM of the primary; RAM and RAM cache of the secondary; a connection between them."""

    def __init__(self, closing_later: ExitStack) -> None:
        def memory(name: str) -> PageMemory:
            made = PageMemory(name, BLOCKS)
            closing_later.callback(made.close)
            return made

        self.primary, self.ram, self.cache = map(memory, ("primary", "ram", "cache"))
        workers = Workers(2)
        closing_later.callback(workers.close)
        near, far = (Channel(end, 10.0) for end in socket.socketpair())
        self.near, self.far = closing_later.enter_context(closing(near)), far
        closing_later.enter_context(closing(far))
        form = (Layout.SEPARATED, Capture.STOP_AND_SEND, Encoding.DIVERGENT)
        self.breakpoints = Breakpoints(Role.SECONDARY, *form, lambda point: None)
        before = Breakpoints(Role.PRIMARY, *form, lambda point: None)
        self.comparison = PageComparison(near, self.primary, workers, before)
        self.compared = ComparedPages(self.ram, self.cache, workers)
        self.workers = workers

    def answer(self) -> None:
        """Answer to PAGE_HASHES as a secondary does."""
        assert self.far.parse(message(self.far.buffer)) == (Message.PAGE_HASHES, None)
        self.compared.answer(self.far, self.breakpoints)

    def compare(self, pages: list[int]) -> list[int]:
        """Compare pages, and give those that differ."""
        answering = threading.Thread(target=self.answer)
        answering.start()
        self.comparison.send_hashes(np.array(pages, dtype=np.int32))
        answer = self.near.parse(message(self.near.buffer))
        found = self.comparison.divergent().tolist()
        answering.join()
        assert answer == (Message.DIVERGENT_PAGES, None)
        return found


@contextmanager
def sides() -> Iterator[Sides]:
    with ExitStack() as closing_later:
        yield Sides(closing_later)


def write(memory: PageMemory, written: dict[int, int]) -> None:
    for page, value in written.items():
        memory.array[page * PAGE_SIZE + 8 * page % PAGE_SIZE] = value


def mark(memory: PageMemory, pages: dict[int, int]) -> None:
    for page in pages:
        memory.bitmap[page // 64] |= np.uint64(1 << page % 64)


def page(memory: PageMemory, number: int) -> np.ndarray:
    return memory.array[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]


@settings(deadline=None, max_examples=amount(30, 300))
@given(st.lists(st.tuples(writes, writes), max_size=5))
def test_all_three_memories_are_the_same_after_each_checkpoint(
    history: list[tuple[dict[int, int], dict[int, int]]],
) -> None:
    with sides() as pair:
        for by_primary, by_secondary in history:
            write(pair.primary, by_primary)
            write(pair.ram, by_secondary)
            ram, cache = pair.ram.array.copy(), pair.cache.array.copy()
            differing = pair.compare(sorted(by_primary))
            assert differing == [
                each
                for each in sorted(by_primary)
                if (page(pair.primary, each) != page(pair.ram, each)).any()
            ]
            # A primary that dies now has changed nothing.
            assert (pair.ram.array == ram).all()
            assert (pair.cache.array == cache).all()
            assert not pair.cache.bitmap.any()
            for each in differing:
                page(pair.cache, each)[:] = page(pair.primary, each)
            mark(pair.cache, dict.fromkeys(differing, 0) | by_secondary)
            pair.compared.enter_cache()
            flush(pair.ram, pair.cache, pair.workers)
            assert (pair.ram.array == pair.primary.array).all()
            assert (pair.cache.array == pair.primary.array).all()


def test_counts_and_bytes_are_those_of_the_last_checkpoint() -> None:
    with sides() as pair:
        write(pair.primary, {0: 1, 5: 2, 9: 3})
        write(pair.ram, {0: 1, 5: 2})
        assert pair.compare([0, 5, 9]) == [9]
        assert pair.near.sent == 16 + 3 * 20
        saved = 2 * 4104 - pair.near.sent
        expected = {"compared-pages": 3, "equal-pages": 2, "bytes-saved": saved}
        assert pair.comparison.statistics() == expected
        assert pair.compare([]) == []
        assert pair.comparison.statistics() | {"bytes-saved": 0} == {
            "compared-pages": 0,
            "equal-pages": 0,
            "bytes-saved": 0,
        }


def test_many_pages_are_hashed_by_several_threads_as_by_one() -> None:
    blocks = lay_out({"pc.ram": 4200 * PAGE_SIZE})
    from colobench.node.migration.divergent import hash_pages

    with closing(PageMemory("many", blocks)) as memory:
        memory.array[::PAGE_SIZE] = np.arange(memory.pages).astype(np.uint8)
        listed = ListedPages(np.arange(4199, dtype=np.int32), 7)
        found = []
        for threads in (1, 2):
            workers = Workers(threads)
            found.append(hash_pages(memory, listed, workers).tolist())
            workers.close()
        assert found[0] == found[1]


@pytest.mark.parametrize("seed", [-(2**63), -1, 2**63 - 1])
def test_any_seed_of_a_peer_is_a_seed(seed: int) -> None:
    with sides() as pair:
        listed = ListedPages(np.array([3], dtype=np.int32), seed)
        pair.near.write(encode_listed_pages(listed) + encode_hashes(np.zeros(2, dtype=np.uint64)))
        pair.near.flush()
        pair.answer()
        assert pair.near.parse(message(pair.near.buffer)) == (Message.DIVERGENT_PAGES, None)


def test_a_page_beyond_ram_is_the_peers_fault_and_touches_nothing() -> None:
    with sides() as pair:
        listed = ListedPages(np.array([3, pair.ram.pages], dtype=np.int32), 0)
        pair.near.write(encode_listed_pages(listed))
        pair.near.flush()
        with pytest.raises(RAMError, match="page with a hash"):
            pair.answer()
