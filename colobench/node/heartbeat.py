"""Heartbeat between two nodes: datagrams both ways, and one thread that sends and receives.

Beats are datagrams, not bytes on the main connection. The kernel closes the connections of a dead
process at once, but a dead host closes none: a takeover that waited for the end of a connection
would look quicker than it is. So an address at which no process listens is only silence.

The thread needs the GIL for each beat, for about a tenth of a millisecond. Kernels of
`colobench.kernels` and system calls release it, and Python code gives it up when asked
(`sys.setswitchinterval`, 0.2 ms in a node). Only a library's long call that keeps it can delay a
beat, so an interval of less than about 10 ms is not useful.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from colobench.errors import LocalError
from colobench.node.address import Address
from colobench.node.sockets import bind
from colobench.protocol.heartbeat import (
    BEAT_BYTES,
    Beat,
    FailureDetector,
    Heard,
    check_timing,
    encode_beat,
    sender_digest,
)

#: Seconds between beats, and seconds of silence after which a peer counts as lost.
INTERVAL_DEFAULT: Final = 0.05
LIMIT_DEFAULT: Final = 0.5
#: Most datagrams that are read before the silence is judged; others wait for the next turn.
_READ_AT_ONCE = 64
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DatagramAddress:
    """Address at which a node receives beats: ``unix:PATH`` or ``udp:HOST:PORT``.

    Attributes
    ----------
    family
        ``AF_UNIX`` or ``AF_INET``.
    target
        Argument of `socket.bind`: a path, or host and port.
    """

    family: socket.AddressFamily
    target: str | tuple[str, int]

    @classmethod
    def parse(cls, uri: str) -> DatagramAddress:
        """Read an address.

        Raises
        ------
        LocalError
            If it has neither form, or is not of the loopback network, see `Address.parse`.
        """
        kind, _, rest = uri.partition(":")
        try:
            if kind not in ("unix", "udp"):
                raise LocalError(f"kind of address: expected unix or udp, found {kind!r}")
            stream = Address.parse(uri if kind == "unix" else f"tcp:{rest}")
        except LocalError as error:
            raise LocalError(
                f"heartbeat address: expected unix:PATH or udp:HOST:PORT with a loopback host, "
                f"found {uri!r}"
            ) from error
        return cls(stream.family, stream.target)

    def __str__(self) -> str:
        if isinstance(self.target, str):
            return f"unix:{self.target}"
        return f"udp:{self.target[0]}:{self.target[1]}"


class Heartbeat:
    """Sender of one node's beats in one pairing, and receiver of its peer's.

    It listens from its construction on. After `on_lost` was called, it sends and receives nothing:
    a peer that still receives our beats, while we receive none, loses us then, too.

    Parameters
    ----------
    address
        Address at which to listen; port 0 becomes a real one.
    pairing, node, peer
        Pairing's id and names of both nodes, as in questions to the arbiter.
    on_lost
        Function that is called once, in the heartbeat's thread, when the peer counts as lost.
    interval, limit
        Seconds, see `colobench.protocol.heartbeat.check_timing`.

    Attributes
    ----------
    address
        Address at which it listens.

    Raises
    ------
    LocalError
        If an argument is out of range, or the address cannot be bound.
    """

    def __init__(
        self,
        address: DatagramAddress,
        pairing: str,
        node: str,
        peer: str,
        on_lost: Callable[[], None],
        *,
        interval: float = INTERVAL_DEFAULT,
        limit: float = LIMIT_DEFAULT,
    ) -> None:
        check_timing(interval, limit)
        if node == peer:
            raise LocalError(f"heartbeat: expected two names, found {node!r} twice")
        self._pairing, self._peer = pairing, peer
        self._sender = sender_digest(pairing, node)
        self._on_lost = on_lost
        self._interval, self._limit = interval, limit
        self._sent = self._unsent = 0
        self._lost = False
        self._stopping = self._closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._detector: FailureDetector | None = None
        self._socket, self.address = _bind(address)
        try:
            self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            self._socket.close()
            self._remove()
            raise LocalError(f"heartbeat on {address}: {error.strerror}") from error

    def start(self, peer_address: DatagramAddress) -> None:
        """Send beats, and measure the peer's silence from now on.

        Parameters
        ----------
        peer_address
            Address at which the peer listens; beats are lost until it does.

        Raises
        ------
        LocalError
            If the two addresses are not of the same family, or it was started or stopped before.
        """
        if peer_address.family != self.address.family:
            raise LocalError(
                f"heartbeat: expected a peer's address like {self.address}, found {peer_address}"
            )
        with self._lock:
            if self._thread is not None or self._closed:
                raise LocalError("heartbeat: expected one that was never started nor stopped")
            self._detector = FailureDetector(
                self._pairing,
                self._peer,
                interval=self._interval,
                limit=self._limit,
                now=time.monotonic(),
            )
            self._thread = threading.Thread(
                target=self._run,
                args=(self._detector, peer_address.target),
                name="heartbeat",
                daemon=True,
            )
            try:
                self._thread.start()
            except BaseException:
                self._thread = None
                raise

    def stop(self) -> None:
        """End the thread, close the socket, and remove its file.

        `on_lost` is not called after that, unless `stop` is called from it. If it runs, `stop`
        waits for it: hold no lock that it needs.
        """
        self._stopping = True
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._wake_fd, 1)
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    def is_current_thread(self) -> bool:
        """Return whether the caller runs in the heartbeat's thread: in `on_lost`."""
        return self._thread is threading.current_thread()

    def _close(self) -> None:
        self._socket.close()
        os.close(self._wake_fd)
        self._remove()

    def _remove(self) -> None:
        if isinstance(self.address.target, str):
            with suppress(FileNotFoundError):
                os.unlink(self.address.target)

    @property
    def silence(self) -> float:
        """Seconds for which the peer has been silent so far; 0 before the start."""
        detector = self._detector
        return 0.0 if detector is None else detector.silence(time.monotonic())

    def statistics(self) -> dict[str, Any]:
        """Return statistics as a JSON object.

        Returns
        -------
        dict
            ``peer-silence`` in seconds; ``lost``, whether `on_lost` was called; ``sent`` and
            ``unsent`` beats, the latter because no process received them; ``pauses`` and the
            counts by kind, see `FailureDetector`.
        """
        detector = self._detector
        counts = {} if detector is None else detector.counts
        return {
            "peer-silence": self.silence,
            "lost": self._lost,
            "sent": self._sent,
            "unsent": self._unsent,
            "pauses": 0 if detector is None else detector.pauses,
            **{heard.value: counts.get(heard, 0) for heard in Heard},
        }

    # Heartbeat's thread.

    def _run(self, detector: FailureDetector, peer: str | tuple[str, int]) -> None:
        try:
            if self._beat_until_lost(detector, peer):
                self._lost = True
                self._on_lost()
        except BaseException:
            _logger.exception("heartbeat")

    def _beat_until_lost(self, detector: FailureDetector, peer: str | tuple[str, int]) -> bool:
        """Send and receive beats; return True once the peer is suspected, False if told to stop."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        due = time.monotonic()
        while not self._stopping:
            # If this thread is delayed below, it judges by the time before the delay.
            now = time.monotonic()
            detector.turn(now)
            if now >= due:
                self._send(peer)
                due += self._interval
                if due <= now:
                    # Missed beats are not sent later.
                    due = now + self._interval
            self._receive(detector)
            if detector.suspects(now):
                return True
            left = min(due, detector.deadline()) - time.monotonic()
            poll.poll(max(0.0, left) * 1000)
        return False

    def _send(self, peer: str | tuple[str, int]) -> None:
        beat = encode_beat(Beat(self._sender, self._sent + self._unsent))
        try:
            self._socket.sendto(beat, peer)
            self._sent += 1
        except OSError:
            # No process receives there; the peer is judged by its silence, not by this.
            self._unsent += 1

    def _receive(self, detector: FailureDetector) -> None:
        for _ in range(_READ_AT_ONCE):
            try:
                # One byte more than a beat has detects a datagram that is too long.
                datagram = self._socket.recv(BEAT_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:
                # The kernel reports an error of an earlier send.
                continue
            detector.receive(datagram, time.monotonic())


def _bind(address: DatagramAddress) -> tuple[socket.socket, DatagramAddress]:
    """Listen; return the socket and its address (port 0 has become a real one)."""
    try:
        listener = bind(address.family, address.target, socket.SOCK_DGRAM)
    except OSError as error:
        raise LocalError(f"heartbeat on {address}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener, DatagramAddress(address.family, listener.getsockname())
