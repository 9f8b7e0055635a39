"""Guest's network in a node: the path of frames between the NIC, the filters and the links.

::

     switch ──link──► rewriter ─► mirror ─► NIC ─► guest                 primary
     switch ◄──link── rewriter ◄─ filter-buffer or colo-compare ◄─ NIC
                                     ▲      mirror connection
     primary ──────► rewriter ─► NIC ─► guest                            secondary, if it runs
     primary ◄────── rewriter ◄─ NIC

One thread does all of it, and blocks only in select(). As a participant of checkpoints, the network
is told by the COLO thread when the guest stops and starts, when a checkpoint is loaded, and when
held output may go.

A frame goes to the secondary when it goes into the primary's NIC. Each end marks its stream where
its guest stands still for a checkpoint; `colobench.net.mirror` says why.
"""

from __future__ import annotations

import enum
import os
import selectors
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from colobench.errors import LocalError
from colobench.guest.frame_queue import NIC_QUEUE_LENGTH
from colobench.guest.interface import GuestNetwork
from colobench.net import frame as frames
from colobench.net.mirror import MARK
from colobench.net.outcome import CompareCause, Miscompare, Outcome
from colobench.net.output_filters import make_output_filter
from colobench.net.receive_queue import ReceiveQueue
from colobench.net.rewriter import Rewritten
from colobench.net.rewriter_device import RewriterDevice
from colobench.net.rewriting import Rewriting
from colobench.node.frame_socket import FrameSocket
from colobench.node.network_link import NetworkLink
from colobench.node.participants import CheckpointParticipant
from colobench.node.trigger import OUTPUT, CheckpointCause
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import Output
from colobench.settings.compare import CompareSettings

#: Frames that may wait for the guest; as many again may wait in the link.
BACKLOG_LIMIT = 1024
#: The same for frames that the primary mirrors: many arrive while a checkpoint is loaded.
MIRRORED_LIMIT = 16384
#: Interval of the search for output that has waited too long, seconds.
_SCAN_SECONDS = 0.1


class NetworkRole(enum.Enum):
    """Role of a node's guest in the network."""

    #: The only guest: its frames pass.
    ALONE = enum.auto()
    #: One of two guests, whose output is held.
    PRIMARY = enum.auto()
    #: The other guest, whose output goes to the primary only.
    SECONDARY = enum.auto()


class Network(CheckpointParticipant):
    """Path of frames between a guest's NIC and the outside.

    Parameters
    ----------
    nic
        Guest's NIC.
    output
        Filter that holds a primary's output.
    compare
        Settings of a comparison of output.
    on_failure
        Function that is called if the network's thread cannot go on.
    bug
        Planted bug.

    Attributes
    ----------
    released
        Number of frames that checkpoints have released so far.
    """

    def __init__(
        self,
        nic: GuestNetwork,
        output: Output,
        compare: CompareSettings,
        on_failure: Callable[[BaseException], None],
        bug: Bug | None = None,
    ) -> None:
        self._nic = nic
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._role = NetworkRole.ALONE
        self._accepting = False
        self._output, self._compare, self._bug = output, compare, bug
        self._filter = make_output_filter(output, compare, bug)
        self._rewriting = Rewriting()
        self._queue = ReceiveQueue(self._rewriting.to_guest)
        self._discarded = self._passed = self.released = 0
        self._request_checkpoint: Callable[[CheckpointCause], None] = lambda cause: None
        #: Whether held output is that of a checkpoint: the first seal ends live migration.
        self._seals = False
        self._selector = selectors.DefaultSelector()
        self._link = NetworkLink(
            self._selector, self._from_link, lambda: len(self._queue) >= BACKLOG_LIMIT
        )
        self._mirror = NetworkLink(self._selector, self._from_mirror, self._is_mirror_full)
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._nic.kick_fd, selectors.EVENT_READ, self._kicked)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._woken)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)

    # Links, and requests of the monitor.

    def attach_link(self, link: FrameSocket) -> None:
        """Attach a link to the switch; an earlier one ends."""
        with self._lock:
            self._link.attach(link)
            if self._role is not NetworkRole.SECONDARY:
                self._announce()
        self._wake()

    def attach_mirror(self, mirror: FrameSocket) -> None:
        """Attach the connection to the other node's network."""
        with self._lock:
            self._mirror.attach(mirror)
            self._queue.open_gate()
        self._wake()

    def receive(self, frame: bytes) -> bool:
        """Give the guest a frame like one from a link; return False if too many wait."""
        if not frames.FRAME_MIN <= len(frame) <= frames.FRAME_MAX:
            raise LocalError(
                f"Ethernet frame: expected {frames.FRAME_MIN} to {frames.FRAME_MAX} bytes, "
                f"found {len(frame)}"
            )
        if frame == MARK:
            raise LocalError("Ethernet frame: expected none that marks a checkpoint, found one")
        with self._lock:
            if len(self._queue) >= BACKLOG_LIMIT:
                return False
            self._queue.inject((frame,))
            self._refill()
            self._flush()
            return True

    def statistics(self) -> dict[str, Any]:
        """Return the counters that a monitor shows."""
        with self._lock:
            counters = self._filter.counters()
            return {
                "frames-sent": self._passed,
                "frames-held": counters["held"],
                "frames-discarded": self._discarded,
                "frames-refused": self._queue.refused,
                "frames-waiting": len(self._queue),
                "compare": counters,
            }

    def waiting_frames(self) -> int:
        """Count the held frames of the guest's output that no sealed checkpoint covers."""
        with self._lock:
            return self._filter.unsealed()

    # Methods of a `CheckpointParticipant`.

    def devices(self) -> Sequence[RewriterDevice]:
        """Return the part of the network's state that travels with checkpoints."""
        if self._output is not Output.COMPARE:
            return ()
        return (RewriterDevice(self._rewrites, self._take_rewrites),)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and the links."""
        self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        self._link.detach()
        self._mirror.detach()
        self._selector.close()
        os.close(self._wake_fd)

    def lead(self, request_checkpoint: Callable[[CheckpointCause], None]) -> None:
        """Become a primary's network: hold output until a checkpoint covers it, or it is compared.

        Parameters
        ----------
        request_checkpoint
            Function that is called in the network's thread when colo-compare requests a checkpoint,
            and when output begins to wait that no sealed checkpoint covers.
        """
        with self._lock:
            self._role = NetworkRole.PRIMARY
            self._request_checkpoint = request_checkpoint
            self._filter = make_output_filter(self._output, self._compare, self._bug)
            self._seals = False

    def follow(self) -> None:
        """Become a secondary's network: output of this guest does not leave."""
        with self._lock:
            self._role = NetworkRole.SECONDARY
            if self._output is Output.COMPARE:
                self._rewriting.follow()

    def start(self) -> None:
        """Give the guest, which is about to run, the frames that arrived meanwhile."""
        with self._lock:
            self._accepting = True
            self._refill()
            self._flush()

    def stop(self) -> None:
        """Take the frames that the guest sent before it stopped."""
        with self._lock:
            self._accepting = False
            self._drain()
            self._flush()

    def seal(self) -> None:
        """Mark the end of the epoch in held output, and in the stream to the peer's network."""
        with self._lock:
            if self._seals:
                self._filter.seal()
            self._seals = self._role is NetworkRole.PRIMARY
            self._mirror.send(MARK, always=True)
            self._mirror.flush()

    def commit(self) -> None:
        """Release the output that the committed checkpoint covers."""
        with self._lock:
            released = self._filter.checkpoint()
            self.released += len(released)
            self._let_out(released)
            self._flush()

    def loaded(self) -> None:
        """Drop mirrored frames from before the loaded checkpoint, which includes them."""
        with self._lock:
            # The mirror may have ended with the primary; its frames count nevertheless.
            self._rewriting.checkpoint()
            self._queue.loaded()

    def alone(self) -> None:
        """Announce the guest to the switch, and let all output pass."""
        with self._lock:
            was, self._role = self._role, NetworkRole.ALONE
            self._mirror.detach()
            self._queue.failover()
            if was is NetworkRole.PRIMARY:
                self._let_out(self._filter.failover())
            else:
                self._rewriting.failover()
            self._announce()
            self._flush()

    def fence(self) -> None:
        """Release no output any more: another node is the guest."""
        with self._lock:
            self._role = NetworkRole.SECONDARY
            self._link.detach()
            self._mirror.detach()

    def _rewrites(self) -> list[Rewritten]:
        with self._lock:
            if self._role is NetworkRole.SECONDARY:
                # As on the primary, so that the compared output is equal.
                return self._rewriting.primarys()
            return self._rewriting.state()

    def _take_rewrites(self, rewrites: list[Rewritten]) -> None:
        with self._lock:
            self._rewriting.take_primarys(rewrites)

    # Network's thread.

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            # A guest without a network is worse than a dead one: end the process, so that the peer
            # takes over.
            traceback.print_exc()
            self._on_failure(error)

    def _serve(self) -> None:
        next_scan = time.monotonic() + _SCAN_SECONDS
        while not self._closing:
            ready = self._selector.select(_SCAN_SECONDS)
            with self._lock:
                for key, _ in ready:
                    key.data()
                if time.monotonic() >= next_scan:
                    next_scan = time.monotonic() + _SCAN_SECONDS
                    self._scan()
                self._flush()

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _woken(self) -> None:
        os.eventfd_read(self._wake_fd)

    def _kicked(self) -> None:
        os.eventfd_read(self._nic.kick_fd)
        self._drain()

    def _flush(self) -> None:
        self._link.flush()
        self._mirror.flush()

    def _is_mirror_full(self) -> bool:
        if self._role is NetworkRole.SECONDARY:
            return self._queue.all >= MIRRORED_LIMIT
        # Output of the secondary's guest is compared at once, unless it is of a later epoch.
        return self._filter.early() >= MIRRORED_LIMIT

    # Frames from outside.

    def _from_link(self, arrived: list[bytes]) -> None:
        if self._role is not NetworkRole.SECONDARY:
            self._queue.arrived(arrived)
            self._refill()

    def _from_mirror(self, arrived: list[bytes]) -> None:
        if self._role is NetworkRole.SECONDARY:
            self._queue.mirrored(arrived)
            self._refill()
        elif self._role is NetworkRole.PRIMARY:
            now = time.monotonic()
            for frame in arrived:
                self._filtered(self._filter.secondary(frame, now))

    def _refill(self) -> None:
        """Put waiting frames into the NIC, as far as there is room, and mirror these."""
        if not self._accepting:
            return
        taken = self._queue.take(self._nic.put)
        if self._role is NetworkRole.PRIMARY:
            for frame in taken:
                self._mirror.send(frame)
        if taken:
            self._nic.wake()

    # Frames of the guest.

    def _drain(self) -> None:
        """Take the frames that the guest has sent."""
        sent = self._nic.take_all()
        for frame in sent:
            self._transmitted(frame)
        if len(sent) == NIC_QUEUE_LENGTH:
            # The guest may have waited for room.
            self._nic.wake()
        self._refill()

    def _transmitted(self, frame: bytes) -> None:
        if self._role is NetworkRole.ALONE:
            self._let_out([frame])
        elif self._role is NetworkRole.PRIMARY:
            waited = self._filter.unsealed()
            self._filtered(self._filter.primary(frame, time.monotonic()))
            if not waited and self._filter.unsealed():
                self._request_checkpoint(CheckpointCause(OUTPUT))
        elif self._output is Output.COMPARE and frame != MARK:
            for each in self._from_guest(frame):
                self._mirror.send(each)
        else:
            self._discarded += 1

    def _scan(self) -> None:
        if self._role is NetworkRole.PRIMARY:
            self._filtered(self._filter.scan(time.monotonic()))

    def _filtered(self, outcome: Outcome) -> None:
        self._let_out(outcome.frames)
        if outcome.cause is not None:
            self._request_checkpoint(_checkpoint_cause(outcome.cause))

    def _let_out(self, released: Sequence[bytes]) -> None:
        self._passed += len(released)
        if self._link.attached:
            for frame in released:
                for each in self._from_guest(frame):
                    self._link.send(each)

    def _from_guest(self, frame: bytes) -> Sequence[bytes]:
        outward, inward = self._rewriting.from_guest(frame)
        self._queue.inject(inward)
        return outward

    def _announce(self) -> None:
        """Announce the guest to the switch by a gratuitous ARP, as QEMU's announce-self does."""
        itself = (frames.GUEST_MAC, frames.GUEST_IP)
        message = frames.ARP(frames.ARP_REQUEST, *itself, bytes(6), frames.GUEST_IP)
        self._link.send(frames.build_arp(frames.BROADCAST, message))


def _checkpoint_cause(cause: CompareCause) -> CheckpointCause:
    offset = cause.offset if isinstance(cause, Miscompare) else None
    return CheckpointCause(type(cause).__name__.lower(), str(cause.connection), offset)
