"""The secondary's disk: its guest sees the checkpoint's, and a takeover undoes the rest."""

from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from colobench.block.backend import BlockData, BlockError
from colobench.block.clusters import CLUSTER_SIZE, ClusterSet
from colobench.block.layers import EXTENT_COST
from colobench.node.disk.following import FollowingDisk
from memory_disk import MemoryDisk

WAIT = 30.0
SIZE = 8 * CLUSTER_SIZE
LIMIT = 1 << 20


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


class Following:
    """A disk that follows, and the errors that it has reported."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.image = MemoryDisk(bytes([1]) * SIZE)
        self.errors: list[Exception] = []
        self.disk = FollowingDisk(self.image, limit, self.errors.append)


def block(fill: int, length: int = 512) -> bytes:
    return bytes([fill]) * length


def test_before_the_layers_start_the_primary_copies_into_the_image() -> None:
    made = Following(limit=1)
    made.disk.primary.write(0, block(2, SIZE))
    assert made.image.bytes == block(2, SIZE)
    assert made.disk.in_use() == 0


def test_the_guest_sees_the_checkpoint_and_its_own_writes() -> None:
    made = Following()
    made.disk.start_layers()
    guest = made.disk.guest()
    guest.write(512, block(3))
    made.disk.primary.write(0, block(2, 4096))
    assert guest.read(0, 1536) == block(1) + block(3) + block(1)
    assert made.image.read(0, 4096) == block(2, 4096)


def test_a_checkpoint_makes_the_image_what_the_guest_sees() -> None:
    made = Following()
    made.disk.start_layers()
    made.disk.guest().write(512, block(3))
    made.disk.primary.write(0, block(2))
    made.disk.empty_layers()
    assert made.disk.guest().read(0, 1024) == block(2) + block(1)
    assert made.disk.in_use() == 0


def test_clusters_to_merge_are_those_that_a_merge_writes() -> None:
    made = Following()
    assert made.disk.clusters_to_merge() == ClusterSet(SIZE)
    made.disk.start_layers()
    made.disk.guest().write(CLUSTER_SIZE + 512, block(3))
    made.disk.primary.write(5 * CLUSTER_SIZE - 512, block(2, 1024))
    expected = ClusterSet(SIZE)
    expected.touch(CLUSTER_SIZE, 1)
    expected.touch(4 * CLUSTER_SIZE, CLUSTER_SIZE + 1)
    assert made.disk.clusters_to_merge() == expected
    made.disk.empty_layers()
    assert made.disk.clusters_to_merge() == ClusterSet(SIZE)


@pytest.mark.parametrize("first", ["write", "discard"])
@pytest.mark.parametrize("own", [False, True], ids=["v12", "upstream"])
def test_a_takeover_undoes_what_the_primary_changed_since_the_checkpoint(
    own: bool, first: str
) -> None:
    made = Following()
    made.disk.start_layers()
    made.disk.primary.write(0, block(2))
    made.disk.empty_layers()
    if first == "discard":
        made.disk.primary.discard(512, 3 * CLUSTER_SIZE)
    for fill in (7, 8):
        made.disk.primary.write(0, block(fill, 2 * CLUSTER_SIZE))
    if own:
        made.disk.guest().write(1024, block(9))
    made.disk.stop()
    made.disk.merge(made.image)
    expected = bytearray(block(2) + block(1, SIZE - 512))
    if own:
        expected[1024:1536] = block(9)
    assert made.image.bytes == expected


def test_a_write_that_need_not_wait_can_be_undone_and_others_change_nothing() -> None:
    made = Following(limit=2 * (CLUSTER_SIZE + EXTENT_COST))
    made.disk.start_layers()
    primary = made.disk.primary
    assert primary.write_at_once(512, block(7))
    made.disk.wait_until(time.monotonic() + WAIT)
    assert not primary.write_at_once(0, block(8))
    made.disk.wait_until(0.0)
    assert primary.write_at_once(3 * CLUSTER_SIZE, block(7))
    # There is no room for the old bytes of another cluster.
    assert not primary.write_at_once(5 * CLUSTER_SIZE, block(8))
    assert primary.write_at_once(1024, block(7))
    assert 8 not in made.image.bytes
    made.disk.stop()
    made.disk.merge(made.image)
    assert made.image.bytes == block(1, SIZE)
    with pytest.raises(BlockError, match="takeover"):
        primary.write_at_once(0, block(8))


def test_no_write_of_the_primary_happens_after_the_stop() -> None:
    made = Following()
    made.disk.start_layers()
    made.disk.stop()
    with pytest.raises(BlockError, match="takeover"):
        made.disk.primary.write(0, block(2))
    made.disk.merge(made.image)
    with pytest.raises(BlockError, match="takeover"):
        made.disk.primary.write(0, block(2))
    assert made.image.bytes == block(1, SIZE)
    assert not made.errors


def test_a_request_of_a_replaced_state_is_forgotten_even_after_a_takeover() -> None:
    """A worker may be late with what the guest had submitted before the checkpoint."""
    made = Following()
    made.disk.start_layers()
    late = made.disk.guest()
    made.disk.empty_layers()
    with pytest.raises(BlockError):
        late.write(0, block(9))
    assert made.disk.guest().read(0, 512) == block(1)
    made.disk.stop()
    made.disk.merge(made.image)
    with pytest.raises(BlockError):
        late.write(0, block(9))
    assert made.image.bytes == block(1, SIZE)


def test_a_request_under_way_at_a_takeover_is_done_by_the_successor() -> None:
    made = Following()
    made.disk.start_layers()
    guest = made.disk.guest()
    made.disk.stop()
    successor = MemoryDisk(bytes(SIZE))
    made.disk.merge(successor)
    guest.write(0, block(9))
    guest.flush()
    assert successor.read(0, 512) == block(9)
    assert successor.flushes == 1


@pytest.mark.parametrize("who", ["primary", "guest"])
@pytest.mark.parametrize("end", ["checkpoint", "takeover"])
def test_a_write_without_room_waits_for_the_checkpoint_or_the_takeover(
    threads: ThreadPoolExecutor, who: str, end: str
) -> None:
    made = Following(limit=CLUSTER_SIZE + 4096)
    made.disk.start_layers()
    made.disk.primary.write(0, block(2))
    writer = made.disk.primary if who == "primary" else made.disk.guest()
    done = threads.submit(writer.write, 4 * CLUSTER_SIZE, block(3, CLUSTER_SIZE))
    # The lock is free meanwhile.
    assert made.disk.guest().read(0, 512) == block(1)
    assert not done.done()
    if end == "checkpoint":
        made.disk.empty_layers()
    else:
        made.disk.stop()
        made.disk.merge(made.image)
    error = done.exception(WAIT)
    # A guest's request is done once more when the state of the checkpoint is loaded.
    survives = (who, end) in (("primary", "checkpoint"), ("guest", "takeover"))
    assert (error is None) == survives
    assert (made.image.read(4 * CLUSTER_SIZE, 512) == block(3)) == survives
    assert not made.errors


def test_an_error_of_the_image_is_answered_and_reported() -> None:
    made = Following()
    made.disk.start_layers()

    def broken(offset: int, data: BlockData, fua: bool = False) -> None:
        raise BlockError(errno.EIO, "the image")

    made.image.write = broken  # type: ignore[method-assign]
    with pytest.raises(BlockError, match="image"):
        made.disk.primary.write(0, block(2))
    assert len(made.errors) == 1


def test_a_checkpoint_divides_concurrent_changes(threads: ThreadPoolExecutor) -> None:
    """Whatever thread is late, a takeover finds the disk of a checkpoint's moment."""
    made = Following(limit=64 * SIZE)
    made.disk.start_layers()
    stop = threading.Event()
    locks = [threading.Lock() for _ in range(3)]
    changed = threading.Semaphore(0)

    def primary(seed: int) -> None:
        draws = random.Random(seed)
        while not stop.is_set():
            offset = draws.randrange(SIZE // 512 - 64) * 512
            length = 512 * draws.randrange(1, 64)
            with locks[seed]:
                if draws.random() < 0.25:
                    made.disk.primary.discard(offset, length)
                else:
                    made.disk.primary.write(offset, draws.randbytes(length))
                changed.release()

    writers = [threads.submit(primary, seed) for seed in range(3)]
    try:
        for _ in range(20):
            # A write that is under way is of the checkpoint: its request is in the saved state.
            with locks[0], locks[1], locks[2]:
                made.disk.empty_layers()
                guest = made.disk.guest()
                before = guest.read(0, SIZE)
                while changed.acquire(blocking=False):
                    pass
            # The primary goes on, and the guest's disk stays.
            for _ in range(5):
                assert changed.acquire(timeout=WAIT)
                assert guest.read(0, SIZE) == before
    finally:
        stop.set()
    for each in writers:
        each.result(WAIT)
    made.disk.stop()
    made.disk.merge(made.image)
    assert made.image.bytes == before


class SlowImage(MemoryDisk):
    """A disk whose next request of a kind waits until it is let go on."""

    def __init__(self, contents: bytes) -> None:
        super().__init__(contents)
        self.waits = ""
        self.begun, self.go_on = threading.Event(), threading.Event()

    def _wait(self, kind: str) -> None:
        if self.waits == kind:
            self.waits = ""
            self.begun.set()
            assert self.go_on.wait(WAIT)

    def read(self, offset: int, length: int) -> bytes:
        self._wait("read")
        return super().read(offset, length)

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        self._wait("write")
        super().write(offset, data, fua)


def slow() -> tuple[Following, SlowImage]:
    made = Following()
    made.image = image = SlowImage(block(1, SIZE))
    made.disk = FollowingDisk(image, LIMIT, made.errors.append)
    made.disk.start_layers()
    return made, image


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_checkpoint_does_not_wait_for_the_image(threads: ThreadPoolExecutor, kind: str) -> None:
    """The primary's write waits for the disk, with the old bytes or the new ones."""
    made, image = slow()
    image.waits = kind
    write = threads.submit(made.disk.primary.write, 0, block(2))
    assert image.begun.wait(WAIT)
    made.disk.empty_layers()
    image.go_on.set()
    write.result(WAIT)
    assert image.read(0, 1024) == block(2) + block(1)


def test_a_takeover_waits_for_a_write_that_is_under_way(threads: ThreadPoolExecutor) -> None:
    made, image = slow()
    image.waits = "write"
    write = threads.submit(made.disk.primary.write, 0, block(2))
    assert image.begun.wait(WAIT)
    made.disk.stop()
    merge = threads.submit(made.disk.merge, image)
    assert not merge.done()
    image.go_on.set()
    write.result(WAIT)
    merge.result(WAIT)
    assert image.bytes == block(1, SIZE)


@pytest.mark.parametrize("end", ["write", "checkpoint", "takeover"])
def test_what_a_guest_reads_slowly_is_of_its_checkpoint(
    threads: ThreadPoolExecutor, end: str
) -> None:
    made, image = slow()
    image.waits = "read"
    read = threads.submit(made.disk.guest().read, 0, 1024)
    assert image.begun.wait(WAIT)
    made.disk.primary.write(0, block(2))
    if end == "checkpoint":
        made.disk.empty_layers()
    elif end == "takeover":
        made.disk.stop()
        made.disk.merge(image)
    image.go_on.set()
    if end == "checkpoint":
        # Its state has been replaced.
        with pytest.raises(BlockError, match="since the checkpoint"):
            read.result(WAIT)
    else:
        assert read.result(WAIT) == block(1, 1024)


@pytest.mark.parametrize("end", ["arrived", "takeover"])
def test_writes_wait_for_the_end_of_a_pause(threads: ThreadPoolExecutor, end: str) -> None:
    made = Following()
    made.disk.start_layers()
    made.disk.wait_until(time.monotonic() + 10 * WAIT)
    write = threads.submit(made.disk.primary.write, 0, block(2))
    assert made.disk.guest().read(0, 512) == block(1)
    assert not write.done()
    if end == "arrived":
        made.disk.wait_until(0.0)
        write.result(WAIT)
        assert made.image.read(0, 512) == block(2)
    else:
        made.disk.stop()
        with pytest.raises(BlockError, match="takeover"):
            write.result(WAIT)


def test_writes_wait_no_longer_than_they_may() -> None:
    made = Following()
    made.disk.start_layers()
    made.disk.wait_until(time.monotonic() + 0.01)
    made.disk.primary.write(0, block(2))
    assert made.image.read(0, 512) == block(2)
