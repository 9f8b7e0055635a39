"""The secondary's layers: its guest never sees what is not committed, and it can be undone."""

from __future__ import annotations

import errno

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from colobench.block.backend import BlockError
from colobench.block.clusters import CLUSTER_SIZE
from colobench.block.layers import EXTENT_COST, LayersFull, MemoryLayerBuffer, SecondaryLayers
from colobench.block.request import SECTOR_SIZE, BlockRequest, RequestKind
from colobench.node.disk.faults import FaultRule, FaultyBackend
from memory_disk import MemoryDisk
from share import amount

CLUSTER_SECTORS = CLUSTER_SIZE // SECTOR_SIZE
#: Three clusters and a bit.
SECTORS = 3 * CLUSTER_SECTORS + 5
SIZE = SECTORS * SECTOR_SIZE
ROOM = 1 << 20

changes = st.sampled_from((RequestKind.WRITE, RequestKind.WRITE_ZEROES, RequestKind.DISCARD))
edges = st.sampled_from([0, CLUSTER_SECTORS, 2 * CLUSTER_SECTORS, 3 * CLUSTER_SECTORS, SECTORS])
#: Ranges in sectors, most of them around the edges of clusters.
ranges = st.tuples(st.one_of(edges, st.integers(0, SECTORS)), st.integers(-3, 3)).flatmap(
    lambda begin: st.tuples(
        st.just(max(0, min(sum(begin), SECTORS - 1))),
        st.one_of(st.integers(1, 6), st.integers(1, SECTORS)),
    ).map(lambda pair: (pair[0], min(pair[1], SECTORS - pair[0])))
)


class NaiveLayers:
    """The twin: three lists of sectors."""

    def __init__(self, base: list[bytes]) -> None:
        self.base, self.committed = list(base), list(base)
        self.active: dict[int, bytes] = {}

    def guest(self) -> list[bytes]:
        return [self.active.get(number, old) for number, old in enumerate(self.committed)]


def sectors_of(contents: bytes) -> list[bytes]:
    return [contents[at : at + SECTOR_SIZE] for at in range(0, len(contents), SECTOR_SIZE)]


class LayersUnderAnything(RuleBasedStateMachine):
    """Both guests write, checkpoints come, disks fail, nodes die, in any order."""

    @initialize()
    def begin(self) -> None:
        self.disk = MemoryDisk(b"".join(b"b%07d" % n * 64 for n in range(SECTORS)))
        self.base = FaultyBackend(self.disk)
        self.writes = 0
        self.pair()

    def pair(self) -> None:
        self.layers = SecondaryLayers(self.base, MemoryLayerBuffer(ROOM))
        self.naive = NaiveLayers(sectors_of(bytes(self.disk.bytes)))

    def change(self, kind: RequestKind, place: tuple[int, int]) -> tuple[BlockRequest, list[bytes]]:
        """Make a request whose sectors say which write they are from."""
        begin, count = place
        self.writes += 1
        new = [b"%08d" % (self.writes * 1000 + n) * 64 for n in range(count)]
        if kind is not RequestKind.WRITE:
            return BlockRequest(kind, begin * SECTOR_SIZE, count * SECTOR_SIZE), [
                bytes(512)
            ] * count
        return BlockRequest(kind, begin * SECTOR_SIZE, count * SECTOR_SIZE, b"".join(new)), new

    @rule(kind=changes, place=ranges)
    def forwarded(self, kind, place):
        request, new = self.change(kind, place)
        request.perform(self.layers.forwarded)
        self.naive.base[place[0] : sum(place)] = new

    @rule(kind=changes, place=ranges)
    def guests(self, kind, place):
        request, new = self.change(kind, place)
        request.perform(self.layers.guest)
        self.naive.active.update(zip(range(place[0], sum(place)), new, strict=True))

    @rule(place=ranges)
    def reads(self, place):
        offset, length = place[0] * SECTOR_SIZE, place[1] * SECTOR_SIZE
        expected = b"".join(self.naive.guest()[place[0] : sum(place)])
        assert self.layers.guest.read(offset, length) == expected
        assert self.layers.forwarded.read(offset, length) == bytes(
            self.disk.bytes[offset : offset + length]
        )

    @rule(kind=changes, place=ranges, fails=st.sampled_from((RequestKind.READ, *RequestKind)))
    def forwarded_to_a_disk_that_fails(self, kind, place, fails):
        """The primary is told; the secondary's guest notices nothing, and an undo is complete."""
        request, _ = self.change(kind, place)
        self.base.set_rules([FaultRule(frozenset({fails}), torn=True)])
        met = self.base.met
        try:
            request.perform(self.layers.forwarded)
        except BlockError as error:
            found = error.errno
        else:
            found = 0
        assert found == (errno.EIO if self.base.met > met else 0)
        self.base.set_rules([])
        self.naive.base = sectors_of(bytes(self.disk.bytes))

    @rule()
    def checkpoint(self):
        self.layers.checkpoint()
        self.naive = NaiveLayers(self.naive.base)
        assert self.layers.in_use == 0

    @precondition(lambda self: self.layers.in_use)
    @rule()
    def merge_that_fails_can_be_repeated(self):
        kinds = frozenset(RequestKind)
        self.base.set_rules([FaultRule(kinds, SIZE // 2, SIZE, torn=True)])
        before = self.layers.in_use
        with pytest.raises(BlockError):
            self.layers.merge()
        self.base.set_rules([])
        assert self.layers.in_use == before
        self.primary_dies()

    @rule()
    def primary_dies(self):
        expected = b"".join(self.naive.guest())
        flushes, before, written = self.disk.flushes, bytes(self.disk.bytes), self.layers.clusters()
        self.layers.merge()
        for cluster in range(0, SIZE, CLUSTER_SIZE):
            if not written.meets(cluster, 1):
                end = cluster + CLUSTER_SIZE
                assert self.disk.bytes[cluster:end] == before[cluster:end]
        assert self.disk.bytes == expected
        assert self.disk.flushes > flushes
        self.pair()

    @invariant()
    def secondarys_guest_sees_its_checkpoint_and_its_own_writes(self):
        assert self.layers.guest.read(0, SIZE) == b"".join(self.naive.guest())
        assert self.disk.bytes == b"".join(self.naive.base)


TestLayersUnderAnything = LayersUnderAnything.TestCase
TestLayersUnderAnything.settings = settings(
    deadline=None, max_examples=amount(40, 1000), stateful_step_count=amount(25, 50)
)


def paired(limit: int = ROOM, size: int = SIZE) -> tuple[MemoryDisk, SecondaryLayers]:
    disk = MemoryDisk(b"o" * size)
    return disk, SecondaryLayers(disk, MemoryLayerBuffer(limit))


def test_the_first_write_of_a_cluster_keeps_its_old_bytes_and_the_second_changes_nothing():
    disk, layers = paired()
    layers.forwarded.write(512, b"1" * 512)
    assert layers.in_use == CLUSTER_SIZE + EXTENT_COST
    layers.forwarded.write(512, b"2" * 512)
    assert layers.in_use == CLUSTER_SIZE + EXTENT_COST
    assert layers.guest.read(512, 512) == b"o" * 512
    layers.merge()
    assert disk.bytes == b"o" * SIZE


def test_a_write_for_which_the_layers_have_no_room_changes_nothing_and_fits_after_a_checkpoint():
    limit = 2 * CLUSTER_SIZE + 2 * EXTENT_COST
    disk, layers = paired(limit)
    layers.forwarded.write(0, b"1" * 512)
    before = bytes(disk.bytes)
    with pytest.raises(LayersFull, match=rf"expected at most {limit} bytes .* found"):
        layers.forwarded.write(CLUSTER_SIZE, b"2" * (CLUSTER_SIZE + 512))
    assert (disk.bytes, layers.in_use) == (before, CLUSTER_SIZE + EXTENT_COST)
    with pytest.raises(LayersFull):
        layers.guest.write(0, b"3" * (CLUSTER_SIZE + 512))
    assert layers.guest.read(0, SIZE) == b"o" * SIZE
    # A cluster that is kept already needs no room.
    layers.forwarded.write(0, b"4" * CLUSTER_SIZE)
    layers.checkpoint()
    layers.forwarded.write(CLUSTER_SIZE, b"2" * (CLUSTER_SIZE + 512))


def test_the_guests_writes_leave_half_of_the_buffer_to_the_primarys():
    """The primary asks for a checkpoint before its half is full, and knows of no other half."""
    clusters = 4
    size = 4 * clusters * CLUSTER_SIZE
    _, layers = paired(2 * clusters * (CLUSTER_SIZE + EXTENT_COST), size)

    def fill(change, begin):
        for sector in range(begin, size, 1024):
            change(sector)

    with pytest.raises(LayersFull, match="of its own guest"):
        fill(lambda sector: layers.guest.write(sector, b"g" * 512), 0)
    with pytest.raises(LayersFull, match="of its own guest"):
        fill(lambda sector: layers.guest.discard(sector, 512), 512)
    for cluster in range(clusters):
        layers.forwarded.write(2 * cluster * CLUSTER_SIZE, b"p" * 512)
    layers.checkpoint()
    layers.guest.write(size - 512, b"g" * 512)


def test_sectors_that_the_guest_writes_again_and_again_need_room_once():
    _, layers = paired()
    for number in range(100):
        layers.guest.write(1024, bytes([number]) * 2048)
        layers.guest.discard(1024, 512)
        layers.guest.write(1536, bytes([number]) * 512)
    assert layers.in_use == 2048 + EXTENT_COST


def test_a_torn_checkpoint_is_undone_whole():
    """A failover undoes all since the commit, also what came after the cut of a checkpoint."""
    disk, layers = paired()
    layers.forwarded.write(0, b"1" * 1024)
    layers.checkpoint()
    layers.forwarded.write(512, b"2" * 1024)
    # The checkpoint is cut here and never committed: nothing tells the layers of it.
    layers.forwarded.write(0, b"3" * 4096)
    layers.merge()
    assert disk.bytes == b"1" * 1024 + b"o" * (SIZE - 1024)
    assert layers.checkpoints == 1


def test_what_the_guest_has_written_wins_over_what_is_undone():
    disk, layers = paired()
    layers.guest.write(512, b"g" * 512)
    layers.forwarded.write(0, b"p" * CLUSTER_SIZE)
    layers.merge()
    assert disk.bytes == b"o" * 512 + b"g" * 512 + b"o" * (SIZE - 1024)


def test_force_unit_access_and_flushes_of_the_primary_reach_the_image():
    disk, layers = paired()
    layers.forwarded.write(0, b"1" * 512, fua=True)
    layers.forwarded.flush()
    assert disk.flushes == 2
    layers.guest.write(0, b"1" * 512, fua=True)
    layers.guest.flush()
    assert disk.flushes == 2


def test_large_requests_of_many_sectors_are_whole():
    size = 80 << 20
    disk, layers = paired(limit=size, size=size)
    data = bytes(range(256)) * (32 << 12)
    layers.forwarded.write(4096, data)
    layers.guest.write(1 << 20, data[: 1 << 20])
    assert layers.guest.read(4096, 4096) == b"o" * 4096
    assert layers.guest.read(1 << 20, 1 << 20) == data[: 1 << 20]
    layers.merge()
    assert disk.bytes[: 1 << 20] == b"o" * (1 << 20)
    assert disk.bytes[1 << 20 : 2 << 20] == data[: 1 << 20]
    assert disk.bytes[2 << 20 :] == b"o" * (size - (2 << 20))
