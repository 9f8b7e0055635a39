"""The program replay: it writes a trace's pages, and trusts nothing in the table in its RAM."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from colobench.errors import LocalError
from colobench.guest.numba.machine import Machine
from colobench.guest.programs import Program
from colobench.guest.replay_table import WORDS_PER_PAGE, encode_table
from colobench.guest.settings import GuestSettings
from colobench.memory.dirty_curve import dirty_at
from colobench.memory.ram import PAGE_SIZE
from colobench.memory.trace import Trace
from colobench.memory.trace_file import file_digest
from traces import Writes, drawn_writes, trace_file, trace_of

PAGES = 64
WRITES = [[1, 2, 3], [], [2, 9], [500], [1, 2, 3, 4, 5, 6, 7]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def usual(place: Path) -> Path:
    return trace_file(place / "usual.npz", WRITES)


def guest(path: Path, seed: int = 1, pages: int = PAGES, working_set: int = 0) -> Machine:
    return Machine(
        GuestSettings(
            pages * PAGE_SIZE, Program.REPLAY, seed, working_set=working_set, trace=str(path)
        )
    )


def numbered(writes: Writes) -> list[int]:
    """Give the page writes in order, with pages numbered without gaps."""
    used = sorted({page for each in writes for page in each})
    return [used.index(page) for each in writes for page in each]


@given(
    drawn_writes().filter(any),
    st.integers(0, 2**64 - 1),
    st.integers(0, 40),
    st.sampled_from([0, 3]),
    st.integers(1, 40) | st.just(512),
    st.floats(0, 1),
)
def test_replay_writes_what_its_naive_twin_writes(
    place: Path,
    writes: Writes,
    seed: int,
    work: int,
    working_set: int,
    changed: int,
    ratio: float,
) -> None:
    path = trace_file(place / "twin.npz", writes, changed_words=changed, zlib_ratio=ratio)
    table_pages = len(encode_table(trace_of(writes), PAGES, 0)) // WORDS_PER_PAGE
    with contextlib.closing(guest(path, seed, working_set=working_set)) as machine:
        block = machine.block("pc.ram")
        ram = bytearray(machine.ram.block_bytes(block))
        assert not any(ram[: (PAGES - table_pages) * PAGE_SIZE])
        machine.run_until(work)
        pages, share = numbered(writes), round(1024 * ratio)
        target = working_set or PAGES - table_pages
        for step in range(work):
            naive.replay_step(pages, target, changed, share, seed, step, ram)
        assert machine.ram.block_bytes(block).tobytes() == ram


@given(st.lists(st.integers(0, 300), max_size=4))
def test_ram_does_not_depend_on_where_the_guest_was_stopped(usual: Path, stops: list[int]) -> None:
    with contextlib.closing(guest(usual)) as once, contextlib.closing(guest(usual)) as often:
        once.run_until(300)
        for stop in [*sorted(stops), 300]:
            often.run_until(stop)
        assert once.ram_digest() == often.ram_digest()


def test_dirty_pages_of_a_window_of_work_are_those_of_the_trace(place: Path) -> None:
    random = np.random.default_rng(5)
    writes = [
        sorted(set((random.zipf(1.3, 30) % 200).tolist())) if number % 7 else []
        for number in range(600)
    ]
    trace, path = trace_of(writes), trace_file(place / "curve.npz", writes)
    ends = np.cumsum([len(each) for each in writes]).tolist()
    for window in (1, 10, 100, 600):
        counts = []
        with contextlib.closing(guest(path, pages=512)) as machine:
            machine.tracker.arm()
            for end in ends[window - 1 :: window]:
                machine.run_until(end)
                dirty = np.zeros_like(machine.ram.bitmap)
                machine.tracker.collect(dirty)
                counts.append(len([page for page in naive.pages_of(dirty) if page < 512]))
        exact = [
            len({page for each in writes[at : at + window] for page in each})
            for at in range(0, len(writes) - window + 1, window)
        ]
        assert counts == exact
        # These windows do not overlap; those of D(T) do.
        assert np.mean(counts) == pytest.approx(dirty_at(trace, window), rel=0.1)


def test_running_guest_keeps_the_pace_of_its_trace(place: Path) -> None:
    path = trace_file(place / "pace.npz", [[1, 2], [], [3]], interval_ms=2)
    with contextlib.closing(guest(path)) as machine:
        machine.start()
        while machine.timer["ticks"] < 30:
            pass
        machine.stop()
        ticks = machine.timer["ticks"] + machine.timer["coalesced_ticks"]
        # Steps of the last tick, and those of ticks that were missed, may still be due.
        rounds, rest = divmod(max(0, ticks - 1) // 2, 3)
        assert machine.work <= 3 * rounds + [2, 2, 3][rest]
        assert machine.work > 0


@given(st.data())
def test_no_content_of_the_table_leads_out_of_ram(usual: Path, data: st.DataObject) -> None:
    edge = st.sampled_from([0, 1, 2, 62, 63, 64, 511, 512, 2**32, 2**63, 2**64 - 1])
    with contextlib.closing(guest(usual)) as machine:
        words = machine.ram.array.view(np.uint64)
        end = (machine.block("pc.ram").first_page + PAGES) * WORDS_PER_PAGE
        header = end - WORDS_PER_PAGE
        machine.tracker.arm()
        for at in data.draw(st.lists(st.integers(1, 8), max_size=3)):
            words[header + at] = data.draw(edge | st.integers(0, 2**64 - 1))
        for at in data.draw(st.lists(st.integers(header - 512, header - 480), max_size=8)):
            words[at] = data.draw(edge | st.integers(0, 2**64 - 1))
        before = machine.ram.array.copy()
        machine.start()
        while machine.timer["ticks"] < 3 and machine.work < 1000:
            pass
        machine.stop()
        dirty = np.zeros_like(machine.ram.bitmap)
        machine.tracker.collect(dirty)
        changed = (before != machine.ram.array).reshape(-1, PAGE_SIZE).any(axis=1)
        # What was written was marked; the page with the header is no page to write.
        assert set(np.flatnonzero(changed)) <= set(naive.pages_of(dirty))
        assert PAGES - 1 not in naive.pages_of(dirty)


def test_trace_that_does_not_fit_is_refused(place: Path) -> None:
    path = trace_file(place / "large.npz", [[page] for page in range(0, 20000, 2)])
    with pytest.raises(LocalError, match=r"ram: expected at least 0\.\d MiB for this trace"):
        guest(path, pages=32)
    with pytest.raises(LocalError, match="expected one with page writes"):
        guest(trace_file(place / "empty.npz", [[]]))


def test_a_run_of_very_many_pages_takes_no_memory_for_each(place: Path) -> None:
    """A file of a kilobyte may have one, and its reader is a node."""
    pages = 90_000_000
    numbers = [np.array([each], dtype=np.uint32) for each in (1, 1, 1, 7, pages)]
    sheet = {"interval_ms": 1, "page_size": PAGE_SIZE, "mappings": [{"pages": 7 + pages}]}
    trace = Trace(sheet, *numbers)
    tracemalloc.start()
    try:
        table = encode_table(trace, PAGES, 0)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert table[0] == pages
    assert table[1] == pages << 32


@pytest.mark.parametrize("value", [10**400, True, "7", None, [1]], ids=["huge", *"abcd"])
def test_whatever_a_sheet_says_of_contents_a_table_is_made(value: object) -> None:
    encode_table(trace_of(WRITES, changed_words=value, zlib_ratio=value), PAGES, 0)


def test_settings_name_a_trace_if_and_only_if_the_program_takes_one(place: Path) -> None:
    path = str(trace_file(place / "named.npz", WRITES))
    with pytest.raises(LocalError, match="expected a file for the program replay"):
        GuestSettings(program=Program.REPLAY)
    with pytest.raises(LocalError, match="expected none for the program uniform"):
        GuestSettings(trace=path)
    with pytest.raises(LocalError, match="cannot be read"):
        guest(Path(f"{path}.not"))
    with pytest.raises(LocalError, match="64 hexadecimal digits"):
        GuestSettings(program=Program.REPLAY, trace=path, trace_sha256="12")


def test_file_that_has_changed_since_the_settings_is_refused(place: Path) -> None:
    path = trace_file(place / "changed.npz", WRITES)
    chosen = GuestSettings(
        PAGES * PAGE_SIZE, Program.REPLAY, trace=str(path), trace_sha256=file_digest(path)
    )
    trace_file(path, [[1]])
    with pytest.raises(LocalError, match="expected a file with SHA-256"):
        Machine(chosen)
