"""The arbiter's process: nodes that lost each other ask it which of them may serve alone.

A client connects, sends a question as one line of JSON, and gets one line back; then it may ask
again. One thread does all of it, in order: decide, write the grant to disk, answer.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import stat
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from colobench.node.address import Address
from colobench.node.grants import GrantsFile
from colobench.node.monitor import Monitor, MonitorCommand
from colobench.protocol.arbiter import (
    LINE_LIMIT,
    Arbiter,
    ArbiterFull,
    InvalidLine,
    encode_answer,
    encode_line,
    parse_question,
)

#: Most connections at a time. For one more, the one that was silent longest is closed.
CLIENTS_LIMIT: Final = 64
#: Number of newest grants that `x-query-arbiter` shows.
SHOWN_LIMIT: Final = 1000
_ACCEPT_AGAIN_SECONDS = 0.05
#: Most reads from a client before its connection is closed.
_READ_AT_LAST = 16


@dataclass(frozen=True, slots=True)
class ArbiterOptions:
    """Arguments of an arbiter's process.

    Attributes
    ----------
    listen
        Address for the questions of nodes.
    qmp
        Path of the monitor's UNIX socket.
    state
        Path of the file that keeps grants over a restart; without one, an arbiter that ended must
        not be started again for the same pairings.
    parent
        Process id of the parent, whose death ends this process, or 0.
    """

    listen: Address
    qmp: str
    state: str | None
    parent: int


def parse_options(arguments: Sequence[str]) -> ArbiterOptions:
    """Read the command line, without the role.

    Raises
    ------
    LocalError
        If the address is invalid.
    SystemExit
        If the arguments are invalid; argparse has printed the reason.
    """
    parser = argparse.ArgumentParser(
        prog="colobench.node arbiter",
        description="Grant each pairing to the node that asks first: it may serve alone.",
    )
    add = parser.add_argument
    add("--listen", required=True, metavar="URI", help="unix:PATH or tcp:HOST:PORT")
    add("--qmp", required=True, metavar="PATH", help="UNIX socket of the monitor")
    add("--state", metavar="FILE", help="keep grants there, over a restart")
    add("--parent", type=int, default=0, metavar="PID", help="die with this process")
    found = parser.parse_args(arguments)
    return ArbiterOptions(Address.parse(found.listen), found.qmp, found.state, found.parent)


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    received: bytearray = field(default_factory=bytearray)


class ArbiterProcess:
    """Arbiter with its sockets, its file and its monitor.

    Parameters
    ----------
    options
        Arguments of the process.

    Raises
    ------
    LocalError
        If the file cannot be opened, or an address cannot be bound.
    """

    def __init__(self, options: ArbiterOptions) -> None:
        self._options = options
        self._file = GrantsFile(options.state) if options.state is not None else None
        self._arbiter = Arbiter(self._file.grants if self._file is not None else None)
        #: Guards the table against the monitor's threads, which read it.
        self._lock = threading.Lock()
        self._refusals = 0
        self._clients: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        # Never closed, because `quit` may be called after the end.
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        commands = {
            "x-query-arbiter": MonitorCommand(self._query),
            "quit": MonitorCommand(self.quit),
        }
        self._monitor = Monitor(options.qmp, commands)

    def run(self) -> int:
        """Answer until told to quit; return the exit status."""
        listening = False
        try:
            if self._file is not None:
                # The holder of the file's lock is the only arbiter; these are of a dead one.
                for path in (self._options.listen.target, self._options.qmp):
                    _remove_dead_socket(path)
            self._listener, self._listening = self._options.listen.listen()
            listening = True
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._selector.register(self._wake_fd, selectors.EVENT_READ)
            # Start the monitor last: a process that can connect to it finds the arbiter ready.
            self._monitor.start()
            while self._turn():
                pass
            self._monitor.emit("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        finally:
            for client in list(self._clients.values()):
                self._close(client)
            if listening:
                self._listener.close()
                self._options.listen.remove()
            self._selector.close()
            self._monitor.close(flush=True)
            if self._file is not None:
                self._file.close()
        return 0

    def quit(self) -> None:
        """Request an orderly end of the process."""
        os.eventfd_write(self._wake_fd, 1)

    def _query(self) -> dict[str, Any]:
        with self._lock:
            grants = self._arbiter.grants
        newest = islice(grants.items(), max(0, len(grants) - SHOWN_LIMIT), None)
        return {
            "listening": str(self._listening),
            "count": len(grants),
            "refusals": self._refusals,
            "grants": [{"pairing": pairing, "node": node} for pairing, node in newest],
        }

    # Thread that answers.

    def _turn(self) -> bool:
        """Wait for events, and handle them; return False once told to quit."""
        for key, _ in self._selector.select():
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj == self._wake_fd:
                return False
            elif key.fd in self._clients:
                # Clients that were closed in this turn are left out.
                self._serve(self._clients[key.fd])
        return True

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # Probably out of descriptors, which other connections may release.
            time.sleep(_ACCEPT_AGAIN_SECONDS)
            return
        if len(self._clients) >= CLIENTS_LIMIT:
            silent_longest = next(iter(self._clients.values()))
            self._fail(silent_longest, f"expected at most {CLIENTS_LIMIT} clients, found one more")
        connection.setblocking(False)
        self._clients[connection.fileno()] = _Client(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _serve(self, client: _Client) -> None:
        # Keep the clients in the order of their last question.
        self._clients[client.connection.fileno()] = self._clients.pop(client.connection.fileno())
        try:
            received = client.connection.recv(LINE_LIMIT)
            if not received:
                self._close(client)
                return
            client.received += received
            while (end := client.received.find(b"\n", 0, LINE_LIMIT) + 1) > 0:
                line = bytes(client.received[:end])
                del client.received[:end]
                _send(client.connection, self._answer(line))
            if len(client.received) >= LINE_LIMIT:
                raise InvalidLine(f"question: expected a line of at most {LINE_LIMIT} bytes")
        except (InvalidLine, ArbiterFull) as error:
            self._fail(client, str(error))
        except OSError:
            # The client has ended, or does not read its answers.
            self._close(client)

    def _answer(self, line: bytes) -> bytes:
        pairing, node = parse_question(line)
        with self._lock:
            verdict = self._arbiter.ask(pairing, node)
        if verdict.first:
            if self._file is not None:
                # If this fails, the process ends without an answer; the grant may be in the file.
                self._file.append(pairing, node)
            self._monitor.emit("X_GRANTED", {"pairing": pairing, "node": node})
        self._refusals += not verdict.granted
        return encode_answer(verdict)

    def _fail(self, client: _Client, why: str) -> None:
        """Send a client an error, and close its connection."""
        with suppress(OSError):
            _send(client.connection, encode_line({"error": why}))
            # If a connection is closed with bytes unread, the client may not receive the error.
            for _ in range(_READ_AT_LAST):
                client.connection.recv(1 << 16)
        self._close(client)

    def _close(self, client: _Client) -> None:
        self._selector.unregister(client.connection)
        del self._clients[client.connection.fileno()]
        client.connection.close()


def _send(connection: socket.socket, answer: bytes) -> None:
    """Send a short answer without waiting; raise OSError if the client does not read."""
    if connection.send(answer) != len(answer):
        raise BlockingIOError("the client does not read")


def _remove_dead_socket(path: str | tuple[str, int]) -> None:
    """Remove the file at `path`, if it is the socket of a process that was killed."""
    with suppress(OSError):
        if not isinstance(path, str) or not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
