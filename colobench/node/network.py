"""The guest's network in a node: its frames' way between the NIC, the filters and the links.

::

     switch ──link──► rewriter ─► mirror ─► NIC ─► guest                 primary
     switch ◄──link── rewriter ◄─ filter-buffer or colo-compare ◄─ NIC
                                     ▲      mirror connection
     primary ──────► rewriter ─► NIC ─► guest                            secondary, if it runs
     primary ◄────── rewriter ◄─ NIC

One thread does all of it and never waits but for descriptors. The COLO thread tells it when the
guest stops and starts, when a checkpoint is loaded, and when held output may go.

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
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from colobench.errors import ColobenchError, LocalError
from colobench.guest.devices import NIC_QUEUE_LENGTH
from colobench.guest.machine import Machine
from colobench.net import frame as frames
from colobench.net.buffer import FilterBuffer
from colobench.net.compare import ColoCompare
from colobench.net.compare_settings import CompareSettings
from colobench.net.mirror import MARK, EpochGate
from colobench.net.outcome import CompareCause, Miscompare, Outcome
from colobench.net.output import Output
from colobench.net.rewriter import FilterRewriter, Rewritten
from colobench.net.rewriter_device import RewriterDevice
from colobench.node.frame_socket import FrameSocket, LinkDown
from colobench.node.participants import CheckpointParticipant
from colobench.node.trigger import CheckpointCause

#: Frames that may wait for the guest to take them; as many again are let wait in the link.
BACKLOG_LIMIT = 1024
#: The same for frames that the primary mirrors: many come while a checkpoint is loaded.
MIRRORED_LIMIT = 16384
#: Seconds between two looks for output that waits too long.
_SCAN_SECONDS = 0.1


class NetworkRole(enum.Enum):
    """What a node's guest is to the outside."""

    #: It alone is the guest: its frames pass.
    ALONE = enum.auto()
    #: Its output is held.
    PRIMARY = enum.auto()
    #: Nobody outside hears of it.
    SECONDARY = enum.auto()


class Network(CheckpointParticipant):
    """The frames' way between a machine's NIC and the outside.

    Parameters
    ----------
    machine
        Whose NIC it is.
    output
        What holds the output of a primary.
    compare
        How output is compared, if it is.
    on_failure
        Called if the network's thread cannot go on.

    Attributes
    ----------
    released
        Frames that checkpoints have let out so far.
    """

    def __init__(
        self,
        machine: Machine,
        output: Output,
        compare: CompareSettings,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._machine = machine
        self._on_failure = on_failure
        self._nic = machine.nic.queues
        self._output = output
        self._lock = threading.Lock()
        self.released = 0
        self._role = NetworkRole.ALONE
        self._accepting = False
        self._backlog: deque[bytes] = deque()
        self._gate = EpochGate()
        self._buffer = FilterBuffer()
        self._settings = compare
        self._compare = self._comparison()
        #: Only who is, or was, a secondary with a guest that runs needs one.
        self._rewriter: FilterRewriter | None = None
        #: What the primary's rewriter does, for when this node takes over.
        self._primary_rewrites: list[Rewritten] = []
        self._link: FrameSocket | None = None
        self._mirror: FrameSocket | None = None
        self._discarded = self._passed = self._refused = 0
        self._request_checkpoint: Callable[[CheckpointCause], None] = lambda cause: None
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(machine.kick_fd, selectors.EVENT_READ, self._kicked)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._woken)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)

    # Begin and end.

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and the links."""
        self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        for link in (self._link, self._mirror):
            if link is not None:
                link.close()
        self._selector.close()
        os.close(self._wake_fd)

    def attach_link(self, link: FrameSocket) -> None:
        """Take a link to the switch; one that was there before ends."""
        with self._lock:
            self._detach(self._link)
            self._link = link
            self._watch(link, selectors.EVENT_READ, self._link_ready)
            if self._role is not NetworkRole.SECONDARY:
                self._announce()
        self._wake()

    def attach_mirror(self, mirror: FrameSocket) -> None:
        """Take the connection to the other node's network."""
        with self._lock:
            self._detach(self._mirror)
            self._mirror = mirror
            self._gate = EpochGate()
            self._watch(mirror, selectors.EVENT_READ, self._mirror_ready)
        self._wake()

    def _detach(self, link: FrameSocket | None) -> None:
        if link is None:
            return
        self._watch(link, 0, lambda: None)
        link.close()
        if link is self._link:
            self._link = None
        else:
            self._mirror = None

    # What a participant of checkpoints does, see `CheckpointParticipant`.

    def start(self) -> None:
        """Give the guest, which is about to run, what has come meanwhile."""
        with self._lock:
            self._accepting = True
            self._refill()
            self._flush()

    def stop(self) -> None:
        """Take what the guest has sent before it stopped."""
        with self._lock:
            self._accepting = False
            self._drain()
            self._flush()

    def seal(self) -> None:
        """Mark the end of the epoch in the stream to the peer's network."""
        with self._lock:
            if self._mirror is not None:
                self._mirror.send(MARK, always=True)
                self._flush()

    def follow(self) -> None:
        """Be a secondary's network: nobody outside hears of this guest."""
        with self._lock:
            self._role = NetworkRole.SECONDARY
            if self._output is Output.COMPARE:
                self._rewriter = FilterRewriter()

    def lead(self, request_checkpoint: Callable[[CheckpointCause], None]) -> None:
        """Be a primary's network: hold output until a checkpoint covers it, or it is compared.

        Parameters
        ----------
        request_checkpoint
            Called in the network's thread when colo-compare wants a checkpoint.
        """
        with self._lock:
            self._role = NetworkRole.PRIMARY
            self._request_checkpoint = request_checkpoint
            self._compare = self._comparison()

    def loaded(self) -> None:
        """Drop what the mirror brought before the checkpoint that is loaded: it is part of it."""
        with self._lock:
            # The mirror may have ended with the primary; what it brought counts all the same.
            if self._rewriter is not None:
                self._rewriter.checkpoint()
            # The guest stood still, so all that waits here was mirrored before the primary stopped.
            self._backlog.clear()
            self._wait_for_guest(self._gate.checkpoint())

    def commit(self) -> None:
        """Let out what the committed checkpoint covers."""
        with self._lock:
            if self._output is Output.COMPARE:
                released = self._compare.checkpoint()
            else:
                released = self._buffer.release()
            self.released += len(released)
            self._let_out(released)
            self._flush()

    def alone(self) -> None:
        """Tell the switch where the guest is now, and let all output pass."""
        with self._lock:
            was, self._role = self._role, NetworkRole.ALONE
            if self._mirror is not None:
                self._detach(self._mirror)
            self._wait_for_guest(self._gate.failover())
            if was is NetworkRole.PRIMARY:
                self._let_out(self._buffer.release() + self._compare.failover())
            elif self._rewriter is not None:
                self._rewriter.failover()
                ours = {each.connection: each for each in self._rewriter.state()}
                theirs = {each.connection: each for each in self._primary_rewrites}
                self._rewriter.load((theirs | ours).values())
            self._announce()
            self._flush()

    def fence(self) -> None:
        """Let nothing out any more: another node is the guest."""
        with self._lock:
            self._role = NetworkRole.SECONDARY
            self._detach(self._link)
            self._detach(self._mirror)

    def devices(self) -> tuple[RewriterDevice, ...]:
        """Give what of the network has to travel with a checkpoint."""
        if self._output is not Output.COMPARE:
            return ()
        return (RewriterDevice(self._rewrites, self._take_rewrites),)

    def _rewrites(self) -> list[Rewritten]:
        with self._lock:
            if self._role is NetworkRole.SECONDARY:
                # As it is on the primary, so that what is compared is equal.
                return self._primary_rewrites
            return [] if self._rewriter is None else self._rewriter.state()

    def _take_rewrites(self, rewrites: list[Rewritten]) -> None:
        with self._lock:
            self._primary_rewrites = rewrites

    def receive(self, frame: bytes) -> bool:
        """Give the guest a frame as if a link had brought it; False if too many wait."""
        if not frames.FRAME_MIN <= len(frame) <= frames.FRAME_MAX:
            raise LocalError(
                f"Ethernet frame: expected {frames.FRAME_MIN} to {frames.FRAME_MAX} bytes, "
                f"found {len(frame)}"
            )
        with self._lock:
            if len(self._backlog) >= BACKLOG_LIMIT:
                return False
            self._backlog.append(frame)
            self._refill()
            self._flush()
            return True

    def figures(self) -> dict[str, Any]:
        """Give the counters that a monitor shows."""
        with self._lock:
            return {
                "frames-sent": self._passed,
                "frames-held": self._buffer.frames + self._compare.counters()["held"],
                "frames-discarded": self._discarded,
                "frames-refused": self._refused,
                "frames-waiting": len(self._backlog),
                "compare": self._compare.counters(),
            }

    # The network's thread.

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            # A guest that nobody hears is worse than none: the peer takes over.
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
        os.eventfd_read(self._machine.kick_fd)
        self._drain()

    def _link_ready(self) -> None:
        if self._link is None:
            return
        try:
            arrived = self._link.receive()
        except (LinkDown, ColobenchError):
            self._detach(self._link)
            return
        if self._role is NetworkRole.SECONDARY:
            return
        self._wait_for_guest(arrived)
        self._refill()

    def _mirror_ready(self) -> None:
        if self._mirror is None:
            return
        try:
            arrived = self._mirror.receive()
        except (LinkDown, ColobenchError):
            self._detach(self._mirror)
            return
        if self._role is NetworkRole.SECONDARY:
            self._take_mirrored(arrived)
        elif self._role is NetworkRole.PRIMARY:
            self._take_redirected(arrived)

    def _take_mirrored(self, arrived: list[bytes]) -> None:
        for frame in arrived:
            if self._is_for_nic(frame):
                self._wait_for_guest(self._gate.frame(frame))
        self._refill()

    def _take_redirected(self, arrived: list[bytes]) -> None:
        now = time.monotonic()
        for frame in arrived:
            self._compared(self._compare.secondary(frame, now))

    def _drain(self) -> None:
        """Take what the guest has sent."""
        sent = self._nic["transmit"].take_all()
        for frame in sent:
            self._transmitted(frame)
        if len(sent) == NIC_QUEUE_LENGTH:
            # It may have waited for room.
            self._machine.wake()
        self._refill()

    def _transmitted(self, frame: bytes) -> None:
        if self._role is NetworkRole.ALONE:
            self._let_out([frame])
        elif self._output is Output.BUFFER:
            if self._role is NetworkRole.PRIMARY:
                self._buffer.hold(frame)
            else:
                self._discarded += 1
        elif self._role is NetworkRole.PRIMARY:
            self._compared(self._compare.primary(frame, time.monotonic()))
        elif self._mirror is not None:
            for each in self._from_guest(frame):
                self._mirror.send(each)

    def _comparison(self) -> ColoCompare:
        return ColoCompare(
            self._settings.compare_timeout / 1000,
            self._settings.expired_scan_cycle / 1000,
            self._settings.max_queue_size,
            self._settings.quirks,
        )

    def _compared(self, outcome: Outcome) -> None:
        self._let_out(outcome.frames)
        if outcome.cause is not None:
            self._request_checkpoint(_checkpoint_cause(outcome.cause))

    def _scan(self) -> None:
        if self._role is NetworkRole.PRIMARY and self._output is Output.COMPARE:
            self._compared(self._compare.scan(time.monotonic()))

    def _let_out(self, released: Sequence[bytes]) -> None:
        self._passed += len(released)
        if self._link is not None:
            for frame in released:
                for each in self._from_guest(frame):
                    self._link.send(each)

    def _wait_for_guest(self, arrived: Sequence[bytes]) -> None:
        for frame in arrived:
            if not self._is_for_nic(frame):
                continue
            if self._rewriter is None:
                self._backlog.append(frame)
            else:
                self._backlog.extend(self._rewriter.to_guest(frame))

    def _is_for_nic(self, frame: bytes) -> bool:
        """Say whether a NIC takes frames of this length; count it if not."""
        fits = frames.FRAME_MIN <= len(frame) <= frames.FRAME_MAX
        self._refused += not fits
        return fits

    def _from_guest(self, frame: bytes) -> list[bytes]:
        if self._rewriter is None:
            return [frame]
        outward, inward = self._rewriter.from_guest(frame)
        self._backlog.extend(inward)
        return outward

    def _announce(self) -> None:
        """Tell the switch where the guest is now, as QEMU's announce-self does."""
        if self._link is not None:
            itself = (frames.GUEST_MAC, frames.GUEST_IP)
            message = frames.ARP(frames.ARP_REQUEST, *itself, bytes(6), frames.GUEST_IP)
            self._link.send(frames.build_arp(frames.BROADCAST, message))

    def _refill(self) -> None:
        """Put what waits into the NIC, as far as there is room; then it is mirrored."""
        put = 0
        while self._accepting and self._backlog and self._nic["receive"].put(self._backlog[0]):
            frame = self._backlog.popleft()
            if self._role is NetworkRole.PRIMARY and self._mirror is not None:
                self._mirror.send(frame)
            put += 1
        if put:
            self._machine.wake()

    def _flush(self) -> None:
        for link, ready in ((self._link, self._link_ready), (self._mirror, self._mirror_ready)):
            if link is None:
                continue
            try:
                link.flush()
            except LinkDown:
                self._detach(link)
                continue
            full = self._is_full(link)
            events = (0 if full else selectors.EVENT_READ) | (
                selectors.EVENT_WRITE if link.waits_to_send else 0
            )
            self._watch(link, events, ready)

    def _is_full(self, link: FrameSocket) -> bool:
        """Say whether so much waits for the guest that the other end of a link has to wait, too."""
        if link is self._link:
            return len(self._backlog) >= BACKLOG_LIMIT
        # What the secondary's guest has said is compared at once.
        waits = len(self._backlog) + self._gate.early
        return self._role is NetworkRole.SECONDARY and waits >= MIRRORED_LIMIT

    def _watch(self, link: FrameSocket, events: int, ready: Callable[[], None]) -> None:
        """Wait for these events of a link from now on; 0 for none."""
        known = self._selector.get_map().get(link.fileno())
        if known is None:
            if events:
                self._selector.register(link.fileno(), events, ready)
        elif not events:
            self._selector.unregister(link.fileno())
        elif known.events != events:
            self._selector.modify(link.fileno(), events, ready)


def _checkpoint_cause(cause: CompareCause) -> CheckpointCause:
    offset = cause.offset if isinstance(cause, Miscompare) else None
    return CheckpointCause(type(cause).__name__.lower(), str(cause.connection), offset)
