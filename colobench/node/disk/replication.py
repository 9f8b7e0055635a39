"""Block replication: the guest's disks as participants of its checkpoints, on both sides.

`colobench.protocol.replication` has its life as tables, which are followed here. The primary's
disks forward what the guest writes (`forwarding.py`), the secondary's keep what a takeover has to
undo (`following.py`). In between is a connection for each disk with the protocol NBD.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from colobench.block.backend import BlockBackend
from colobench.block.clusters import CLUSTER_SIZE, ClusterSet
from colobench.block.generation import (
    Generation,
    ImageEvent,
    InvalidGeneration,
    differing,
    read_generation,
)
from colobench.block.layers import EXTENT_COST
from colobench.errors import ColobenchError, LocalError
from colobench.fields.checks import check_integer
from colobench.guest.interface import GuestDisk
from colobench.node.address import Address
from colobench.node.disk.faults import FaultRule
from colobench.node.disk.following import FollowingDisk
from colobench.node.disk.forward_gate import ForwardGate
from colobench.node.disk.forwarding import ForwardingBackend
from colobench.node.disk.generation_file import DiskImage
from colobench.node.disk.guest_disks import GuestDisks
from colobench.node.disk.layer_file import FileLayerBuffer, layers_path
from colobench.node.disk.nbd_client import NBDClient
from colobench.node.disk.nbd_server import NBDServer
from colobench.node.disk.planted_bugs import (
    cache_class,
    following_class,
    forwarding_class,
    layers_class,
)
from colobench.node.participants import CheckpointParticipant
from colobench.node.trigger import DISK, CheckpointCause
from colobench.protocol.colo import Role
from colobench.protocol.replication import (
    PRIMARY_REPLICATION,
    SECONDARY_REPLICATION,
    Replication,
    ReplicationAction,
    ReplicationEvent,
    ReplicationState,
)
from colobench.protocol.table import check_actions
from colobench.settings.bug import Bug

_DIGEST_BYTES: Final = 1 << 20
#: Longest time that a pause keeps the primary's writes waiting; their answers are due, too.
YIELD_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Ends:
    """Functions by which errors of the disks reach the node; any thread may call them.

    Attributes
    ----------
    colo
        Ends COLO with an error.
    process
        Ends the process, whose guest must never serve.
    """

    colo: Callable[[Exception], None]
    process: Callable[[BaseException], None]


@dataclass(frozen=True, slots=True)
class Peer:
    """Disks of a secondary, as its primary is told of them.

    Attributes
    ----------
    address
        Address of the server of its images.
    generation
        Generation that the images of both nodes begin when they are equal.
    known
        What is known of each of its images.
    """

    address: Address
    generation: str
    known: tuple[Generation | None, ...]

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Peer:
        """Read what `DiskReplication.serve` has told.

        Raises
        ------
        LocalError
            If it is anything else.
        """
        try:
            known = tuple(each and read_generation(each) for each in found["known"])
            return cls(Address.parse(found["uri"]), found["generation"], known)
        except (KeyError, TypeError, AttributeError, InvalidGeneration) as error:
            raise LocalError(f"disks of the secondary: {error!r}") from error


class DiskReplication(CheckpointParticipant):
    """All disks of a node's guest, and their replication; without disks it does nothing.

    Parameters
    ----------
    disks
        The guest's disks.
    limit
        Bytes that the layers of each of the secondary's disks may use. Half of them are for what
        the primary changes, on all disks together, so that the own guest's writes have room, too.
    ends
        Functions for errors.
    digests
        Whether checkpoints are verified.
    by_cluster
        Whether digests are lists, with one for each cluster, because writes that an earlier seal
        holds are under way whenever the primary's disks are digested.
    yields
        Whether the primary's writes that are under way wait on the secondary for the end of a
        pause, as nobody waits for them. Their work would make the pause longer.
    stall_timeout
        Seconds that the peer may be silent while an answer is due.
    directory
        Directory for the files of the layers, or None for layers in RAM.
    volatile_cache
        Whether the images are below a `VolatileCache`.
    bug
        Planted bug, see `colobench.node.disk.planted_bugs`.
    """

    def __init__(
        self,
        disks: Sequence[GuestDisk],
        limit: int,
        ends: Ends,
        *,
        digests: bool,
        by_cluster: bool,
        yields: bool,
        stall_timeout: float,
        directory: str | None = None,
        volatile_cache: bool = False,
        bug: Bug | None = None,
    ) -> None:
        self._host = GuestDisks(disks, ends.process)
        self._sizes = [each.size for each in disks]
        self._limit, self._ends, self._verifies = limit, ends, digests
        self._stall_timeout, self._bug = stall_timeout, bug
        self._yields, self._by_cluster = yields, by_cluster
        self._lock = threading.RLock()
        self._replication = Replication(Role.PRIMARY)
        self._gate = ForwardGate(limit // (2 * (CLUSTER_SIZE + EXTENT_COST)))
        self._gate.on_error = self._failed
        self._gate.on_wait = self._host.figures.waited
        self._gate.on_sleep = self._host.sleeps
        #: Bytes of the layers at the last commit: hidden, active, and the buffer in use.
        self._layer_bytes = [0, 0, 0]
        self._images: list[DiskImage] = []
        self._forwarding: list[ForwardingBackend] = []
        self._following: list[FollowingDisk] = []
        self._directory = directory
        self._cache = cache_class(bug) if volatile_cache else None
        self._buffers: list[FileLayerBuffer] = []
        self._remotes: list[NBDClient] = []
        self._server: NBDServer | None = None
        self._served_at: Address | None = None
        #: Generation that both images of the pair have.
        self._generation = ""
        #: Number of the last checkpoint, and of the one that was noted last.
        self._checkpoint = self._noted = 0
        #: Whether the guest stands still. Notes are made while it runs.
        self._stands = True
        self._error: Exception | None = None
        self._fenced = False
        self._digests: dict[str, Any] = {}
        self._actions: Mapping[ReplicationAction, Callable[[], None]] = {
            ReplicationAction.FORWARD_WRITES: self._gate.open,
            ReplicationAction.BEGIN_NO_WRITE: self._gate.stand,
            ReplicationAction.COUNT_CLUSTERS: self._gate.count,
            ReplicationAction.HOLD_WRITES: self._gate.hold,
            ReplicationAction.RELEASE_WRITES: self._gate.release,
            ReplicationAction.TELL_COLO: self._tell_colo,
            ReplicationAction.DISCONNECT: self._disconnect,
            ReplicationAction.WRITE_ALONE: self._gate.leave,
            ReplicationAction.SERVE: self._follow_images,
            ReplicationAction.START_LAYERS: self._start_layers,
            ReplicationAction.EMPTY_LAYERS: self.empty_layers,
            ReplicationAction.STOP_SERVING: self._stop_serving,
            ReplicationAction.MERGE_LAYERS: self._merge_layers,
            ReplicationAction.END_PROCESS: self._end_process,
        }
        check_actions(PRIMARY_REPLICATION, self._actions)
        check_actions(SECONDARY_REPLICATION, self._actions)

    # Steps of the node, besides those of a participant.

    def open(self, paths: Sequence[str]) -> None:
        """Give a guest that is alone its disks: images, in their order.

        Raises
        ------
        LocalError
            If one cannot be opened, has another size, or is not one that a guest can be started on.
        """
        self._open(paths)
        for image in self._images:
            image.on(ImageEvent.OPENED_BY_GUEST)
        self._forward_from_here()

    def serve(self, paths: Sequence[str], generation: str, at: Address) -> dict[str, Any]:
        """Serve images to a primary, which is about to make them equal to its own.

        Parameters
        ----------
        paths
            Paths of the images; missing ones are made.
        generation
            Generation that the images of both nodes begin when they are equal.
        at
            Address at which to serve.

        Returns
        -------
        dict
            What the primary is told, see `Peer`.

        Raises
        ------
        LocalError
            If an image cannot be opened or has another size, or the address cannot be had.
        """
        self._open(paths)
        self._generation = generation
        for image in self._images:
            image.on(ImageEvent.COPY_BEGINS)
        self._on(ReplicationEvent.START)
        listener, self._served_at = at.listen()
        exports = {_export(number): disk.primary for number, disk in enumerate(self._following)}
        self._server = NBDServer(exports, listener, stall_timeout=self._stall_timeout)
        self._server.start()
        known = [image.found.to_text() for image in self._images]
        return {"uri": str(self._served_at), "generation": generation, "known": known}

    def replicate(self, peer: Peer, goes_on: Callable[[], None]) -> None:
        """Copy what differs to a secondary, and forward to it what the guest writes from now on.

        Parameters
        ----------
        peer
            The secondary's disks.
        goes_on
            Function that is called now and then, and raises if the copy is to end.

        Raises
        ------
        ColobenchError
            If the secondary's disks are not of the same number and sizes, or a disk fails.
        """
        self._error = None
        self._generation = peer.generation
        for number, disk in enumerate(self._forwarding):
            remote = NBDClient(peer.address, _export(number), stall_timeout=self._stall_timeout)
            self._remotes.append(remote)
            if remote.size != disk.size:
                raise LocalError(
                    f"{_export(number)}: expected an image of {disk.size} bytes on the secondary, "
                    f"found {remote.size}"
                )
            disk.connect(remote)
        self._on(ReplicationEvent.START)

        def check() -> None:
            goes_on()
            if self._error is not None:
                raise LocalError(f"copy of the disks: {self._error}") from self._error

        for disk, image, known in zip(self._forwarding, self._images, peer.known, strict=True):
            disk.copy(_to_copy(image.generation, known), check)
            with disk.settled():
                image.on(ImageEvent.PAIRED, identifier=peer.generation)
        check()
        self._on(ReplicationEvent.COPIED)

    def abandon(self) -> None:
        """Give up a secondary that has not become one of a pair."""
        if self._images:
            self._on(ReplicationEvent.STOP)

    def progress(self) -> dict[str, int] | None:
        """Return the state of the copy as ``query-migrate`` has it, bytes; None without disks."""
        if not self._forwarding:
            return None
        total = sum(disk.to_copy for disk in self._forwarding)
        copied = sum(disk.copied for disk in self._forwarding)
        return {"total": total, "transferred": copied, "remaining": total - copied}

    def _open(self, paths: Sequence[str]) -> None:
        if len(paths) != len(self._sizes):
            raise LocalError(f"disks: expected {len(self._sizes)} images, found {len(paths)}")
        if self._images:
            raise LocalError("disks: expected none to be open, found them open")
        for path, size in zip(paths, self._sizes, strict=True):
            self._images.append(DiskImage(path, size, self._cache))

    # Methods of a `CheckpointParticipant`.

    def begin(self) -> None:
        """Begin to take the guest's requests."""
        self._host.begin()

    def lead(self, request_checkpoint: Callable[[CheckpointCause], None]) -> None:
        """Become the primary's disks."""
        if self._images:
            self._checkpoint = self._noted = 0
            self._gate.request_checkpoint = lambda: request_checkpoint(CheckpointCause(DISK))
            self._on(ReplicationEvent.LEAD)

    def follow(self) -> None:
        """Become the secondary's disks."""
        self._replication = Replication(Role.SECONDARY)

    def started(self) -> None:
        """Let writes begin again, and take requests: what the guest does not wait for."""
        self._gate.go()
        self._host.start()
        self._stands = False
        self._note_checkpoint()

    def rest(self) -> None:
        """Begin no request; those that the guest submits stay in its RAM."""
        self._host.rest()

    def rested(self) -> None:
        """Wait until both sides have done what has begun, but for what waits for a commit."""
        self._host.rested()

    def stop(self) -> None:
        """Take no requests; those that the guest has submitted stay in its RAM."""
        self._stands = True
        self._host.stop()

    def seal(self) -> None:
        """Divide the guest's writes: later ones are forwarded when this checkpoint is committed."""
        if self._images and not self._following:
            self._on(ReplicationEvent.SEAL)

    def commit(self) -> None:
        """Forward what the guest has written since the seal."""
        if self._images:
            self._on(ReplicationEvent.CHECKPOINT)
            self._checkpoint += 1
            if not self._stands:
                self._note_checkpoint()

    def arriving(self) -> None:
        """Let the primary's writes wait, for a short time at most."""
        if self._yields:
            for disk in self._following:
                disk.wait_until(time.monotonic() + YIELD_SECONDS)

    def arrived(self) -> None:
        """Let the primary's writes go on."""
        for disk in self._following:
            disk.wait_until(0.0)

    def received(self) -> None:
        """Empty the layers: the images are the checkpoint's."""
        if self._images:
            sizes = [disk.sizes() for disk in self._following]
            self._layer_bytes = [sum(each) for each in zip(*sizes, strict=True)]
            self._on(ReplicationEvent.CHECKPOINT)
            self._checkpoint += 1
            self._note_checkpoint()
            if self._verifies:
                self._digests = self._digest()

    def empty_layers(self) -> None:
        """Empty the layers, and nothing else."""
        for disk in self._following:
            disk.empty_layers()

    def loaded(self) -> None:
        """Let the guest's requests be those of the loaded state."""
        self._host.loaded()
        if self._images:
            self._on(ReplicationEvent.LOADED)
            for number, disk in enumerate(self._following):
                self._host.set_backend(number, disk.guest())

    def digests(self) -> Mapping[str, Any]:
        """Digest the disks, see `CheckpointParticipant.digests`."""
        if self._following:
            return self._digests
        if self._replication.state is not ReplicationState.NONE:
            self._gate.drain()
        else:
            self._host.drain()
        return self._digest()

    def statistics(self) -> Mapping[str, Any]:
        """Return figures of the last checkpoint, see `CheckpointParticipant.statistics`."""
        if not self._images:
            return {}
        if not self._following:
            return self._host.figures.take()
        hidden, active, in_use = self._layer_bytes
        return {
            "disk-hidden-bytes": hidden,
            "disk-active-bytes": active,
            "disk-buffer-bytes": in_use,
        }

    def set_faults(self, disk: int, rules: Sequence[Any]) -> None:
        """Let requests to an image of this side meet rules from now on; any thread may call it.

        Parameters
        ----------
        disk
            Number of the disk.
        rules
            Objects as of `FaultRule.from_json`; none for no faults.

        Raises
        ------
        LocalError
            If there is no such disk, or a rule is none.
        """
        check_integer("disk", disk, 0, len(self._images) - 1)
        self._images[disk].set_faults([FaultRule.from_json(rule) for rule in rules])

    def describe(self, ranges: bool = False) -> list[dict[str, Any]]:
        """Describe each disk, as ``x-query-disks`` does; any thread may call it.

        Parameters
        ----------
        ranges
            Whether ranges of the layers are given, too, as lists of offset and length.
        """
        return [self._describe(number, image, ranges) for number, image in enumerate(self._images)]

    def _describe(self, number: int, image: DiskImage, ranges: bool) -> dict[str, Any]:
        following = self._following[number : number + 1]
        hidden, active, in_use = following[0].sizes() if following else (0, 0, 0)
        changed = self._gate.changed(number)
        found: dict[str, Any] = {
            "disk": number,
            "image": image.file.path,
            "size": image.size,
            "state": image.generation.state.value,
            "changed-bytes": len(changed) * CLUSTER_SIZE,
            "hidden-bytes": hidden,
            "active-bytes": active,
            "buffer-bytes": in_use,
            "buffer-limit": self._limit,
        }
        if ranges:
            of_hidden, of_active = following[0].ranges() if following else ([], [])
            found |= {
                "changed": [[each * CLUSTER_SIZE, CLUSTER_SIZE] for each in changed],
                "hidden": [list(each) for each in of_hidden],
                "active": [list(each) for each in of_active],
            }
        return found

    def cut_off(self) -> None:
        """End the primary's connections, so that the COLO thread does not wait for a write."""
        self._disconnect()
        self._gate.fail()

    def take_over(self) -> None:
        """Go on alone: a primary without its secondary, a secondary with what its guest has."""
        if not self._images:
            return
        self._on(ReplicationEvent.STOP)
        if self._replication.state is ReplicationState.FAILED:
            raise LocalError(f"disks: expected them to follow, found {self._error}")
        # All are merged: from here on, none may be undone alone.
        self._close_buffers(remove=True)
        event = ImageEvent.TAKEN_OVER if self._following else ImageEvent.LEFT_ALONE
        for disk, image in zip(self._forwarding, self._images, strict=True):
            with disk.settled():
                image.on(event)
        if self._following:
            self._following = []
            self._replication = Replication(Role.PRIMARY)
            # It waits for threads that may wait for the lock, so it comes last.
            self._close_server()

    def fence(self) -> None:
        """Leave the images as after a kill: another node's are current."""
        self._fenced = True

    def close(self) -> None:
        """End the connections and threads, and mark the images as of one moment, if they are."""
        self._gate.close()
        self._disconnect()
        self._stop_serving()
        self._close_server()
        self._host.close()
        # Those of images that still follow can be undone with them.
        self._close_buffers(remove=False)
        for image in self._images:
            if not self._following and not self._fenced:
                with suppress(ColobenchError):
                    image.flush()
                    image.on(ImageEvent.CLEAN_END)
            image.close()

    def _close_buffers(self, *, remove: bool) -> None:
        buffers, self._buffers = self._buffers, []
        for buffer in buffers:
            # One that stays is of no use, and does no harm.
            with suppress(ColobenchError):
                buffer.close(remove=remove)

    def _close_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        if self._served_at is not None:
            self._served_at.remove()

    def _note_checkpoint(self) -> None:
        """Note the last committed checkpoint beside the images, unless that has been done."""
        if self._noted != self._checkpoint:
            self._noted = self._checkpoint
            for image in self._images:
                image.on(ImageEvent.COMMIT, checkpoint=self._checkpoint)

    def _on(self, event: ReplicationEvent) -> None:
        with self._lock:
            for action in self._replication.on(event):
                self._actions[action]()

    def _failed(self, error: Exception) -> None:
        """Take note of an error of the secondary's disks, or of the connection; any thread."""
        with self._lock:
            self._error = self._error or error
            self._on(ReplicationEvent.ERROR)

    # Actions of the tables.

    def _tell_colo(self) -> None:
        assert self._error is not None
        self._gate.fail()
        self._ends.colo(self._error)

    def _disconnect(self) -> None:
        remotes, self._remotes = self._remotes, []
        for remote in remotes:
            remote.close()

    def _follow_images(self) -> None:
        kind = following_class(self._bug)
        self._following = [
            kind(each, self._limit, self._failed, each.is_prompt) for each in self._images
        ]

    def _start_layers(self) -> None:
        self._checkpoint = self._noted = 0
        for disk, image in zip(self._following, self._images, strict=True):
            disk.start_layers(self._buffer(image), layers_class(self._bug))
            image.on(ImageEvent.PAIRED, identifier=self._generation)

    def _buffer(self, image: DiskImage) -> FileLayerBuffer | None:
        if self._directory is None:
            return None
        path = layers_path(self._directory, image.file.path)
        self._buffers.append(FileLayerBuffer(path, self._limit, self._generation))
        return self._buffers[-1]

    def _stop_serving(self) -> None:
        for disk in self._following:
            disk.stop()

    def _merge_layers(self) -> None:
        following = self._following
        self._forward_from_here()
        for disk, image, successor in zip(following, self._images, self._forwarding, strict=True):
            # If this process is killed in the middle of it, another pair copies these clusters.
            image.note(disk.clusters_to_merge())
            disk.merge(successor)

    def _end_process(self) -> None:
        assert self._error is not None
        self._ends.process(self._error)

    def _forward_from_here(self) -> None:
        kind = forwarding_class(self._bug)
        self._forwarding = [
            kind(number, image, self._gate, self._host.figures.replicated, image.is_prompt)
            for number, image in enumerate(self._images)
        ]
        for number, disk in enumerate(self._forwarding):
            self._host.set_backend(number, disk)

    def _digest(self) -> dict[str, Any]:
        if not self._by_cluster:
            return {_export(number): digest(image) for number, image in enumerate(self._images)}
        return {
            _export(number): digest_clusters(image, self._gate.held(number))
            for number, image in enumerate(self._images)
        }


def _export(number: int) -> str:
    return f"disk{number}"


def _to_copy(own: Generation, known: Generation | None) -> ClusterSet:
    """Return the clusters in which the secondary's image may differ from ours."""
    if known is None:
        return ClusterSet(own.size, filled=True)
    return differing(own, known)


def digest_clusters(disk: BlockBackend, without: Sequence[int]) -> list[str | None]:
    """Digest each cluster of a disk; None for those that have writes under way.

    Such a write is in the saved state of its guest, which does it again, so the other side's disk
    may have it or not.
    """
    skipped = frozenset(without)
    return [
        None
        if number in skipped
        else hashlib.blake2b(
            disk.read(offset, min(CLUSTER_SIZE, disk.size - offset)), digest_size=8
        ).hexdigest()
        for number, offset in enumerate(range(0, disk.size, CLUSTER_SIZE))
    ]


def digest(disk: BlockBackend) -> str:
    """Digest a disk's bytes, 64 bits."""
    found = hashlib.blake2b(digest_size=8)
    for offset in range(0, disk.size, _DIGEST_BYTES):
        found.update(disk.read(offset, min(_DIGEST_BYTES, disk.size - offset)))
    return found.hexdigest()
