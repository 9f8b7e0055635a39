"""QMP monitor of a node, which answers commands and sends events on a UNIX socket.

The protocol is QEMU's (docs/interop/qmp-spec): JSON objects, a greeting, capabilities negotiation,
then commands and asynchronous events. Errors have QEMU's classes and words, as its tools know them.

No client can take much of the node's memory: `CLIENTS_LIMIT`, `UNREAD_LIMIT` and the limits of
`colobench.node.qmp_json` bound it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from colobench.errors import ColobenchError, LocalError
from colobench.node.qmp_json import NESTING_LIMIT, QMPParseError, QMPParser, TextTooLong
from colobench.node.sockets import bind

#: Version in the greeting and in `query-version`; QMP calls the server's own version "qemu".
VERSION = {"qemu": {"micro": 0, "minor": 1, "major": 0}, "package": "colobench"}
#: Most clients at a time; one more gets an error, and its connection is closed.
CLIENTS_LIMIT: Final = 64
#: Bytes that may wait for a client. One that has more waiting has no command executed until it has
#: read, and is dropped if it does not read for `UNREAD_SECONDS`, or if events come on top.
UNREAD_LIMIT: Final = 16 << 20
UNREAD_SECONDS: Final = 10.0
#: Number of waiting messages from which on `Monitor.flush` does not wait for a client.
_FAR_BEHIND = 16
_ACCEPT_AGAIN_SECONDS = 0.05
_RECEIVE_BYTES = 1 << 16
#: Bytes that an event counts for, besides the strings in it.
_EVENT_BYTES = 1 << 10
_NEGOTIATION = "qmp_capabilities"

_JSON_TYPES = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
}
_logger = logging.getLogger(__name__)


class _Refused(LocalError):
    """Error of a command that is not executed, with its QMP error class."""

    def __init__(self, description: str, error_class: str = "GenericError") -> None:
        super().__init__(description)
        self.error_class = error_class


@dataclass(frozen=True, slots=True)
class MonitorCommand:
    """Function and arguments of a QMP command.

    Attributes
    ----------
    function
        Function that is called with keyword arguments, with underscores for hyphens. It returns a
        JSON value, or None for an empty reply. Several clients may call it at once,
        each in a thread of its own. A `ColobenchError` that it raises becomes a ``GenericError``.
    arguments, optional
        Names (as in QMP) and types (str, int, float, bool, list, dict) of the arguments that must
        and that may be given. An int has 64 bits; a float may be given as an int.
    """

    function: Callable[..., object]
    arguments: Mapping[str, type] = field(default_factory=dict)
    optional: Mapping[str, type] = field(default_factory=dict)

    def call(self, given: Mapping[str, object]) -> object:
        """Check the given arguments and call the function with them."""
        declared = {**self.arguments, **self.optional}
        for name, expected in declared.items():
            if name not in given and name in self.arguments:
                raise _Refused(f"Parameter '{name}' is missing")
            if name in given and not _is_a(given[name], expected):
                raise _Refused(
                    f"Invalid parameter type for '{name}', expected: {_JSON_TYPES[expected]}"
                )
        for name in given:
            if name not in declared:
                raise _Refused(f"Parameter '{name}' is unexpected")
        result = self.function(**{name.replace("-", "_"): value for name, value in given.items()})
        return {} if result is None else result


class Monitor:
    """A QMP server for any number of clients at a time.

    Parameters
    ----------
    path
        Path of the UNIX socket at which it listens, and which only its owner may use.
    commands
        The node's commands by name. `query-commands`, `query-version` and the negotiation come
        with the monitor.
    queue_limit, unread_limit
        Messages and bytes that may wait for a client, see `UNREAD_LIMIT`.
    """

    def __init__(
        self,
        path: str,
        commands: Mapping[str, MonitorCommand],
        *,
        queue_limit: int = 4096,
        unread_limit: int = UNREAD_LIMIT,
    ) -> None:
        # Writing JSON recurses once for each level, and an "id" may have QEMU's limit of levels.
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 1000 + 2 * NESTING_LIMIT))
        self._path = path
        self.set_commands(commands)
        self._limits = queue_limit, unread_limit
        self._listener: socket.socket | None = None
        self._acceptor = threading.Thread(target=self._accept, name="QMP accept", daemon=True)
        self._lock = threading.Lock()
        # The tuple is replaced, never changed, so that `emit` needs no lock.
        self._clients: tuple[_Client, ...] = ()
        self._closing = threading.Event()

    def set_commands(self, commands: Mapping[str, MonitorCommand]) -> None:
        """Replace the commands, except the monitor's own."""
        self._commands = {
            "query-commands": MonitorCommand(self._query_commands),
            "query-version": MonitorCommand(lambda: VERSION),
            **commands,
        }

    def start(self) -> None:
        """Listen.

        Raises
        ------
        LocalError
            If the path cannot be bound.
        """
        try:
            self._listener = bind(socket.AF_UNIX, self._path)
        except OSError as error:
            raise LocalError(f"QMP monitor at {self._path}: {error}") from error
        self._listener.listen()
        self._acceptor.start()

    def emit(self, event: str, data: Mapping[str, object] | None = None) -> None:
        """Send an event to every client that has negotiated.

        Costs microseconds: JSON is made of `data` later in another thread, so it must not change.

        Parameters
        ----------
        event, data
            Name and JSON members of the event.
        """
        message = _Event(event, data)
        for client in self._clients:
            if client.listens:
                client.send(message)

    def flush(self, timeout: float = 0.2) -> None:
        """Wait until all events are in the clients' sockets, where they outlive this process.

        Parameters
        ----------
        timeout
            Seconds for all clients together. A client that is far behind is left out.
        """
        deadline = time.monotonic() + timeout
        for client in self._clients:
            if client.listens and client.behind() < _FAR_BEHIND:
                sent = _Sent()
                client.send(sent)
                sent.wait(max(0.0, deadline - time.monotonic()))

    def close(self, *, flush: bool = False, timeout: float = 1.0) -> None:
        """Stop listening and end all connections.

        Parameters
        ----------
        flush
            Whether commands being executed may finish, and replies and events be sent, before.
        timeout
            Seconds that each connection is given for that.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        if self._listener is not None:
            # `close` alone does not wake the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._acceptor.join()
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            self._listener.close()
        clients = self._clients
        for how in (socket.SHUT_RD, socket.SHUT_RDWR) if flush else (socket.SHUT_RDWR,):
            for client in clients:
                client.shut_down(how)
            for client in clients:
                client.join(timeout)

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except (OSError, MemoryError):
                # Out of descriptors, or the client has gone: the next one may succeed.
                if self._closing.wait(_ACCEPT_AGAIN_SECONDS):
                    return
                continue
            if len(self._clients) >= CLIENTS_LIMIT:
                _turn_away(connection, f"expected at most {CLIENTS_LIMIT} clients, found one more")
                continue
            client = _Client(connection, lambda: self._commands, self._limits, self._forget)
            with self._lock:
                self._clients += (client,)
            try:
                client.start()
            except (RuntimeError, MemoryError) as error:
                # No thread can be started at present.
                self._forget(client)
                _turn_away(connection, str(error))

    def _forget(self, client: _Client) -> None:
        with self._lock:
            self._clients = tuple(other for other in self._clients if other is not client)

    def _query_commands(self) -> list[dict[str, str]]:
        return [{"name": name} for name in sorted({*self._commands, _NEGOTIATION})]


class _Client:
    """Connection of a client: a thread that reads and executes commands, and one that writes."""

    def __init__(
        self,
        connection: socket.socket,
        commands: Callable[[], Mapping[str, MonitorCommand]],
        limits: tuple[int, int],
        on_end: Callable[[_Client], None],
    ) -> None:
        self._connection = connection
        self._commands = commands
        self._negotiation = MonitorCommand(self._negotiate, optional={"enable": list})
        self._messages_limit, self._unread_limit = limits
        self._on_end = on_end
        self._open = True
        self._negotiated = False
        #: Whether the client gets events.
        self.listens = False
        #: Guards the client's queue, and notifies of its changes.
        self._changed = threading.Condition()
        self._waiting: deque[_Message] = deque()
        self._unread = 0
        self._read_all = False
        self._reader = threading.Thread(target=self._read, name="QMP reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name="QMP writer", daemon=True)

    def start(self) -> None:
        """Start both threads, or none.

        Raises
        ------
        RuntimeError
            If no more threads can be started.
        """
        self.send(_Line({"QMP": {"version": VERSION, "capabilities": []}}))
        self._reader.start()
        try:
            self._writer.start()
        except (RuntimeError, MemoryError):
            self.shut_down(socket.SHUT_RD)
            self._reader.join()
            raise

    def send(self, message: _Message) -> None:
        """Queue a message, or drop a client that does not read its queue."""
        with self._changed:
            too_many = len(self._waiting) >= self._messages_limit
            # A message longer than the limit is accepted if the queue is empty.
            too_long = self._unread and self._unread + message.size > self._unread_limit
            if not (too_many or too_long):
                self._waiting.append(message)
                self._unread += message.size
                self._changed.notify_all()
                return
        self.shut_down(socket.SHUT_RDWR)

    def behind(self) -> int:
        """Count the messages that wait to be sent."""
        return len(self._waiting)

    def shut_down(self, how: int) -> None:
        """Accept no further command; after SHUT_RD, queued messages and the last reply are sent."""
        self._open = self.listens = False
        with suppress(OSError):
            self._connection.shutdown(how)
        with self._changed:
            self._changed.notify_all()

    def join(self, timeout: float) -> None:
        self._writer.join(timeout)

    def _read(self) -> None:
        try:
            for request in self._requests():
                self._reply(self._answer(request))
                # Events come after the reply to the negotiation.
                self.listens = self._negotiated and self._open
                if not self._open or isinstance(request, TextTooLong):
                    break
        finally:
            self.listens = False
            with self._changed:
                self._read_all = True
                self._changed.notify_all()

    def _requests(self) -> Iterator[Any]:
        parser = QMPParser()
        with suppress(OSError):
            while received := self._connection.recv(_RECEIVE_BYTES):
                yield from parser.feed(received)

    def _reply(self, reply: _Line) -> None:
        """Queue a reply as soon as there is room for it."""

        def has_room() -> bool:
            return not self._unread or self._unread + reply.size <= self._unread_limit

        with self._changed:
            self._changed.wait_for(lambda: has_room() or not self._open, UNREAD_SECONDS)
        self.send(reply)

    def _next(self) -> _Message | None:
        """Wait for the next message to write; return None if there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._read_all)
            return self._waiting[0] if self._waiting else None

    def _written(self, message: _Message) -> None:
        message.on_written()
        with self._changed:
            self._waiting.popleft()
            self._unread -= message.size
            self._changed.notify_all()

    def _write(self) -> None:
        try:
            while message := self._next():
                self._connection.sendall(message.line)
                self._written(message)
        except OSError:
            # The client has gone, or was dropped.
            pass
        finally:
            self.shut_down(socket.SHUT_RDWR)
            self._reader.join()
            self._connection.close()
            self._on_end(self)

    def _answer(self, request: Any) -> _Line:
        identity: dict[str, object] = {}
        try:
            if isinstance(request, QMPParseError):
                raise request
            if not isinstance(request, dict):
                raise _Refused("QMP input must be a JSON object")
            if "id" in request:
                identity["id"] = request["id"]
            _check(request)
            result = self._execute(request["execute"], request.get("arguments", {}))
            return _Line({"return": result, **identity})
        except ColobenchError as error:
            error_class = getattr(error, "error_class", "GenericError")
            failure = {"class": error_class, "desc": str(error)}
        except Exception as error:
            _logger.exception("QMP command %.80s", request["execute"])
            failure = {"class": "GenericError", "desc": f"internal error: {error!r}"}
        return _Line({**identity, "error": failure})

    def _execute(self, name: str, arguments: Mapping[str, object]) -> object:
        if (name == _NEGOTIATION) == self._negotiated:
            raise _Refused(
                "Capabilities negotiation is already complete, command ignored"
                if self._negotiated
                else "Expecting capabilities negotiation with 'qmp_capabilities'",
                "CommandNotFound",
            )
        command = self._negotiation if name == _NEGOTIATION else self._commands().get(name)
        if command is None:
            raise _Refused(f"The command {name} has not been found", "CommandNotFound")
        return command.call(arguments)

    def _negotiate(self, enable: list[object] | None = None) -> None:
        if enable:
            raise _Refused(f"Capability {enable[0]} not available")
        self._negotiated = True


class _Message:
    """Message to a client: a line, and the number of bytes that it counts for."""

    line: bytes
    size: int

    def on_written(self) -> None:
        """Take note that the line, and all lines before it, were sent."""


class _Line(_Message):
    """Greeting or reply."""

    def __init__(self, message: Mapping[str, object]) -> None:
        self.line = _encode(message)
        self.size = len(self.line)


class _Sent(threading.Event, _Message):
    """Mark in a client's queue, which is set when all messages before it were sent."""

    line = b""
    size = 0

    def on_written(self) -> None:
        """Wake the thread that waits for the mark."""
        self.set()


class _Event(_Message):
    """Event for all clients; the first thread that writes it encodes it as JSON."""

    def __init__(self, name: str, data: Mapping[str, object] | None) -> None:
        self._name = name
        self._data = data
        self._time_ns = time.time_ns()
        strings = [value for value in (data or {}).values() if isinstance(value, str)]
        self.size = _EVENT_BYTES + sum(map(len, strings))

    @cached_property
    def line(self) -> bytes:  # type: ignore[override]
        """Encode the event."""
        seconds, nanoseconds = divmod(self._time_ns, 1_000_000_000)
        timestamp = {"seconds": seconds, "microseconds": nanoseconds // 1000}
        data = {} if self._data is None else {"data": self._data}
        return _encode({"timestamp": timestamp, "event": self._name, **data})


def _encode(message: Mapping[str, object]) -> bytes:
    # NaN is no JSON.
    return json.dumps(message, allow_nan=False).encode() + b"\r\n"


def _turn_away(connection: socket.socket, why: str) -> None:
    """Send a client the reason why it is not served, without waiting, and close its connection."""
    with connection, suppress(OSError):
        connection.setblocking(False)
        connection.send(_encode({"error": {"class": "GenericError", "desc": why}}))


def _check(request: Mapping[str, object]) -> None:
    """Check a command's members."""
    for name, value in request.items():
        if name == "execute" and not isinstance(value, str):
            raise _Refused("QMP input member 'execute' must be a string")
        if name == "arguments" and not isinstance(value, dict):
            raise _Refused("QMP input member 'arguments' must be an object")
        if name not in ("execute", "arguments", "id"):
            raise _Refused(f"QMP input member '{name}' is unexpected")
    if "execute" not in request:
        raise _Refused("QMP input lacks member 'execute'")


def _is_a(value: object, expected: type) -> bool:
    """Check a JSON type: true is not an integer, and an integer is a number."""
    if expected is float and type(value) is float:
        return True
    if expected in (int, float):
        return type(value) is int and -(1 << 63) <= value < 1 << 63
    return type(value) is expected
