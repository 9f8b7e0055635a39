"""The primary's disk forwards writes: both sides equal, divided by checkpoints, nobody hangs."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.block.backend import BlockData, BlockError
from colobench.block.clusters import CLUSTER_SIZE, ClusterSet
from colobench.block.request import BlockRequest
from colobench.errors import LocalError
from colobench.node.disk.forward_gate import Cluster, ForwardedWrite, ForwardGate
from colobench.node.disk.forwarding import COPY_SIZE, ForwardingBackend
from colobench.node.disk.image import FileImage
from colobench.node.disk.nbd_client import OnDone
from colobench.node.disk.range_locks import RangeLocks
from memory_disk import MemoryDisk

WAIT = 30.0
SIZE = 16 * CLUSTER_SIZE


class SlowDisk(MemoryDisk):
    """Disk of the secondary whose writes wait, or fail, as a test says."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(bytes(size))
        self.may_go = threading.Event()
        self.may_go.set()
        self.arrived = threading.Semaphore(0)
        self.error: BlockError | None = None

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        self.arrived.release()
        assert self.may_go.wait(WAIT)
        if self.error is not None:
            raise self.error
        super().write(offset, data, fua)


class SubmittingDisk(SlowDisk):
    """Disk of the secondary that answers later, as an NBD client does."""

    def submit(
        self, request: BlockRequest, on_done: OnDone, into: memoryview | None = None
    ) -> None:
        def do() -> None:
            error = None
            try:
                request.perform(self)
            except BlockError as found:
                error = found
            on_done(memoryview(b""), error)

        threading.Thread(target=do).start()


class Pair:
    """A disk with its gate, and the secondary's."""

    #: Class of the secondary's disk, which decides how the guest's writes are begun.
    remote_class: type[SlowDisk] = SlowDisk

    def __init__(self, limit: int = 1000, size: int = SIZE) -> None:
        self.gate = ForwardGate(limit)
        self.image, self.remote = MemoryDisk(bytes(size)), self.remote_class(size)
        self.disk = ForwardingBackend(0, self.image, self.gate)
        self.disk.connect(self.remote)
        self.errors: list[Exception] = []
        self.asked = 0
        self.gate.on_error = self._failed
        self.gate.request_checkpoint = self._ask

    def protect(self) -> None:
        """Copy nothing, as both are equal, and begin to count."""
        self.gate.open()
        self.gate.count()

    def _failed(self, error: Exception) -> None:
        self.errors.append(error)
        self.gate.fail()

    def _ask(self) -> None:
        self.asked += 1


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(70) as pool:
        yield pool


@contextmanager
def ends(gate: ForwardGate) -> Iterator[None]:
    """End the gate whatever a test finds, so that no thread waits."""
    try:
        yield
    finally:
        gate.close()


def reaches(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    done = threading.Event()
    for _ in range(int(WAIT * 1000)):
        if condition():
            return
        done.wait(0.001)
    raise AssertionError("it never held")


def block(fill: int, length: int = 512) -> bytes:
    return bytes([fill]) * length


@pytest.fixture(autouse=True, params=[SlowDisk, SubmittingDisk], ids=["threads", "at once"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test hold for writes that have a thread each, and for those that have none."""
    monkeypatch.setattr(Pair, "remote_class", request.param)


def write(pair: Pair, pool: ThreadPoolExecutor, cluster: int, fill: int = 1) -> Future[None]:
    offset, data, done = cluster * CLUSTER_SIZE, block(fill), Future[None]()

    def on_written(error: BlockError | None) -> None:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    if pair.disk.begin_write(offset, data, on_written, pool.submit):
        return done
    return pool.submit(pair.disk.write, offset, data)


def test_without_a_secondary_a_write_is_done_here_alone() -> None:
    pair = Pair()
    pair.disk.write(512, block(7))
    assert pair.image.read(512, 512) == block(7)
    assert not any(pair.remote.bytes)


def test_every_change_is_done_on_both_sides(threads: ThreadPoolExecutor) -> None:
    pair = Pair()
    pair.protect()
    pair.disk.write(0, block(1, 4096), True)
    pair.disk.write(4096, block(2, 4096))
    pair.disk.discard(512, 512)
    pair.disk.write_zeroes(4096, 1024)
    pair.disk.flush()
    assert pair.image.bytes == pair.remote.bytes
    assert any(pair.remote.bytes)
    assert pair.remote.flushes == pair.image.flushes == 2


def test_a_write_is_done_when_the_secondary_has_answered(threads: ThreadPoolExecutor) -> None:
    pair = Pair()
    pair.protect()
    pair.remote.may_go.clear()
    with ends(pair.gate):
        done = write(pair, threads, 0)
        assert pair.remote.arrived.acquire(timeout=WAIT)
        assert not done.done()
        # The guest's own disk has it, which only the guest's next read could tell.
        assert pair.image.read(0, 512) == block(1)
        pair.remote.may_go.set()
        done.result(WAIT)


def test_what_is_written_after_the_seal_is_forwarded_after_the_commit(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair()
    pair.protect()
    pair.disk.write(0, block(1))
    pair.gate.stand()
    pair.gate.hold()
    pair.gate.go()
    with ends(pair.gate):
        done = write(pair, threads, 1)
        reaches(lambda: any(pair.image.bytes[CLUSTER_SIZE:]))
        assert not any(pair.remote.bytes[CLUSTER_SIZE:])
        # The digest of the sealed disk does not wait for it.
        pair.gate.drain()
        assert not done.done()
        pair.gate.release()
        done.result(WAIT)
    assert pair.image.bytes == pair.remote.bytes


def test_no_write_begins_while_the_guest_is_saved(threads: ThreadPoolExecutor) -> None:
    pair = Pair()
    pair.protect()
    pair.gate.stand()
    pair.gate.hold()
    with ends(pair.gate):
        done = write(pair, threads, 0)
        pair.gate.drain()
        assert not any(pair.image.bytes)
        pair.gate.release()
        pair.gate.go()
        done.result(WAIT)
    assert pair.image.bytes == pair.remote.bytes


def test_drain_waits_for_writes_that_began_before(threads: ThreadPoolExecutor) -> None:
    pair = Pair()
    pair.protect()
    pair.remote.may_go.clear()
    with ends(pair.gate):
        write(pair, threads, 0)
        assert pair.remote.arrived.acquire(timeout=WAIT)
        pair.gate.stand()
        pair.gate.hold()
        drained = threads.submit(pair.gate.drain)
        assert not drained.done()
        pair.remote.may_go.set()
        drained.result(WAIT)
    assert pair.image.bytes == pair.remote.bytes


def test_a_checkpoint_is_asked_for_at_half_of_the_limit(threads: ThreadPoolExecutor) -> None:
    pair = Pair(limit=8)
    pair.protect()
    for cluster in (0, 0, 1, 2, 2):
        pair.disk.write(cluster * CLUSTER_SIZE, block(1))
    assert pair.asked == 0
    pair.disk.write(3 * CLUSTER_SIZE, block(1))
    pair.disk.write(4 * CLUSTER_SIZE, block(1))
    assert pair.asked == 1


def test_writes_under_way_that_are_half_of_the_limit_ask_for_a_checkpoint_themselves(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair(limit=4)
    pair.gate.open()
    pair.remote.may_go.clear()
    with ends(pair.gate):
        done = [write(pair, threads, cluster) for cluster in range(4)]
        for _ in done:
            assert pair.remote.arrived.acquire(timeout=WAIT)
        pair.gate.count()
        assert pair.asked == 1
        pair.gate.stand()
        pair.gate.hold()
        pair.gate.release()
        pair.gate.go()
        assert pair.asked == 2
        pair.remote.may_go.set()
        for each in done:
            each.result(WAIT)


def test_writes_wait_at_the_limit_for_the_commit(threads: ThreadPoolExecutor) -> None:
    pair = Pair(limit=4)
    pair.protect()
    for cluster in range(4):
        pair.disk.write(cluster * CLUSTER_SIZE, block(1))
    # These clusters are counted already.
    pair.disk.write(512, block(2))
    with ends(pair.gate):
        done = write(pair, threads, 5)
        pair.gate.drain()
        assert not any(pair.image.bytes[5 * CLUSTER_SIZE :])
        pair.gate.stand()
        pair.gate.hold()
        pair.gate.release()
        pair.gate.go()
        done.result(WAIT)
    assert pair.gate.statistics()["clusters"] == 1


def test_writes_under_way_at_the_seal_count_for_the_next_checkpoint(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair(limit=4)
    pair.protect()
    pair.disk.write(0, block(1))
    pair.remote.may_go.clear()
    with ends(pair.gate):
        done = [write(pair, threads, cluster) for cluster in (1, 2)]
        for _ in range(3):
            assert pair.remote.arrived.acquire(timeout=WAIT)
        pair.gate.stand()
        pair.gate.hold()
        pair.gate.release()
        pair.gate.go()
        assert pair.gate.statistics() == {"clusters": 2, "writes-under-way": 2}
        pair.remote.may_go.set()
        for each in done:
            each.result(WAIT)


def test_with_two_open_checkpoints_a_write_waits_for_its_own(threads: ThreadPoolExecutor) -> None:
    pair = Pair()
    pair.protect()
    with ends(pair.gate):
        done = []
        for cluster in range(2):
            pair.gate.hold()
            done.append(write(pair, threads, cluster, 1 + cluster))
            reaches(lambda: any(pair.image.bytes[cluster * CLUSTER_SIZE :]))  # noqa: B023
        # The cut of the second one does not wait for a write that the first one holds.
        pair.gate.drain()
        assert pair.gate.held(0) == [0, 1]
        assert not any(pair.remote.bytes)
        pair.gate.release()
        done[0].result(WAIT)
        assert not done[1].done()
        assert not any(pair.remote.bytes[CLUSTER_SIZE:])
        pair.gate.release()
        done[1].result(WAIT)
        assert pair.image.bytes == pair.remote.bytes


@given(st.lists(st.sampled_from(["write", "seal", "commit", "leave"]), max_size=40))
def test_a_write_is_held_until_the_checkpoint_of_the_seal_before_it(steps: list[str]) -> None:
    gate = ForwardGate(1000)
    gate.open()
    gate.count()
    seals = commits = 0
    writes: list[tuple[ForwardedWrite, int]] = []
    for step in steps:
        if step == "write":
            # One that was submitted while no checkpoint is open waits for none.
            writes.append((gate.begin([Cluster(0, len(writes))]), seals))
        elif step == "seal" and seals - commits < 2:
            gate.hold()
            seals += 1
        elif step == "commit" and commits < seals:
            gate.release()
            commits += 1
        elif step == "leave":
            gate.leave()
            gate.open()
            gate.count()
            commits = seals
        for write, seal in writes:
            assert gate.is_held(write) == (seal > commits)


def test_a_write_is_begun_at_once_only_if_it_need_not_wait(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair(limit=4)
    pair.protect()
    submits = isinstance(pair.remote, SubmittingDisk)

    def begins(offset: int) -> bool:
        done = threading.Event()
        begun = pair.disk.begin_write(offset, block(1), lambda error: done.set(), threads.submit)
        assert not begun or done.wait(WAIT)
        return begun

    with ends(pair.gate):
        assert begins(0) == submits
        with pair.disk.settled():
            assert not begins(0)
        pair.gate.stand()
        assert not begins(0)
        pair.gate.go()
        pair.gate.hold()
        assert not begins(0)
        pair.gate.release()
        fit = [begins(cluster * CLUSTER_SIZE) for cluster in range(5)]
        assert fit == [submits and cluster < 4 for cluster in range(5)]
        pair.gate.fail()
        assert not begins(0)
    assert pair.image.bytes == pair.remote.bytes
    assert pair.gate.statistics()["writes-under-way"] == 0


def test_an_error_of_the_own_disk_is_told_of_a_write_that_was_begun_at_once(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair()

    def broken(offset: int, data: BlockData, fua: bool = False) -> None:
        raise BlockError(errno.ENOSPC, "the image")

    pair.image.write = broken  # type: ignore[method-assign]
    pair.protect()
    raised = write(pair, threads, 0).exception(WAIT)
    assert isinstance(raised, BlockError)
    assert raised.errno == errno.ENOSPC
    assert not any(pair.remote.bytes)
    assert pair.gate.statistics()["writes-under-way"] == 0
    del pair.image.write
    write(pair, threads, 0).result(WAIT)


def test_a_failed_forward_is_told_and_the_write_waits_until_the_guest_is_alone(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair()
    pair.protect()
    pair.remote.error = BlockError(errno.EIO, "the secondary's disk")
    with ends(pair.gate):
        done = [write(pair, threads, cluster) for cluster in range(3)]
        reaches(lambda: bool(pair.errors) and any(pair.image.bytes[2 * CLUSTER_SIZE :]))
        assert not any(each.done() for each in done)
        with pytest.raises(LocalError, match="error"):
            pair.gate.drain()
        pair.gate.leave()
        for each in done:
            each.result(WAIT)
        pair.disk.write(0, block(9))
    assert isinstance(pair.errors[0], BlockError)


@pytest.mark.parametrize("step", ["leave", "close"])
def test_nobody_waits_when_the_pair_or_the_process_ends(
    threads: ThreadPoolExecutor, step: str
) -> None:
    """Held, standing and limited writes all end."""
    limited, held, standing = Pair(limit=1), Pair(), Pair()
    for pair in (limited, held, standing):
        pair.protect()
    limited.disk.write(0, block(1))
    held.gate.hold()
    standing.gate.stand()
    done = [write(pair, threads, 3) for pair in (limited, held, standing)]
    for pair in (limited, held, standing):
        getattr(pair.gate, step)()
    for each in done:
        assert (each.exception(WAIT) is None) == (step == "leave")


def test_a_write_that_was_held_when_the_secondary_died_meets_the_next_one(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair()
    pair.protect()
    pair.gate.hold()
    with ends(pair.gate):
        written = pair.gate.begin([Cluster(0, 0)])
        pair.gate.leave()
        pair.gate.open()
        threads.submit(pair.gate.forward, written, lambda: None).result(WAIT)


def test_a_write_whose_secondary_was_lost_does_not_wait_for_the_end_of_the_next(
    threads: ThreadPoolExecutor,
) -> None:
    """The copy to the next one waits for this write, so both would wait for ever."""
    pair = Pair()
    pair.protect()
    pair.remote.error = BlockError(errno.EIO, "lost")
    with ends(pair.gate):
        done = write(pair, threads, 0)
        reaches(lambda: bool(pair.errors))
        pair.gate.leave()
        pair.gate.open()
        done.result(WAIT)


def test_an_error_of_a_secondary_that_was_left_is_no_error_of_the_next(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair()
    pair.protect()
    pair.remote.may_go.clear()
    pair.remote.error = BlockError(errno.EIO, "lost")
    with ends(pair.gate):
        done = write(pair, threads, 0)
        assert pair.remote.arrived.acquire(timeout=WAIT)
        pair.gate.leave()
        pair.gate.open()
        pair.remote.may_go.set()
        done.result(WAIT)
    assert not pair.errors


class OpensWhenLeft:
    """Lock of a gate that is opened, as by another thread, when the lock is first released."""

    def __init__(self, gate: ForwardGate) -> None:
        self._gate, self._lock, self._opened = gate, gate._changed, False

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)
        if not self._opened:
            self._opened = True
            self._gate.open()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


def test_a_write_that_began_without_a_secondary_ends_when_one_comes(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair()
    with ends(pair.gate):
        written = pair.gate.begin([Cluster(0, 0)])
        pair.gate._changed = OpensWhenLeft(pair.gate)  # type: ignore[assignment]
        threads.submit(pair.gate.forward, written, lambda: None).result(WAIT)
        assert pair.gate.forwarding


def test_an_error_of_the_own_disk_is_the_guests(threads: ThreadPoolExecutor) -> None:
    pair = Pair()
    pair.protect()

    def broken(offset: int, data: BlockData, fua: bool = False) -> None:
        raise BlockError(errno.ENOSPC, "the image")

    pair.image.write = broken  # type: ignore[method-assign]
    with pytest.raises(BlockError, match="image") as raised:
        pair.disk.write(0, block(1))
    assert raised.value.errno == errno.ENOSPC
    assert not any(pair.remote.bytes)
    assert not pair.errors
    assert pair.gate.statistics()["writes-under-way"] == 0


def test_a_copy_makes_the_disks_equal_while_the_guest_writes(threads: ThreadPoolExecutor) -> None:
    size = 4 * COPY_SIZE
    pair = Pair(size=size)
    chance = random.Random(4)
    pair.image.bytes[:] = bytes(size // 2) + chance.randbytes(size // 2)
    pair.remote.bytes[:] = chance.randbytes(size)
    pair.gate.open()
    stop = threading.Event()

    def guest(seed: int) -> None:
        draws = random.Random(seed)
        while not stop.is_set():
            offset = draws.randrange(size // 512 - 8) * 512
            pair.disk.write(offset, draws.randbytes(512 * draws.randrange(1, 8)))

    with ends(pair.gate):
        guests = [threads.submit(guest, seed) for seed in range(4)]
        pair.disk.copy(ClusterSet(size, filled=True), lambda: None)
        stop.set()
        for each in guests:
            each.result(WAIT)
    assert pair.disk.copied == size
    assert pair.image.bytes == pair.remote.bytes


def test_a_copy_ends_when_it_is_told(threads: ThreadPoolExecutor) -> None:
    pair = Pair(size=4 * COPY_SIZE)
    pair.gate.open()

    def goes_on() -> None:
        if pair.disk.copied:
            raise LocalError("enough")

    with pytest.raises(LocalError, match="enough"):
        pair.disk.copy(ClusterSet(4 * COPY_SIZE, filled=True), goes_on)
    assert pair.disk.copied == COPY_SIZE


def test_writes_that_overlap_have_the_same_order_on_both_sides(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair()
    pair.protect()
    for round_ in range(50):
        done = [
            threads.submit(pair.disk.write, 512 * (fill % 3), block(fill + round_, 2048))
            for fill in range(4)
        ]
        for each in done:
            each.result(WAIT)
        assert pair.image.bytes == pair.remote.bytes


def test_no_write_is_begun_while_a_discard_of_its_range_is_under_way(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair()
    pair.protect()
    pair.remote.may_go.clear()
    with ends(pair.gate):
        discard = threads.submit(pair.disk.discard, 0, 1024)
        assert pair.remote.arrived.acquire(timeout=WAIT)
        assert not pair.disk.begin_write(512, block(1), lambda error: None, threads.submit)
        pair.remote.may_go.set()
        discard.result(WAIT)


def test_ranges_are_held_in_the_order_of_arrival(threads: ThreadPoolExecutor) -> None:
    locks, order = RangeLocks(), []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with locks.hold(0, 1024):
            inside.set()
            assert leave.wait(WAIT)
            order.append("first")

    def second() -> None:
        with locks.hold(512, 1024):
            order.append("second")

    done = [threads.submit(first)]
    assert inside.wait(WAIT)
    done.append(threads.submit(second))
    with locks.hold(2048, 512):
        # It does not overlap.
        order.append("other")
    leave.set()
    for each in done:
        each.result(WAIT)
    assert order == ["other", "first", "second"]


def test_a_copy_of_zeros_takes_no_space(tmp_path: Path) -> None:
    size = 4 * COPY_SIZE
    pair = Pair(size=size)
    pair.image.write(3 * CLUSTER_SIZE, bytes([1]) * CLUSTER_SIZE)
    with FileImage(str(tmp_path / "replica"), size) as replica:
        replica.write(0, bytes([2]) * size)
        pair.disk.connect(replica)
        pair.disk.copy(ClusterSet(size, filled=True), lambda: None)
        assert replica.read(0, size) == pair.image.bytes
        assert replica.allocated <= COPY_SIZE
