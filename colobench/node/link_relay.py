"""The link's process: a pair's connections cross it, and share its rate in each direction.

It listens where a primary connects, and connects on to the secondary. `colobench.node.link_lane`
moves the bytes. The end of a connection crosses behind its last byte, so that a node finds the
connections of a dead peer ended as it would without a link.
"""

from __future__ import annotations

import argparse
import ctypes
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from colobench.errors import LocalError
from colobench.node.address import Address
from colobench.node.link_lane import Lane
from colobench.node.monitor import Monitor, MonitorCommand
from colobench.settings.link import Link

#: Directions: from the node that connects to the one that listens, and back.
DIRECTIONS: Final = ("P→S", "S→P")
#: Send buffer, in bytes, of the relay's UNIX sockets: what has arrived, and is not read yet.
_SEND_BUFFER: Final = 1 << 20
_CONNECT_SECONDS: Final = 10.0
_PR_SET_TIMERSLACK: Final = 29


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Options with which a link is started.

    Attributes
    ----------
    link
        Rate, delay and jitter.
    qmp
        Path of the monitor's UNIX socket.
    parent
        The process whose death ends this one, or 0.
    """

    link: Link
    qmp: str
    parent: int


def parse_options(arguments: Sequence[str]) -> LinkOptions:
    """Read the command line, without the role.

    Raises
    ------
    LocalError
        If the link is none.
    SystemExit
        If argparse does not understand it; it has printed why.
    """
    parser = argparse.ArgumentParser(
        prog="colobench.node link", description="Give connections a rate, a delay and jitter."
    )
    add = parser.add_argument
    add("--link", required=True, metavar="LINK", help="such as rate=1G,delay=20ms,jitter=1ms")
    add("--qmp", required=True, metavar="PATH", help="UNIX socket of the monitor")
    add("--parent", type=int, default=0, metavar="PID", help="die with this process")
    found = parser.parse_args(arguments)
    return LinkOptions(Link.parse(found.link), found.qmp, found.parent)


class Crossing:
    """One connection that crosses the link, from both sockets' connection to the end of both ways.

    Parameters
    ----------
    primary, secondary
        Sockets of the node that connected, and of the one that listens.
    lanes
        Both directions.
    """

    def __init__(
        self, primary: socket.socket, secondary: socket.socket, lanes: Sequence[Lane]
    ) -> None:
        self._ends = (primary, secondary)
        self._ways = 2
        self._lock = threading.Lock()
        for end in self._ends:
            end.setblocking(False)
            if end.family == socket.AF_INET:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        there, back = lanes
        there.add(primary, secondary, self._way_ended)
        back.add(secondary, primary, self._way_ended)

    def _way_ended(self) -> None:
        """Close the sockets once both directions have ended."""
        with self._lock:
            self._ways -= 1
            if not self._ways:
                for end in self._ends:
                    end.close()


class Forward:
    """A listening socket, whose connections cross the link to an address.

    Parameters
    ----------
    listen, to
        Where it listens, and where it connects to.
    lanes
        Both directions of the link.

    Attributes
    ----------
    address
        Where it listens, with a real port in place of port 0.

    Raises
    ------
    LocalError
        If the address cannot be had.
    """

    def __init__(self, listen: Address, to: Address, lanes: Sequence[Lane]) -> None:
        self._to, self._lanes = to, lanes
        self._listener, self.address = listen.listen()
        self._thread = threading.Thread(target=self._serve, name="forward", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more; connections that were made go on."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.address.remove()

    def _serve(self) -> None:
        """Connect one after the other, so that the secondary gets them in their order."""
        with self._listener:
            while True:
                try:
                    primary, _ = self._listener.accept()
                except OSError:
                    return
                try:
                    secondary = self._to.connect(_CONNECT_SECONDS)
                except LocalError:
                    # The primary finds its connection ended.
                    primary.close()
                    continue
                Crossing(primary, secondary, self._lanes)


class LinkProcess:
    """The link with its monitor.

    Parameters
    ----------
    options
        Options with which it was started.
    """

    def __init__(self, options: LinkOptions) -> None:
        self._link = options.link
        self._quitting = threading.Event()
        self._forwards: dict[str, Forward] = {}
        self._lock = threading.Lock()
        # Threads inherit it. Timers are 50 µs late without it.
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        self._lanes = [Lane(direction, options.link) for direction in DIRECTIONS]
        commands = {
            "x-link-forward": MonitorCommand(
                self._forward, {"name": str, "listen": str, "to": str}
            ),
            "x-query-link": MonitorCommand(self._query),
            "quit": MonitorCommand(self.quit),
        }
        self._monitor = Monitor(options.qmp, commands)

    def run(self) -> int:
        """Move bytes until told to quit; returns the exit code."""
        try:
            self._monitor.start()
            self._quitting.wait()
            self._monitor.emit("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        finally:
            with self._lock:
                for forward in self._forwards.values():
                    forward.close()
                self._forwards.clear()
            for lane in self._lanes:
                lane.close()
            self._monitor.close(flush=True)
        return 0

    def quit(self) -> None:
        """End the process in order."""
        self._quitting.set()

    def _forward(self, name: str, listen: str, to: str) -> dict[str, str]:
        """Lead connections on; another forward of that name listens no more."""
        with self._lock:
            if self._quitting.is_set():
                raise LocalError("link: expected one that goes on, found it quitting")
            former = self._forwards.pop(name, None)
            if former is not None:
                former.close()
            forward = Forward(Address.parse(listen), Address.parse(to), self._lanes)
            self._forwards[name] = forward
        return {"address": str(forward.address)}

    def _query(self) -> dict[str, Any]:
        """Give what went over the link: bytes, and times in nanoseconds."""
        return {
            "link": str(self._link),
            "rate": self._link.rate,
            "directions": [
                {
                    "direction": direction,
                    "bytes": lane.pacing.bytes,
                    "sending-ns": lane.pacing.sending_ns,
                    "lost-ns": lane.pacing.lost_ns,
                    "deliveries": lane.deliveries,
                    "late-ns": lane.late_ns,
                }
                for direction, lane in zip(DIRECTIONS, self._lanes, strict=True)
            ],
        }
