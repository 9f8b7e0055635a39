"""NBD client: a disk of a server elsewhere, with many requests in flight."""

from __future__ import annotations

import errno
import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, TypeAlias

from colobench.block.backend import BlockData, BlockError
from colobench.block.nbd.client_conversation import (
    ClientConversation,
    ClientEvent,
    ExportOpened,
    NBDReply,
)
from colobench.block.nbd.conversation import fresh_memory
from colobench.block.nbd.errors import ExportRefused
from colobench.block.nbd.format import (
    NO_FLAGS,
    ExtentState,
    NBDCommand,
    NBDCommandFlag,
    TransmissionFlag,
)
from colobench.block.request import NBD_LENGTH_MAX, SECTOR_SIZE, BlockRequest, RequestKind
from colobench.errors import ColobenchError, LocalError, RemoteError
from colobench.node.address import Address
from colobench.node.connection import PeerLost
from colobench.node.disk.nbd_connection import STALL_TIMEOUT, NBDConnection

#: Function that hears of a request's end: the bytes that a READ has read, and the error or None.
#: A `BlockError` is the server's answer; a `RemoteError` says that the connection has ended, and
#: then the request may have been done or not.
OnDone: TypeAlias = Callable[[memoryview, BlockError | RemoteError | None], None]

_Heard: TypeAlias = Callable[[NBDReply | BlockError | RemoteError], None]
_NOTHING: Final = memoryview(b"")
_READ_ONLY_KINDS: Final = {RequestKind.READ, RequestKind.FLUSH}
#: Command and flags of each kind. A DISCARD leaves zeros, which TRIM does not promise; WRITE_ZEROES
#: without NO_HOLE gives the space back, too.
_COMMANDS: Final = {
    RequestKind.READ: (NBDCommand.READ, NO_FLAGS),
    RequestKind.WRITE: (NBDCommand.WRITE, NO_FLAGS),
    RequestKind.FLUSH: (NBDCommand.FLUSH, NO_FLAGS),
    RequestKind.DISCARD: (NBDCommand.WRITE_ZEROES, NO_FLAGS),
    RequestKind.WRITE_ZEROES: (NBDCommand.WRITE_ZEROES, NBDCommandFlag.NO_HOLE),
}
#: Flag that the export must have for a command.
_NEEDED: Final = {
    NBDCommand.FLUSH: TransmissionFlag.SEND_FLUSH,
    NBDCommand.WRITE_ZEROES: TransmissionFlag.SEND_WRITE_ZEROES,
}
_logger = logging.getLogger(__name__)


class NBDClient:
    """A connection to an NBD server, and its export as a disk.

    Several threads may make requests at once. The object does not connect again.

    Parameters
    ----------
    address
        Address of the server.
    export
        Name of the export; empty for the server's default.
    allocation
        Whether to ask the server where it has holes.
    stall_timeout
        Seconds that the server may be silent while something is due: connecting and negotiating
        together, or a reply.

    Attributes
    ----------
    export
        Size, abilities and limits of the export.

    Raises
    ------
    LocalError
        If no process answers at the address.
    PeerLost, PeerStalled, NBDError
        If the server ends the connection, is silent, or does not keep to the protocol.
    ExportRefused
        If it does not serve the export, or only in blocks larger than a sector.
    """

    def __init__(
        self,
        address: Address,
        export: str = "",
        *,
        allocation: bool = False,
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        self._conversation = ClientConversation(export, allocation=allocation)
        connection = address.connect(stall_timeout)
        self._connection: NBDConnection[ClientEvent] = NBDConnection(
            connection, self._conversation, stall_timeout, lambda: bool(self._waiting)
        )
        #: Guards the conversation's requests, those that wait, and the error.
        self._lock = threading.Lock()
        self._waiting: dict[int, _Heard] = {}
        self._error: RemoteError | None = None
        try:
            self.export = self._open()
            self._receiver = threading.Thread(target=self._receive, name="NBD client", daemon=True)
            self._receiver.start()
        except RuntimeError as error:
            self._connection.close()
            raise LocalError(f"NBD client: {error}") from error
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> ExportOpened:
        events: list[ClientEvent] = []
        while not events:
            self._connection.send_outgoing()
            events = self._connection.receive()
        (opened,) = events
        assert isinstance(opened, ExportOpened)
        if opened.smallest > SECTOR_SIZE:
            raise ExportRefused(
                f"NBD export: expected blocks of {SECTOR_SIZE} bytes, found {opened.smallest}"
            )
        return opened

    @property
    def size(self) -> int:
        """Size of the disk, bytes."""
        return self.export.size

    @property
    def in_flight(self) -> int:
        """Number of requests whose end nobody has heard of yet."""
        return len(self._waiting)

    @property
    def error(self) -> RemoteError | None:
        """Reason of the connection's end; None while it lasts."""
        return self._error

    def submit(
        self, request: BlockRequest, on_done: OnDone, into: memoryview | None = None
    ) -> None:
        """Send a request, and return without its answer.

        Parameters
        ----------
        request
            Request; its data is sent before this method returns.
        on_done
            Function that is called once, soon after the answer or the connection's end, in the
            thread that receives: it must return quickly, and not make requests.
        into
            Memory for what a READ reads, which then hands it to `on_done`; None for a new one.

        Raises
        ------
        BlockError
            If the request does not fit the export.
        RemoteError
            If the connection had ended before; then `on_done` is not called.
        """
        command, flags = self._check(request.kind, request.length, request.fua)
        reads = request.kind is RequestKind.READ
        memory = (into or fresh_memory(request.length)) if reads else _NOTHING

        def heard(answer: NBDReply | BlockError | RemoteError) -> None:
            if isinstance(answer, NBDReply):
                on_done(memory, None)
            else:
                on_done(_NOTHING, answer)

        place = request.offset, request.length
        self._send(command, flags, *place, request.data, heard, memory)

    def close(self) -> None:
        """End the connection; requests in flight hear of a `PeerLost`."""
        with self._lock:
            if self._error is None:
                self._error = PeerLost("NBD client: closed")
            goodbye = not self._waiting and not self._conversation.over
        if goodbye and self._receiver.is_alive():
            with suppress(ColobenchError):
                self._connection.send_pieces([self._conversation.disconnect()])
        self._connection.shut_down()
        self._receiver.join()
        self._connection.close()

    def __enter__(self) -> NBDClient:
        """Return this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    # -- As a BlockBackend ---------------------------------------------------------------------

    def read(self, offset: int, length: int) -> bytes:
        """Return the contents of a range; see `BlockBackend`.

        Raises
        ------
        BlockError, RemoteError
            See `OnDone`.
        """
        return bytes(self._do(RequestKind.READ, offset, length))

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        """Write a range; see `read`."""
        self._do(RequestKind.WRITE, offset, len(data), data, fua)

    def flush(self) -> None:
        """Bring every write that was answered to stable storage; see `read`."""
        self._do(RequestKind.FLUSH)

    def discard(self, offset: int, length: int) -> None:
        """Give the space of a range back, and leave zeros; see `read`."""
        self._do(RequestKind.DISCARD, offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeros, and keep the space; see `read`."""
        self._do(RequestKind.WRITE_ZEROES, offset, length)

    def extents(self, offset: int, length: int) -> list[tuple[int, bool]]:
        """Return the length in bytes of each extent from an offset on, and whether it is zeros.

        A server that does not say where it has holes has one extent. The extents may end before
        the range. Errors are those of `read`.
        """
        if not self.export.allocation:
            return [(length, False)]
        reply = self._wait_for(
            lambda heard: self._send(NBDCommand.BLOCK_STATUS, NO_FLAGS, offset, length, b"", heard)
        )
        return [(size, bool(state & ExtentState.ZERO)) for size, state in reply.extents]

    def _do(
        self,
        kind: RequestKind,
        offset: int = 0,
        length: int = 0,
        data: BlockData = b"",
        fua: bool = False,
    ) -> memoryview:
        """Do a request, wait for its answer, and return what was read."""
        command, flags = self._check(kind, length, fua)
        memory = fresh_memory(length) if kind is RequestKind.READ else _NOTHING
        self._wait_for(
            lambda heard: self._send(command, flags, offset, length, data, heard, memory)
        )
        return memory

    def _wait_for(self, send: Callable[[_Heard], None]) -> NBDReply:
        answers: queue.SimpleQueue[NBDReply | BlockError | RemoteError] = queue.SimpleQueue()
        send(answers.put)
        answer = answers.get()
        if isinstance(answer, NBDReply):
            return answer
        raise answer

    # -- Sending and receiving -----------------------------------------------------------------

    def _send(
        self,
        command: NBDCommand,
        flags: NBDCommandFlag,
        offset: int,
        length: int,
        data: BlockData,
        heard: _Heard,
        memory: memoryview = _NOTHING,
    ) -> None:
        with self._lock:
            if self._error is not None:
                raise self._error
            try:
                cookie, header = self._conversation.request(command, offset, length, flags, memory)
            except LocalError as error:
                raise BlockError(errno.EINVAL, str(error)) from error
            self._waiting[cookie] = heard
        try:
            self._connection.send_pieces([header, data])
        except RemoteError as error:
            self._end(error)

    def _check(
        self, kind: RequestKind, length: int, fua: bool
    ) -> tuple[NBDCommand, NBDCommandFlag]:
        """Check a request against the export's abilities; return its command and flags."""
        export = self.export
        command, flags = _COMMANDS[kind]
        needed = _NEEDED.get(command, TransmissionFlag(0))
        if fua:
            needed |= TransmissionFlag.SEND_FUA
            flags |= NBDCommandFlag.FUA
        if export.flags & TransmissionFlag.READ_ONLY and kind not in _READ_ONLY_KINDS:
            raise BlockError(errno.EPERM, f"{kind.name}: the export is read-only")
        if needed & ~export.flags:
            raise BlockError(errno.ENOTSUP, f"{kind.name}: the server lacks {needed.name}")
        most = min(export.largest, NBD_LENGTH_MAX)
        if length > most:
            raise BlockError(
                errno.EINVAL, f"{kind.name}: expected at most {most} bytes, found {length}"
            )
        return command, flags

    def _receive(self) -> None:
        try:
            while True:
                for event in self._connection.receive():
                    assert isinstance(event, NBDReply)
                    self._finish(event)
        except RemoteError as error:
            self._end(error)
        except Exception as error:
            _logger.exception("NBD client")
            self._end(PeerLost(f"NBD client: {error!r}"))
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            assert self._error is not None
        for heard in waiting.values():
            _tell(heard, self._error)

    def _end(self, error: RemoteError) -> None:
        """Note the first error; the thread that receives tells it to all."""
        with self._lock:
            if self._error is None:
                self._error = error
        self._connection.shut_down()

    def _finish(self, reply: NBDReply) -> None:
        with self._lock:
            heard = self._waiting.pop(reply.cookie)
        if reply.error:
            words = reply.text or "the server gives no reason"
            _tell(heard, BlockError(reply.error, f"NBD server: {words}"))
        else:
            _tell(heard, reply)


def _tell(heard: _Heard, answer: NBDReply | BlockError | RemoteError) -> None:
    try:
        heard(answer)
    except Exception:
        # It has no caller; and others wait for their answers.
        _logger.exception("NBD client: a function that hears of a request's end")
