"""A copy under a guest that writes: at its end both disks are equal, whatever the order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.block.clusters import CLUSTER_SIZE, ByteRange, ClusterSet
from colobench.block.copying import RUN_LENGTH, DiskCopy
from colobench.errors import LocalError
from memory_disk import MemoryDisk
from share import amount

SIZE = 40 * CLUSTER_SIZE + 3 * 512


class Copying:
    """Two disks, a copy between them, and a guest that writes; each step may come in any order."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.source, self.target = MemoryDisk(b"s" * SIZE), MemoryDisk(b"t" * SIZE)
        self.copy = DiskCopy(ClusterSet(SIZE, filled=True))
        self.runs: list[tuple[ByteRange, bytes]] = []
        self.writes: list[list] = []
        self.refused = 0

    def step(self) -> None:
        step = self.random.choice((self.begin_run, self.end_run, self.begin_write, self.write))
        step()

    def begin_run(self) -> None:
        if len(self.runs) < 3 and (run := self.copy.next_run()):
            assert run.length <= RUN_LENGTH
            self.runs.append((run, self.source.read(*run)))

    def end_run(self) -> None:
        if self.runs:
            run, data = self.runs.pop(self.random.randrange(len(self.runs)))
            copied = self.random.random() < 0.8
            self.target.write(run.offset, data if copied else data[: len(data) // 2])
            self.copy.run_ended(run, copied)

    def begin_write(self) -> None:
        begin = self.random.randrange(SIZE // 512)
        length = min(self.random.choice((1, 8, 128, 256)), SIZE // 512 - begin) * 512
        if self.copy.write_begins(begin * 512, length):
            self.writes.append([begin * 512, self.random.randbytes(length), 0, True])
        else:
            self.refused += 1

    def write(self) -> None:
        """Do a write on one disk, or end it: in any order on the two."""
        if not self.writes:
            return
        write = self.random.choice(self.writes)
        offset, data, done, _ = write
        if done == 3:
            self.writes.remove(write)
            self.copy.write_ended(offset, len(data), write[3])
            return
        side = self.random.choice([bit for bit in (1, 2) if not done & bit])
        write[2] |= side
        if side == 2 and self.random.random() < 0.1:
            write[3] = False
            self.target.write(offset, data[:512])
        else:
            (self.source if side == 1 else self.target).write(offset, data)

    def finish(self) -> None:
        while not self.copy.done or self.writes:
            self.begin_run()
            self.end_run()
            self.write()


@settings(deadline=None, max_examples=amount(25, 400))
@given(st.integers(0, 1 << 32), st.integers(0, 300))
def test_both_disks_are_equal_at_the_end_whatever_the_order_of_copies_and_writes(seed, steps):
    copying = Copying(seed)
    for _ in range(steps):
        copying.step()
    copying.finish()
    assert copying.source.bytes == copying.target.bytes
    progress = copying.copy.progress
    assert (progress.total, progress.remaining) == (SIZE, 0)


def test_only_what_differs_is_copied_in_runs_that_are_at_most_a_mebibyte():
    differing = ClusterSet(SIZE)
    differing.touch(5 * CLUSTER_SIZE, 20 * CLUSTER_SIZE)
    differing.touch(SIZE - 1, 1)
    copy = DiskCopy(differing)
    runs = []
    while run := copy.next_run():
        runs.append(run)
        copy.run_ended(run, True)
    assert runs == [
        (5 * CLUSTER_SIZE, RUN_LENGTH),
        (21 * CLUSTER_SIZE, 4 * CLUSTER_SIZE),
        (40 * CLUSTER_SIZE, 3 * 512),
    ]
    assert copy.done
    assert copy.progress == (20 * CLUSTER_SIZE + 3 * 512, 0, 20 * CLUSTER_SIZE + 3 * 512, 1)


def test_a_write_and_the_copy_of_its_cluster_exclude_each_other_both_ways():
    copy = DiskCopy(ClusterSet(SIZE, filled=True))
    run = copy.next_run()
    assert not copy.write_begins(run.length - 512, 1024)
    assert copy.write_begins(run.length, 512)
    following = copy.next_run()
    assert following.offset == run.length + CLUSTER_SIZE
    copy.run_ended(run, True)
    assert copy.write_begins(0, 512)


def test_a_write_into_a_clean_disk_copies_nothing_and_a_failed_one_is_a_further_pass():
    copy = DiskCopy(ClusterSet(SIZE))
    assert copy.done
    assert copy.write_begins(512, 512)
    copy.write_ended(512, 512, True)
    assert copy.done
    assert copy.write_begins(512, 512)
    copy.write_ended(512, 512, False)
    assert copy.next_run() == (0, CLUSTER_SIZE)
    assert copy.next_run() is None
    assert not copy.done


def test_two_writes_of_the_same_bytes_are_not_in_flight_at_once():
    copy = DiskCopy(ClusterSet(SIZE))
    assert copy.write_begins(0, 1024)
    assert not copy.write_begins(512, 1024)
    assert copy.write_begins(1024, 512)
    copy.write_ended(0, 1024, True)
    assert copy.write_begins(512, 512)


def test_the_end_of_what_never_began_is_an_error():
    copy = DiskCopy(ClusterSet(SIZE))
    with pytest.raises(LocalError, match="expected one in flight"):
        copy.write_ended(0, 512, True)
    with pytest.raises(LocalError, match="expected one in flight"):
        copy.run_ended(ByteRange(0, 512), True)
