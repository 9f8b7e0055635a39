"""Switch: a process between clients and nodes, which neither a checkpoint nor a kill disturbs.

One thread does all of it, in turns: it receives from links and clients, lets
`colobench.net.switch` decide, and sends. So frames of one turn are answered in that turn, and
the answers leave together. Monitor threads hand their
questions to this thread. It imports neither numba nor the guest, so it starts in 0.2 s.
"""

from __future__ import annotations

import argparse
import errno
import gc
import os
import resource
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from colobench.errors import LocalError
from colobench.net.switch import FIRST_PORT, LAST_PORT, GuestMoved, Switch
from colobench.net.tcp import TCPConnection
from colobench.node.address import Address
from colobench.node.client import KERNEL_BYTES, OUTPUT_LIMIT, Backlog, Client
from colobench.node.hostfwd import HostForward
from colobench.node.monitor import Monitor, MonitorCommand
from colobench.node.pcap_file import PcapWriter
from colobench.node.port import ENOUGH_BYTES, Port
from colobench.settings.forward import GUEST_ADDRESS

_BACKLOG = 1024
_ACCEPTS_A_TURN = 64
_ANSWER_SECONDS = 10.0
_PING_SECONDS = 1.0
_ResultT = TypeVar("_ResultT")


@dataclass(frozen=True, slots=True)
class SwitchOptions:
    """Arguments of a switch's process.

    Attributes
    ----------
    qmp
        Path of the monitor's UNIX socket.
    listen
        Address at which nodes connect their links.
    hostfwd
        Rules for ports of this machine that are forwarded to the guest.
    hold
        Whether clients are refused until ``x-hostfwd-listen``.
    pcap
        File for all frames on the links, or None.
    parent
        Process id of the parent, whose death ends this process, or 0.
    client_output_limit
        Bytes of replies that may wait for one client.
    """

    qmp: str
    listen: tuple[Address, ...]
    hostfwd: tuple[HostForward, ...]
    hold: bool
    pcap: str | None
    parent: int
    client_output_limit: int = OUTPUT_LIMIT


def parse_switch_options(arguments: list[str] | None = None) -> SwitchOptions:
    """Read the command line, after the role.

    Raises
    ------
    LocalError
        If a value is out of range.
    SystemExit
        If the arguments are invalid; argparse has printed the reason.
    """
    parser = argparse.ArgumentParser(prog="colobench.node switch", description=__doc__)
    add = parser.add_argument
    add("--qmp", required=True, metavar="PATH", help="UNIX socket of the monitor")
    add(
        "--listen",
        required=True,
        action="append",
        metavar="URI",
        help="unix:PATH or tcp:HOST:PORT, where nodes connect their links",
    )
    add(
        "--hostfwd",
        default=[],
        action="append",
        metavar="RULE",
        help="tcp:[hostaddr]:hostport-[guestaddr]:guestport; hostport 0 is any that is free",
    )
    add("--hold", action="store_true", help="refuse clients until told x-hostfwd-listen")
    add("--pcap", metavar="FILE", help="keep all frames on the links")
    add("--parent", type=int, default=0, metavar="PID", help="die with this process")
    add(
        "--client-output-limit",
        type=int,
        default=OUTPUT_LIMIT,
        metavar="BYTES",
        help="reset a client for which more replies wait to be read (default: %(default)s)",
    )
    found = parser.parse_args(arguments)
    if found.client_output_limit < 1:
        raise LocalError(
            f"--client-output-limit: expected at least 1 byte, found {found.client_output_limit}"
        )
    return SwitchOptions(
        qmp=found.qmp,
        listen=tuple(Address.parse(uri) for uri in found.listen),
        hostfwd=tuple(HostForward.parse(rule) for rule in found.hostfwd),
        hold=found.hold,
        pcap=found.pcap,
        parent=found.parent,
        client_output_limit=found.client_output_limit,
    )


@dataclass(frozen=True, slots=True)
class _Listener:
    """Listening socket, and function for each connection to it."""

    listening: socket.socket
    address: Address
    accepted: Callable[[socket.socket], None]


def _random(length: int) -> int:
    return int.from_bytes(os.urandom(length), "big")


class SwitchProcess:
    """Switch with its sockets.

    Raises
    ------
    LocalError
        If an address cannot be bound, or the pcap file cannot be opened.
    """

    def __init__(self, options: SwitchOptions) -> None:
        self._options = options
        self._switch = Switch(FIRST_PORT + _random(4) % (LAST_PORT - FIRST_PORT + 1))
        self._selector = selectors.DefaultSelector()
        self._ports: dict[int, Port] = {}
        self._last_port = 0
        self._clients: dict[TCPConnection, Client] = {}
        self._accepted = 0
        self._backlog = Backlog(options.client_output_limit)
        self._listeners: list[_Listener] = []
        self._full: list[_Listener] = []
        #: Sockets that are bound and do not listen yet.
        self._held: list[_Listener] = []
        self._forwards: list[tuple[HostForward, Address]] = []
        self._pcap: PcapWriter | None = None
        self._pings: dict[int, Future[float]] = {}
        self._last_ping = 0
        self._quitting = False
        self._ended = False
        self._lock = threading.Lock()
        self._requests: deque[Callable[[], None]] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self.monitor = Monitor(options.qmp, self._commands())

    # Begin and end.

    def run(self) -> int:
        """Serve until told to quit; return the exit status."""
        try:
            self._begin()
            while not self._quitting:
                self._turn()
            self.monitor.emit("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        finally:
            self._end()
        return 0

    def quit(self) -> None:
        """Request an orderly end of the process, from any thread or a signal handler."""
        self._quitting = True
        self._wake_up()

    def _begin(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._on_wake)
        if self._options.pcap is not None:
            self._pcap = PcapWriter(self._options.pcap)
        for address in self._options.listen:
            self._listen(address, self._link_up)
        for forward in self._options.hostfwd:
            reserved, where = forward.reserve()
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                # Connections of clients inherit the options of the listening socket.
                reserved.setsockopt(socket.SOL_SOCKET, option, KERNEL_BYTES)
            self._forwards.append((forward, where))
            self._held.append(_Listener(reserved, where, partial(self._client_came, forward)))
        if not self._options.hold:
            self._listen_for_clients()
        gc.collect()
        gc.freeze()
        # Start the monitor last: a process that can connect to it finds the switch ready.
        self.monitor.start()

    def _end(self) -> None:
        self._quitting = True
        with self._lock:
            self._ended = True
        self._on_requests()
        for client in self._clients.values():
            client.close()
        for port in self._ports.values():
            port.socket.close()
        for listener in self._listeners + self._held:
            listener.listening.close()
            listener.address.remove()
        self._selector.close()
        for end in (self._wake_reader, self._wake_writer):
            end.close()
        self.monitor.close(flush=True)
        if self._pcap is not None:
            self._pcap.close()

    # Turns.

    def _turn(self) -> None:
        """Wait for events, and handle them."""
        switch = self._switch
        due = switch.deadline()
        wait = None if due is None else max(0.0, due - time.monotonic())
        happened = self._selector.select(wait)
        now = time.monotonic()
        for key, events in happened:
            key.data(events, now)
        switch.tick(now)
        for tcp in list(switch.ready):
            client = self._clients.get(tcp)
            if client is not None:
                client.deliver(now)
                if client.closed:
                    self._client_went(tcp, client)
        port = self._ports.get(switch.guest_port or 0)
        # Without a guest, frames are lost, but timers run.
        switch.transmit(now, ENOUGH_BYTES - port.waiting if port is not None else 1 << 62)
        self._send()
        if switch.events:
            self._tell()

    def _send(self) -> None:
        """Send the frames of the switch's decision."""
        output = self._switch.output
        if output:
            pcap, time_ns = self._pcap, time.time_ns()
            ports = self._ports
            for number, frame in output:
                if number not in ports:
                    # The port has ended in this turn.
                    continue
                if not ports[number].queue(frame):
                    self._switch.ports[number].dropped += 1
                elif pcap is not None:
                    pcap.write(frame, time_ns)
            for number in ports.keys() & {number for number, _ in output}:
                self._flush(ports[number])
            output.clear()
        if self._pcap is not None:
            try:
                self._pcap.flush()
            except LocalError as error:
                print(f"switch: {error}; no more frames are kept", file=sys.stderr, flush=True)
                self._pcap.close()
                self._pcap = None

    def _tell(self) -> None:
        """Emit the switch's events."""
        for event in self._switch.events:
            if isinstance(event, GuestMoved):
                self.monitor.emit("X_GUEST_MOVED", {"port": event.port, "seconds": event.seconds})
            elif (waiting := self._pings.pop(event.sequence, None)) is not None:
                waiting.set_result(event.seconds)
        self._switch.events.clear()

    # Listening sockets.

    def _listen(self, address: Address, accepted: Callable[[socket.socket], None]) -> None:
        listening, where = address.listen()
        self._begin_to_listen(_Listener(listening, where, accepted))

    def _listen_for_clients(self) -> None:
        while self._held:
            listener = self._held[0]
            try:
                self._begin_to_listen(listener)
            except OSError as error:
                raise LocalError(f"listen on {listener.address}: {error.strerror}") from error
            del self._held[0]

    def _begin_to_listen(self, listener: _Listener) -> None:
        listener.listening.listen(_BACKLOG)
        listener.listening.setblocking(False)
        self._listeners.append(listener)
        self._watch(listener)

    def _watch(self, listener: _Listener) -> None:
        def accept(events: int, now: float) -> None:
            self._accept(listener)

        self._selector.register(listener.listening, selectors.EVENT_READ, accept)

    def _accept(self, listener: _Listener) -> None:
        """Accept waiting connections; without free descriptors, they wait until one is released."""
        for _ in range(_ACCEPTS_A_TURN):
            try:
                connection, _ = listener.listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._selector.unregister(listener.listening)
                    self._full.append(listener)
                return
            listener.accepted(connection)

    def _descriptor_freed(self) -> None:
        for listener in self._full:
            self._watch(listener)
        self._full.clear()

    # Links.

    def _link_up(self, link: socket.socket) -> None:
        self._last_port += 1
        number = self._last_port
        port = self._ports[number] = Port(number, link)

        def on_events(events: int, now: float) -> None:
            self._on_link(port, events, now)

        self._selector.register(link, selectors.EVENT_READ, on_events)
        self._switch.link_up(number)
        self.monitor.emit("X_LINK_UP", {"port": number, "pid": port.pid})

    def _on_link(self, port: Port, events: int, now: float) -> None:
        if events & selectors.EVENT_READ:
            frames = port.receive()
            if self._pcap is not None:
                time_ns = time.time_ns()
                for frame in frames:
                    self._pcap.write(frame, time_ns)
            for frame in frames:
                self._switch.receive(port.number, frame, now)
        if events & selectors.EVENT_WRITE or port.ended:
            self._flush(port)

    def _flush(self, port: Port) -> None:
        """Send waiting frames, and watch for when the rest can be sent; remove an ended link."""
        if not port.ended:
            port.flush()
        if port.ended:
            self._link_down(port)
            return
        key = self._selector.get_key(port.socket)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.waiting else 0)
        if key.events != wanted:
            self._selector.modify(port.socket, wanted, key.data)

    def _link_down(self, port: Port) -> None:
        del self._ports[port.number]
        self._selector.unregister(port.socket)
        port.socket.close()
        self._switch.link_down(port.number)
        self.monitor.emit("X_LINK_DOWN", {"port": port.number, "reason": port.ended})
        self._descriptor_freed()

    # Clients.

    def _client_came(self, forward: HostForward, connection: socket.socket) -> None:
        try:
            tcp = self._switch.open(forward.guest_port, _random(4), time.monotonic())
        except LocalError:
            connection.close()
            return
        self._accepted += 1
        self._clients[tcp] = Client(connection, tcp, self._selector, self._ready, self._backlog)

    def _client_went(self, tcp: TCPConnection, client: Client) -> None:
        if client.refusal:
            print(f"switch: {client.name}: {client.refusal}; reset", file=sys.stderr, flush=True)
        del self._clients[tcp]
        self._descriptor_freed()

    def _ready(self, tcp: TCPConnection) -> None:
        self._switch.ready[tcp] = None

    # Requests of monitor threads.

    def _wake_up(self) -> None:
        try:
            self._wake_writer.send(b"w")
        except OSError:
            # The thread is awake, or has ended.
            return

    def _on_wake(self, events: int, now: float) -> None:
        self._wake_reader.recv(4096)
        self._on_requests()

    def _on_requests(self) -> None:
        while self._requests:
            self._requests.popleft()()

    def _ask(self, question: Callable[[], _ResultT]) -> _ResultT:
        """Let the switch's thread answer a question."""
        answer: Future[_ResultT] = Future()

        def act() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)

        with self._lock:
            if self._ended:
                raise LocalError("switch: expected it to run, found it ending")
            self._requests.append(act)
        self._wake_up()
        return answer.result(_ANSWER_SECONDS)

    # Monitor's commands.

    def _commands(self) -> dict[str, MonitorCommand]:
        return {
            "x-query-switch": MonitorCommand(lambda: self._ask(self._query)),
            "query-hostfwd": MonitorCommand(lambda: self._ask(self._query_hostfwd)),
            "x-hostfwd-listen": MonitorCommand(lambda: self._ask(self._listen_for_clients)),
            "x-ping": MonitorCommand(self._ping, optional={"timeout": float}),
            "quit": MonitorCommand(self.quit),
        }

    def _query(self) -> dict[str, Any]:
        switch = self._switch
        guest = None
        if switch.guest_port is not None and switch.guest_mac is not None:
            mac = switch.guest_mac.hex(":")
            guest = {"port": switch.guest_port, "mac": mac, "since": switch.guest_since}
        return {
            "listen": [str(each.address) for each in self._listeners[: len(self._options.listen)]],
            "ports": [self._port_statistics(port) for port in self._ports.values()],
            "guest": guest,
            "moves": switch.moves,
            "clients": len(self._clients),
            "clients-accepted": self._accepted,
            "waiting-for-clients-bytes": self._backlog.waiting,
            "connections": len(switch.connections),
            "retransmissions": switch.retransmissions,
            "undeliverable-frames": switch.undeliverable,
        }

    def _port_statistics(self, port: Port) -> dict[str, Any]:
        counters = self._switch.ports[port.number]
        return {
            "port": port.number,
            "pid": port.pid,
            "received-frames": counters.received_frames,
            "received-bytes": counters.received_bytes,
            "sent-frames": counters.sent_frames,
            "sent-bytes": counters.sent_bytes,
            "malformed-frames": counters.malformed,
            "dropped-frames": counters.dropped,
            "waiting-bytes": port.waiting,
        }

    def _query_hostfwd(self) -> list[dict[str, Any]]:
        return [
            {
                "protocol": "tcp",
                "host-address": where.target[0],
                "host-port": where.target[1],
                "guest-address": GUEST_ADDRESS,
                "guest-port": forward.guest_port,
            }
            for forward, where in self._forwards
        ]

    def _ping(self, timeout: float = _PING_SECONDS) -> dict[str, float]:
        if not 0 < timeout <= _ANSWER_SECONDS:
            raise LocalError(
                f"timeout: expected more than 0 and at most {_ANSWER_SECONDS:g} s, found {timeout}"
            )
        answer: Future[float] = Future()

        def begin() -> int:
            self._last_ping = (self._last_ping + 1) % (1 << 16)
            self._pings[self._last_ping] = answer
            self._switch.ping(self._last_ping, time.monotonic())
            return self._last_ping

        def give_up() -> None:
            self._pings.pop(sequence, None)
            self._switch.forget_ping(sequence)

        sequence = self._ask(begin)
        try:
            return {"seconds": answer.result(timeout)}
        except FutureTimeout as error:
            self._ask(give_up)
            raise LocalError(
                f"ping: expected an answer from {GUEST_ADDRESS} in {timeout:g} s, found none"
            ) from error
