"""The programs sectors, and the checker of what they wrote: each knows the same writes."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from colobench.block.backend import BlockData, BlockError
from colobench.block.request import RequestKind
from colobench.errors import LocalError
from colobench.guest.numba.machine import Machine
from colobench.guest.programs import Program, sectors
from colobench.guest.sector_table import (
    ACKNOWLEDGED,
    COMPARED,
    DISCARDED,
    ENTRY_BYTES,
    FAILED,
    FLUSHED,
    MISMATCHED,
    RUN_BYTES,
    RUN_SECTORS,
    SECTOR_BYTES,
    SEQUENCE,
    SUBMITTED,
    TABLE_AT,
    WRITTEN,
)
from colobench.guest.settings import GuestSettings
from colobench.kernels.jit import Bytes, Words, kernel
from colobench.lab.checker.sectors import check_sectors
from colobench.node.disk.guest_disks import GuestDisks
from disk_guest import MemoryBackend
from share import amount

SEED = 2**63 + 5
PROGRAMS = [program for program in Program if program.needs_disk]


class SectorsGuest:
    """A guest that writes sectors to disks in memory."""

    def __init__(
        self, program: Program, images: Path, backend: type[MemoryBackend] = MemoryBackend
    ) -> None:
        disks = [f"{images}/disk{number},size={size}" for number, size in ((0, "1M"), (1, "132K"))]
        self.machine = Machine(GuestSettings(1 << 20, program, SEED, 20, disks=disks))
        self.backends = [backend(disk.size) for disk in self.machine.disks]
        self.failures: list[BaseException] = []
        self.host = GuestDisks(self.machine.disks, self.failures.append)
        for number, backend in enumerate(self.backends):
            self.host.set_backend(number, backend)
        self.host.begin()
        self.images = [images / "disk0", images / "disk1"]

    def run_until(self, word: int, value: int) -> None:
        """Run until a word of RAM has a value at least."""
        self.host.start()
        self.machine.start()
        while self.word(word) < value:
            assert not self.failures
        self.machine.stop()
        self.host.stop()
        self.host.drain()

    @property
    def ram(self) -> np.ndarray:
        return self.machine.ram.block_bytes(self.machine.block("pc.ram"))

    def word(self, at: int) -> int:
        return int(self.ram[at : at + 8].view(np.uint64)[0])

    def write_images(self) -> list[Path]:
        for path, backend in zip(self.images, self.backends, strict=True):
            path.write_bytes(backend.contents)
        return self.images

    def close(self) -> None:
        self.host.close()
        self.machine.close()


@pytest.fixture(params=PROGRAMS, ids=lambda program: program.label)
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SectorsGuest]:
    guest = SectorsGuest(request.param, tmp_path)
    yield guest
    guest.close()


@pytest.fixture
def uniform(tmp_path: Path) -> Iterator[SectorsGuest]:
    guest = SectorsGuest(Program.SECTORS, tmp_path)
    yield guest
    guest.close()


def test_disks_hold_what_ram_says(guest: SectorsGuest) -> None:
    guest.run_until(COMPARED, 20)
    verdict = check_sectors(guest.write_images(), guest.ram, SEED)
    assert verdict.right, str(verdict)
    assert verdict.written == guest.word(WRITTEN) > 50
    assert verdict.checked == (64 + 8) * RUN_SECTORS
    assert guest.word(FLUSHED) > 0
    assert guest.word(MISMATCHED) == 0


def test_guest_goes_on_from_a_state_with_requests_under_way(guest: SectorsGuest) -> None:
    for _ in range(5):
        guest.run_until(WRITTEN, guest.word(WRITTEN) + 20)
        # Completions that it has not taken are dropped, and their requests done again.
        guest.machine.load([(each, each.state()) for each in guest.machine.devices])
        guest.host.loaded()
    verdict = check_sectors(guest.write_images(), guest.ram, SEED)
    assert verdict.right, str(verdict)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_errors_are_counted_and_the_guest_goes_on(uniform: SectorsGuest, number: int) -> None:
    uniform.run_until(WRITTEN, 20)
    uniform.backends[0].error = BlockError(number, "injected")
    uniform.run_until(FAILED, 20)
    uniform.backends[0].error = None
    uniform.run_until(COMPARED, uniform.word(COMPARED) + 20)
    verdict = check_sectors(uniform.write_images(), uniform.ram, SEED)
    assert verdict.right, str(verdict)
    assert verdict.failed >= 20
    assert uniform.machine.disks[0].device["errors"] == verdict.failed


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], np.ndarray]:
    """Give images and RAM of a guest that has written for a while."""
    guest = SectorsGuest(Program.SECTORS, tmp_path_factory.mktemp("images"))
    guest.run_until(WRITTEN, 300)
    found = guest.write_images(), guest.ram.copy()
    guest.close()
    return found


def acknowledged_run(ram: np.ndarray) -> int:
    """Find a run of disk 0 with an acknowledged write and none under way."""
    table = ram[TABLE_AT : TABLE_AT + 64 * ENTRY_BYTES].view(np.uint64)
    done, begun, discarded = (
        table[at // 8 :: ENTRY_BYTES // 8] for at in (ACKNOWLEDGED, SUBMITTED, DISCARDED)
    )
    return int(np.flatnonzero((done == begun) & (done > 1) & (done > discarded))[0])


def tear(sector: bytearray) -> None:
    sector[256:] = bytes(256)


def flip(sector: bytearray) -> None:
    sector[511] ^= 1


def misplace(sector: bytearray) -> None:
    sector[16] ^= 1


def lose(sector: bytearray) -> None:
    sector[:] = bytes(512)


@pytest.mark.parametrize(
    ("change", "kind"), [(tear, "torn"), (flip, "torn"), (misplace, "torn"), (lose, "lost")]
)
def test_changed_sector_is_found(
    finished: tuple[list[Path], np.ndarray], tmp_path: Path, change, kind: str
) -> None:
    images, ram = finished
    sector = acknowledged_run(ram) * RUN_SECTORS + 7
    copy = tmp_path / "disk0"
    shutil.copy(images[0], copy)
    with copy.open("r+b") as file:
        file.seek(sector * SECTOR_BYTES)
        contents = bytearray(file.read(SECTOR_BYTES))
        change(contents)
        file.seek(sector * SECTOR_BYTES)
        file.write(contents)
    verdict = check_sectors([copy, images[1]], ram, SEED)
    assert [(each.disk, each.sector, each.kind) for each in verdict.wrong] == [(0, sector, kind)]
    assert not verdict.right


@pytest.mark.parametrize(("change", "kind"), [(1, "lost"), (-1, "resurrected")])
def test_disk_of_another_moment_than_ram_is_found(
    finished: tuple[list[Path], np.ndarray], change: int, kind: str
) -> None:
    images, ram = finished[0], finished[1].copy()
    run = acknowledged_run(ram)
    entry = ram[TABLE_AT + run * ENTRY_BYTES :][:ENTRY_BYTES].view(np.uint64)
    entry[:2] = int(entry[0]) + change
    verdict = check_sectors(images, ram, SEED)
    assert {each.kind for each in verdict.wrong} == {kind}
    assert [each.sector for each in verdict.wrong] == list(
        range(run * RUN_SECTORS, (run + 1) * RUN_SECTORS)
    )


def test_guest_itself_finds_sectors_that_are_wrong(uniform: SectorsGuest) -> None:
    uniform.run_until(WRITTEN, 300)
    for backend in uniform.backends:
        backend.contents[:] = bytes(backend.size)
    uniform.run_until(MISMATCHED, 1)
    assert uniform.word(SEQUENCE) > 300
    assert not check_sectors(uniform.write_images(), uniform.ram, SEED).right


def test_image_that_is_missing_or_shorter_is_an_error(
    finished: tuple[list[Path], np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(LocalError, match="expected an image, found No such file"):
        check_sectors([tmp_path / "none"], finished[1], SEED)


def test_program_without_its_disk_is_refused() -> None:
    with pytest.raises(LocalError, match="disks: expected at least one for the program sectors"):
        GuestSettings(1 << 20, Program.SECTORS)


class DeafBackend(MemoryBackend):
    """A disk that says that it has discarded, and has not."""

    def discard(self, offset: int, length: int) -> None:
        self._do(RequestKind.DISCARD, offset, length)


class SwappingBackend(MemoryBackend):
    """A disk that discards when the next write to the place is done."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.late: set[int] = set()

    def discard(self, offset: int, length: int) -> None:
        self.late.add(offset)

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        super().write(offset, data, fua)
        if offset in self.late:
            self.late.remove(offset)
            super().discard(offset, len(data))


@pytest.mark.parametrize("backend", [DeafBackend, SwappingBackend])
def test_discard_that_is_lost_or_comes_late_is_found_by_guest_and_checker(
    tmp_path: Path, backend: type[MemoryBackend]
) -> None:
    with contextlib.closing(SectorsGuest(Program.SECTORS, tmp_path, backend)) as guest:
        guest.run_until(MISMATCHED, 1)
        # The guest may just have written again all that was wrong.
        for _ in range(20):
            verdict = check_sectors(guest.write_images(), guest.ram, SEED)
            if verdict.lost:
                break
            guest.run_until(WRITTEN, guest.word(WRITTEN) + 50)
    assert verdict.lost
    assert (verdict.torn, verdict.resurrected) == (0, 0)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.label)
def test_only_the_program_whose_load_is_measured_discards_nothing(
    tmp_path: Path, program: Program
) -> None:
    guest = SectorsGuest(program, tmp_path)
    guest.run_until(WRITTEN, 1000)
    guest.close()
    discards = [kind for each in guest.backends for kind, *_ in each.done].count(
        RequestKind.DISCARD
    )
    assert bool(discards) == (program is not Program.PAGES_AND_SECTORS)


@kernel("u8(u1[::1], u8[::1], i8, i8)")
def begin(memory: Bytes, bitmap: Words, run: int, discards: int) -> np.uint64:
    """Note that a write or a discard of a run of the first disk is about to be submitted."""
    entry = TABLE_AT + run * ENTRY_BYTES
    return sectors.begin_change(memory, bitmap, 0, entry, discards != 0)


@kernel("i8(u1[::1], u8[::1], i8, u8, i8)")
def end(memory: Bytes, bitmap: Words, run: int, sequence: np.uint64, fua: int) -> int:
    """Note that it is done; or a flush of all that is done, if run is negative."""
    if run < 0:
        return sectors.flushed(memory, bitmap, 0, sectors.get_word(memory, WRITTEN))
    entry = TABLE_AT + run * ENTRY_BYTES
    return sectors.acknowledge(memory, bitmap, 0, entry, sequence, fua != 0)


@kernel("i8(u1[::1], u8[::1], i8, i8, u8)")
def compare(memory: Bytes, bitmap: Words, at: int, run: int, seed: np.uint64) -> int:
    """Compare what was read to an address with the run's entry."""
    entry = TABLE_AT + run * ENTRY_BYTES
    return sectors.compare_run(memory, bitmap, 0, entry, at, 0, run, seed)


RUNS, READ_AT = 2, 16 << 10
#: A run, and what is done with it: kind of the change, and how it ends; "left" is a failure, or
#: the guest's end if nothing follows.
changes = st.tuples(
    st.integers(0, RUNS - 1),
    st.sampled_from(["begin-write", "begin-discard"]),
    st.sampled_from(["done", "done", "done-fua", "left"]),
)


@settings(max_examples=amount(50, 1000), deadline=None)
@given(st.lists(st.one_of(changes, st.just(None)), max_size=20), st.booleans())
def test_table_of_runs_allows_what_their_history_does(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, str, str] | None],
    cache_lost: bool,
) -> None:
    """Writes, discards and flushes (None); the guest's own check is compared, too."""
    ram, bitmap = np.zeros(READ_AT + RUN_BYTES, np.uint8), np.zeros(0, np.uint64)
    histories: list[list[tuple[str, int]]] = [[] for _ in range(RUNS)]
    for step in steps:
        if step is None:
            end(ram, bitmap, -1, 0, 0)
            for history in histories:
                history.append(("flush", 0))
            continue
        run, kind, how = step
        sequence = begin(ram, bitmap, run, kind == "begin-discard")
        histories[run].append((kind, sequence))
        if how != "left":
            end(ram, bitmap, run, sequence, how == "done-fua")
            histories[run].append((how, 0))
    image = tmp_path_factory.getbasetemp() / "runs"
    contents, expected, for_guest = bytearray(), set(), 0
    for run, history in enumerate(histories):
        # What was there at any time, and what the guest has never written there.
        there = [0, len(steps) + 1, *(each for what, each in history if what == "begin-write")]
        for place in range(RUN_SECTORS):
            number, write = run * RUN_SECTORS + place, there[place % len(there)]
            contents += naive.sector(0, number, write, SEED) if write else bytes(SECTOR_BYTES)
            if write not in naive.right_contents(history, cache_lost):
                expected.add(number)
            for_guest += write not in naive.right_contents(history, False)
        ram[READ_AT:] = np.frombuffer(contents[-RUN_BYTES:], np.uint8)
        compare(ram, bitmap, READ_AT, run, SEED)
    image.write_bytes(contents)
    verdict = check_sectors([image], ram, SEED, cache_lost=cache_lost, limit=len(contents))
    assert {each.sector for each in verdict.wrong} == expected
    assert verdict.torn == 0
    assert verdict.mismatched == for_guest
