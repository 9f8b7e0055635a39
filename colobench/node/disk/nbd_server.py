"""NBD server: any client of NBD reads and writes disks; replies go out in the order of their work.

Each client has a thread that receives, and threads that do its requests. Small writes are done by
the one that receives, if the backend says that they need not wait. A client that asks for more than
`IN_FLIGHT_LIMIT` requests, or `BYTES_LIMIT` bytes, at once is not received from until some are
answered.
"""

from __future__ import annotations

import errno
import logging
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol, runtime_checkable

from colobench.block.backend import BlockBackend, BlockData, BlockError, Extents
from colobench.block.nbd.conversation import fresh_memory
from colobench.block.nbd.format import ExtentState, NBDCommand, NBDCommandFlag
from colobench.block.nbd.server_conversation import (
    EXTENTS_LIMIT,
    ExportChosen,
    NBDExport,
    NBDRequest,
    Pieces,
    ServerConversation,
    ServerEvent,
    check_exports,
)
from colobench.block.request import NBD_LENGTH_MAX
from colobench.errors import ColobenchError, LocalError
from colobench.node.disk.nbd_connection import STALL_TIMEOUT, NBDConnection

#: Most clients at a time; the connection of one more is closed.
CLIENTS_LIMIT: Final = 16
#: Most requests of a client that are worked on at once, and bytes of data that these may have.
IN_FLIGHT_LIMIT: Final = 16
BYTES_LIMIT: Final = 64 << 20
_ACCEPT_AGAIN_SECONDS = 0.05
#: Longest write that the thread that receives does itself if it need not wait, bytes: it takes less
#: time than to wake another thread. Those that are to be on stable storage are not among them.
AT_ONCE_BYTES: Final = 64 << 10
#: Sizes of data whose memory is used again, because new memory costs as much time as a copy.
_SPARE_FROM, _SPARE_BYTES = 64 << 10, 1 << 20
_logger = logging.getLogger(__name__)


@runtime_checkable
class PromptBackend(Protocol):
    """Ability of some backends: they know whether a write need not wait."""

    def write_at_once(self, offset: int, data: BlockData) -> bool:
        """Write, or do nothing and return False if something has to be waited for."""


class NBDServer:
    """Server of disks to any number of clients, up to `CLIENTS_LIMIT` at a time.

    Parameters
    ----------
    exports
        Disks by the names of their exports. Their methods are called in several threads at once;
        data of a write is valid until `write` returns.
    listener
        Listening socket, which this object closes.
    read_only
        Whether requests that write are refused.
    stall_timeout
        Seconds that negotiation, a message that has begun, or the reception of a reply may take,
        in addition to the time of its bytes. A client may be silent between requests.

    Raises
    ------
    LocalError
        If an export has a size or a name that NBD does not allow.
    """

    def __init__(
        self,
        exports: Mapping[str, BlockBackend],
        listener: socket.socket,
        *,
        read_only: bool = False,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        self._backends = dict(exports)
        self._exports = {
            name: NBDExport(backend.size, read_only, allocation=isinstance(backend, Extents))
            for name, backend in exports.items()
        }
        check_exports(self._exports.items())
        self._listener = listener
        self._stall_timeout = stall_timeout
        self._lock = threading.Lock()
        self._clients: set[_Client] = set()
        self._closing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="NBD accept", daemon=True)

    def start(self) -> None:
        """Accept clients from now on."""
        self._acceptor.start()

    def __enter__(self) -> NBDServer:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    @property
    def clients(self) -> int:
        """Number of connected clients."""
        return len(self._clients)

    def connected(self, export: str) -> list[object]:
        """Return the clients of an export whose connections have not ended: a value for each."""
        with self._lock:
            return [each for each in self._clients if each.is_connected(export)]

    def close(self) -> None:
        """End all connections, and return when no request is worked on any more.

        A backend that holds a request has to let it go before.
        """
        self._closing.set()
        with suppress(OSError):
            # `close` alone does not wake the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._acceptor.ident is not None:
            self._acceptor.join()
        self._listener.close()
        with self._lock:
            clients = tuple(self._clients)
        for client in clients:
            client.shut_down()
        for client in clients:
            client.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except (OSError, MemoryError):
                # Out of descriptors, or the client has gone: the next one may succeed.
                self._closing.wait(_ACCEPT_AGAIN_SECONDS)
                continue
            try:
                self._welcome(connection)
            except (OSError, RuntimeError, MemoryError) as error:
                # No thread can be started at present, or the client has gone.
                _logger.warning("NBD client: %s", error)
                connection.close()

    def _welcome(self, connection: socket.socket) -> None:
        with self._lock:
            if self._closing.is_set() or len(self._clients) >= CLIENTS_LIMIT:
                _logger.warning("NBD: expected at most %d clients", CLIENTS_LIMIT)
                connection.close()
                return
            client = _Client(
                connection, self._exports, self._backends, self._stall_timeout, self._forget
            )
            client.start()
            self._clients.add(client)

    def _forget(self, client: _Client) -> None:
        with self._lock:
            self._clients.discard(client)


class _Room:
    """Bound of the requests of one client, and of their bytes, that are worked on at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spare: list[memoryview] = []
        self._requests = self._bytes = 0
        self._closed = False

    def take_bytes(self, size: int) -> None:
        """Wait for room for data."""
        with self._changed:
            # One request fits in any case once no other one is worked on.
            self._wait(lambda: self._bytes + size <= BYTES_LIMIT or not self._requests)
            self._bytes += size

    def allocate(self, size: int) -> memoryview:
        """Wait for room for data, and give memory for it."""
        self.take_bytes(size)
        if not _SPARE_FROM <= size <= _SPARE_BYTES:
            return fresh_memory(size)
        whole = self._spare.pop() if self._spare else fresh_memory(_SPARE_BYTES)
        return whole[:size]

    def take_back(self, memory: memoryview) -> None:
        """Take memory back; a backend that has kept it finds it released."""
        whole = memoryview(memory.obj)
        try:
            memory.release()
        except BufferError:
            # An array over it is still in use.
            return
        if len(whole) == _SPARE_BYTES:
            self._spare.append(whole)

    def take_request(self) -> None:
        """Wait for room for a request."""
        with self._changed:
            self._wait(lambda: self._requests < IN_FLIGHT_LIMIT)
            self._requests += 1

    def give_back(self, size: int) -> None:
        """Note that a request with so many bytes was answered."""
        with self._changed:
            self._requests -= 1
            self._bytes -= size
            self._changed.notify()

    def close(self) -> None:
        """End the waits with a LocalError."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _wait(self, there_is_room: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: self._closed or there_is_room())
        if self._closed:
            raise LocalError("NBD server: closed")


class _Workers:
    """Threads that do requests; as many as were ever needed at once."""

    def __init__(self, do: Callable[[NBDRequest], object]) -> None:
        self._do = do
        self._queue: queue.SimpleQueue[NBDRequest | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def submit(self, request: NBDRequest) -> None:
        """Have a request done; there are at most `IN_FLIGHT_LIMIT` at a time."""
        if not self._idle.acquire(blocking=False):
            # Daemons, so that a request that a backend holds does not keep the process.
            thread = threading.Thread(target=self._work, name="NBD worker", daemon=True)
            thread.start()
            self._threads.append(thread)
        self._queue.put(request)

    def close(self) -> None:
        """Return when all requests are done."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (request := self._queue.get()) is not None:
            self._do(request)
            del request
            self._idle.release()


class _Client:
    """One client: a thread that receives, and threads that do requests."""

    def __init__(
        self,
        connection: socket.socket,
        exports: Mapping[str, NBDExport],
        backends: Mapping[str, BlockBackend],
        stall_timeout: float,
        on_end: Callable[[_Client], None],
    ) -> None:
        self._room = _Room()
        self._conversation = ServerConversation(exports, self._room.allocate)
        self._connection: NBDConnection[ServerEvent] = NBDConnection(
            connection, self._conversation, stall_timeout
        )
        self._backends = backends
        self._export: str | None = None
        self._backend: BlockBackend | None = None
        self._prompt: PromptBackend | None = None
        self._on_end = on_end
        self._workers = _Workers(self._do)
        self._reader = threading.Thread(target=self._read, name="NBD reader", daemon=True)

    def start(self) -> None:
        """Start to receive; raises RuntimeError if no thread can be started."""
        self._reader.start()

    def is_connected(self, export: str) -> bool:
        """Say whether it has chosen an export, and has not gone."""
        return self._export == export and not self._connection.has_ended()

    def shut_down(self) -> None:
        """End the connection; requests that are worked on are not answered."""
        self._room.close()
        self._connection.shut_down()

    def join(self) -> None:
        """Wait until no request is worked on."""
        self._reader.join()

    def _read(self) -> None:
        try:
            while True:
                self._connection.send_outgoing()
                if self._conversation.over:
                    break
                for event in self._connection.receive():
                    self._take(event)
        except ColobenchError as error:
            _logger.info("NBD client: %s", error)
        except (MemoryError, RuntimeError) as error:
            # No memory, or no thread, for a request.
            _logger.warning("NBD client: %s", error)
        finally:
            if not self._conversation.over:
                self.shut_down()
            # A client that has said DISC gets the answers that are on their way.
            self._workers.close()
            self._connection.close()
            self._on_end(self)

    def _take(self, event: ServerEvent) -> None:
        if isinstance(event, ExportChosen):
            self._export = event.name
            self._backend = backend = self._backends[event.name]
            self._prompt = backend if isinstance(backend, PromptBackend) else None
            return
        if event.command is NBDCommand.READ:
            self._room.take_bytes(event.length)
        self._room.take_request()
        small = event.command is NBDCommand.WRITE and event.length <= AT_ONCE_BYTES
        if not small or event.fua or not self._do(event, self._write_at_once):
            self._workers.submit(event)

    def _do(
        self, request: NBDRequest, answer: Callable[[NBDRequest], Pieces | None] | None = None
    ) -> bool:
        """Do a request, and answer it; return False if it was not done, and is to be done later."""
        pieces = self._answer(request, answer or self._perform)
        if pieces is None:
            return False
        try:
            self._connection.send_pieces(pieces)
        except ColobenchError:
            # The thread that receives ends this client.
            self.shut_down()
        finally:
            if request.command is NBDCommand.WRITE:
                self._room.take_back(request.data)
            held = request.command in (NBDCommand.READ, NBDCommand.WRITE)
            self._room.give_back(request.length if held else 0)
        return True

    def _answer(
        self, request: NBDRequest, answer: Callable[[NBDRequest], Pieces | None]
    ) -> Pieces | None:
        try:
            return answer(request)
        except BlockError as error:
            return self._conversation.refuse(request, error.errno, str(error))
        except Exception as error:
            _logger.exception("NBD request: %s", request)
            return self._conversation.refuse(request, errno.EIO, repr(error))

    def _perform(self, request: NBDRequest) -> Pieces:
        assert self._backend is not None
        if request.command is NBDCommand.BLOCK_STATUS:
            return self._conversation.reply_extents(request, _extents(self._backend, request))
        return self._conversation.reply(request, _perform(self._backend, request))

    def _write_at_once(self, request: NBDRequest) -> Pieces | None:
        if self._prompt is None or not self._prompt.write_at_once(request.offset, request.data):
            return None
        return self._conversation.reply(request, b"")


def _extents(backend: BlockBackend, request: NBDRequest) -> list[tuple[int, ExtentState]]:
    """Find the extents of a range."""
    assert isinstance(backend, Extents)
    hole = ExtentState.HOLE | ExtentState.ZERO
    found = backend.extents(request.offset, request.length, EXTENTS_LIMIT)
    return [(length, hole if is_hole else ExtentState(0)) for length, is_hole in found]


def _perform(backend: BlockBackend, request: NBDRequest) -> bytes:
    """Do a request on a backend, and return the bytes that were read."""
    command, offset, length = request.command, request.offset, request.length
    if command is NBDCommand.READ:
        data = backend.read(offset, length)
        if len(data) != length:
            words = f"read of {length} bytes at {offset}: expected all of them, found {len(data)}"
            raise BlockError(errno.EIO, words)
        return data
    if command is NBDCommand.WRITE:
        backend.write(offset, request.data, request.fua)
    elif command is NBDCommand.FLUSH:
        backend.flush()
    else:
        # Both leave zeros; without NO_HOLE the space may be given back.
        keeps_space = request.flags & NBDCommandFlag.NO_HOLE
        clear = backend.write_zeroes if keeps_space else backend.discard
        for at in range(offset, offset + length, NBD_LENGTH_MAX):
            clear(at, min(NBD_LENGTH_MAX, offset + length - at))
        if request.fua:
            backend.flush()
    return b""
