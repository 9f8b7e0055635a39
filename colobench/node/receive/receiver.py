"""Receiver: the secondary of a real QEMU primary, over RAM that belongs to no guest.

It follows the conversation's table as `colobench.node.secondary` does, and takes the stream by the
same loader. Machine type, RAM blocks and devices are learnt from the stream. Its RAM cache is all
the RAM that it has: there is nothing to flush, and nothing runs.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from colobench.errors import ColobenchError, LocalError, RemoteError
from colobench.kernels import bitmap
from colobench.kernels.warmup import load
from colobench.memory.ram import PageMemory, RAMCache, lay_out
from colobench.node.address import Address
from colobench.node.channel import Channel
from colobench.node.colo_thread import ColoThread, Interrupted
from colobench.node.connection import PeerLost
from colobench.node.migration.stream import StreamReceiver
from colobench.node.primary_stream import PrimaryStream, follow
from colobench.node.receive.disks import DiskNotFollowed, ReceivedDisks
from colobench.node.receive.image import ImageLayout
from colobench.node.receive.records import ReceivedCheckpoint, SavedCheckpoint
from colobench.node.receive.saver import CheckpointSaver
from colobench.node.wait import Wait
from colobench.protocol.colo import (
    UPSTREAM,
    ColoAction,
    Conversation,
    LocalEvent,
    Role,
)
from colobench.settings.checkpoint import Capture, Layout
from colobench.wire import savevm
from colobench.wire.learning import PEER_RAM, LearningLoader
from colobench.wire.loadvm import COLO_DEVICES, Loaded
from colobench.wire.messages import SIZE_LIMIT, Message
from colobench.wire.reader import VMDESCRIPTION_LIMIT

#: Seconds without progress, where the primary has something to send, after which it counts as lost.
STALL_TIMEOUT: Final = 10.0
#: Seconds from the end of a primary's first connection to that of its last one.
_END_SECONDS: Final = 1.0
#: Records that are kept.
KEPT_RECORDS: Final = 10_000


class MoreConnections(RemoteError):
    """A primary with more connections than the one whose stream is followed."""


def kernel_modules() -> tuple[str, ...]:
    """Name the modules with the kernels that a receiver runs."""
    names = ("xbzrle", "xbzrle_records", "bitmap", "page_records", "socket_io")
    return tuple(f"colobench.kernels.{name}" for name in names)


class Receiver:
    """Secondary of a real QEMU primary, which keeps its checkpoints and has no guest.

    Parameters
    ----------
    address
        Address for the primary's ``migrate``: ``unix:PATH`` or ``tcp:HOST:PORT``.
    save
        File that gets the last committed checkpoint, for ``-incoming "exec: cat FILE"``; None for
        none.
    disks
        Disks that the primary writes to, which are kept at the checkpoint in the file; None for
        none. They need a file.
    checkpoints
        Number of checkpoints after which it ends; None for no limit.
    stall_timeout
        Seconds that each part of the conversation may take, besides the time for its bytes.
    ram_limit
        Most bytes of RAM that a primary may have; by default, those that are available.
    on_checkpoint
        Function that is called with each committed checkpoint, between two checkpoints.
    on_saved
        Function that is called with each checkpoint that is in the file, in another thread.
    before_loaded
        Function that is called with a checkpoint's number and the RAM cache while the primary's
        guest stands still: behind RECEIVED, before LOADED.

    Attributes
    ----------
    checkpoints
        The last committed checkpoints, as many as `KEPT_RECORDS`.
    error
        Why it has ended; None if it has not, or has ended as it was asked to. PeerLost is the end
        of a primary.
    memory
        The RAM cache; None before the primary has listed its blocks, and after the end.

    Examples
    --------
    >>> with Receiver("unix:/tmp/colo", save="guest.migration") as receiver:
    ...     receiver.wait()                    # until the primary is gone
    >>> receiver.committed, receiver.saved     # the same number

    Raises
    ------
    LocalError
        If the address is none, the file cannot be replaced or is another receiver's, or there are
        disks and no file.
    """

    role = Role.SECONDARY

    def __init__(
        self,
        address: str,
        save: Path | str | None = None,
        *,
        disks: ReceivedDisks | None = None,
        checkpoints: int | None = None,
        stall_timeout: float = STALL_TIMEOUT,
        ram_limit: int | None = None,
        on_checkpoint: Callable[[ReceivedCheckpoint], object] = lambda checkpoint: None,
        on_saved: Callable[[SavedCheckpoint], object] = lambda saved: None,
        before_loaded: Callable[[int, PageMemory], object] = lambda number, memory: None,
    ) -> None:
        self._address = Address.parse(address)
        self._most, self._stall_timeout = checkpoints, stall_timeout
        self._on_checkpoint, self._before_loaded = on_checkpoint, before_loaded
        self._saver = None if save is None else CheckpointSaver(Path(save), on_saved)
        if disks is not None and save is None:
            raise LocalError("disks: expected a file for the guest's state, found none")
        self._disks, self._file = disks, Path(save or "")
        limit = psutil.virtual_memory().available if ram_limit is None else ram_limit
        self._loader = LearningLoader(self._make_memory, limit)
        self._colo = ColoThread(
            Conversation(Role.SECONDARY, UPSTREAM, Layout.SEPARATED, Capture.STOP_AND_SEND), self
        )
        self._stream: PrimaryStream | None = None
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._ended.set()
        self._began = 0.0
        self._first_byte = self._size = 0
        self._ram, self._devices = Loaded(), Loaded()
        self._unreported: list[ReceivedCheckpoint] = []
        self.checkpoints: deque[ReceivedCheckpoint] = deque(maxlen=KEPT_RECORDS)
        self.error: ColobenchError | None = None
        self.memory: RAMCache | None = None

    # Interface.

    def start(self) -> str:
        """Listen, and follow the first primary that connects; return the address.

        Raises
        ------
        LocalError
            If the address cannot be had, a disk cannot be served, or no thread can be started.
        """
        # A primary stands still while its checkpoint arrives: nothing is compiled then.
        for _ in load(kernel_modules()):
            pass
        if self._disks is not None:
            self._disks.serve(self._file)
        try:
            self._listener, listening = self._address.listen()
            self._ended.clear()
            self._colo.run(self._run)
        except (LocalError, RuntimeError) as error:
            self._ended.set()
            self._end_disks()
            self._close()
            if isinstance(error, LocalError):
                raise
            raise LocalError(f"receiver: {error}") from error
        return str(listening)

    def wait(self) -> None:
        """Wait for the end."""
        # An interrupt of `Thread.join` makes Python 3.11 take the thread for ended.
        if threading.current_thread() is not self._thread:
            self._ended.wait()

    def stop(self) -> None:
        """End; what is committed is saved first."""
        with self._lock:
            self._stopping = True
            if self._listener is not None:
                with suppress(OSError):
                    self._listener.shutdown(socket.SHUT_RDWR)
            self._colo.shut_down()
        self.wait()

    @property
    def committed(self) -> int | None:
        """Number of the last committed checkpoint; None before the migration is complete."""
        return self.checkpoints[-1].number if self.checkpoints else None

    @property
    def saved(self) -> int | None:
        """Number of the checkpoint that is in the file; None if there is none."""
        return None if self._saver is None else self._saver.number

    def __enter__(self) -> Receiver:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    # Steps of the conversation, in the COLO thread.

    def actions(self) -> Mapping[ColoAction, Callable[[], None]]:
        """Return a function for each action of the conversation's table."""
        return {
            ColoAction.START_GUEST: lambda: None,
            ColoAction.STOP_GUEST: self._release_cache,
            ColoAction.BECOME_PASSIVE: lambda: None,
            ColoAction.SEND_CHECKPOINT_READY: lambda: self._colo.send(Message.CHECKPOINT_READY),
            ColoAction.SEND_CHECKPOINT_REPLY: self._reply,
            ColoAction.RECEIVE_RAM: self._receive_ram,
            ColoAction.RECEIVE_BUFFER: self._receive_buffer,
            ColoAction.SEND_VMSTATE_RECEIVED: self._say_received,
            ColoAction.FLUSH_AND_LOAD: self._load,
            ColoAction.SEND_VMSTATE_LOADED: self._say_loaded,
        }

    def message_received(self, received: Message, value: int | None) -> None:
        """Take note of a message's value."""
        if value is not None:
            self._size = value

    def size_limit(self) -> int:
        """Return the largest device buffer that is accepted, bytes."""
        return SIZE_LIMIT

    def colo_failed(self, error: BaseException) -> None:
        """Keep the reason of the end."""
        if not self._stopping:
            if not isinstance(error, ColobenchError):
                error = LocalError(f"{type(error).__name__}: {error}")
            self.error = error

    def _run(self) -> None:
        self._thread = threading.current_thread()
        try:
            self._follow()
        except Interrupted:
            pass
        except Exception as error:
            self.colo_failed(error)
        finally:
            self._ended.set()

    def _follow(self) -> None:
        try:
            self._accept()
            self._take_migration()
            follow(self._colo, self._channel(), self._between)
        except OSError as error:
            raise LocalError(error.strerror or str(error)) from error
        finally:
            try:
                self._report()
            finally:
                if self._saver is not None:
                    self._saver.finish()
                try:
                    self._end_disks()
                finally:
                    self._close()

    def _end_disks(self) -> None:
        if self._disks is not None:
            self._disks.end(self._file, is_saved=self.saved is not None)

    def _close(self) -> None:
        with self._lock:
            self._colo.close()
            if self._listener is not None:
                self._listener.close()
                self._address.remove()
                self._listener = None
        memory, self.memory = self.memory, None
        if memory is not None:
            memory.close()

    def _accept(self) -> None:
        assert self._listener is not None
        connection = Wait("a primary", None).accept(self._listener)
        with self._lock:
            if self._stopping:
                connection.close()
                raise Interrupted
            channel = self._colo.channel = Channel(connection, self._stall_timeout)
        StreamReceiver(channel)
        self._stream = PrimaryStream(channel, self._loader)
        channel.wait()
        self._began = time.perf_counter()
        self._stream.header()

    def _channel(self) -> Channel:
        assert self._colo.channel is not None
        return self._colo.channel

    def _make_memory(self, sizes: Mapping[str, int]) -> PageMemory:
        self.memory = RAMCache("colobench-ram-cache", lay_out(sizes))
        return self.memory

    def _take_migration(self) -> None:
        assert self._stream is not None
        loaded = self._stream.migration()
        self._stream.description(VMDESCRIPTION_LIMIT)
        self._refuse_channels()
        assert self.memory is not None
        self._ram = self._devices = loaded
        self._size = sum(len(section.data) for section in loaded.opaque_states) + 1
        if self._saver is not None:
            header, ram = self._loader.header, self._loader.ram_section_id
            self._saver.start(ImageLayout.of(header, ram, self.memory.blocks), self.memory)
        if self._disks is not None:
            with self._unless_it_ends():
                self._disks.begin()
        self._colo.happened(LocalEvent.MIGRATED)
        self._colo.step()
        self._commit()

    def _refuse_channels(self) -> None:
        """Refuse a primary whose pages are on other connections, which are there by now.

        Raises
        ------
        MoreConnections
        """
        assert self._listener is not None
        waiting, _, _ = select.select([self._listener], [], [], 0)
        if waiting:
            raise MoreConnections(
                "connections: expected all pages in the main one (capability multifd off), found "
                f"more connections at offset {self._channel().received}"
            )

    def _between(self) -> None:
        """Report the last checkpoint, and end after the last one that was asked for."""
        self._report()
        if self._most is not None and (self.committed or 0) >= self._most:
            raise Interrupted
        self._first_byte = self._channel().buffer.offset

    def _release_cache(self) -> None:
        """Wait until the last checkpoint's pages were written: the primary's guest runs on."""
        if self._saver is not None:
            self._saver.wait_until_captured()
        self._check_disks()

    def _check_disks(self) -> None:
        if self._disks is not None:
            with self._unless_it_ends():
                self._disks.check(self._next_number, self.saved)

    @contextmanager
    def _unless_it_ends(self) -> Iterator[None]:
        """Tell a primary that ends, one connection after the other, from one without a disk."""
        try:
            yield
        except DiskNotFollowed as error:
            if self._channel().has_ended(within=_END_SECONDS):
                raise PeerLost(f"connection closed, and one of a disk before: {error}") from error
            raise

    def _reply(self) -> None:
        self._began = time.perf_counter()
        self._colo.send(Message.CHECKPOINT_REPLY)

    def _receive_ram(self) -> None:
        assert self._stream is not None
        assert self.memory is not None
        self._ram = self._stream.pages(PEER_RAM, len(self.memory.array))
        self._colo.happened(LocalEvent.RAM_RECEIVED)

    def _receive_buffer(self) -> None:
        assert self._stream is not None
        self._devices = self._stream.sized(self._size, COLO_DEVICES)
        self._colo.happened(LocalEvent.BUFFER_RECEIVED)

    def _say_received(self) -> None:
        if self._disks is not None:
            # Its guest stands still: whatever it has written is here, if its quorum still writes.
            self._check_disks()
            self._disks.commit()
        self._colo.send(Message.VMSTATE_RECEIVED)

    def _load(self) -> None:
        """Let RAM be compared: the cache is RAM already, so there is nothing to load."""
        assert self.memory is not None
        self._before_loaded(self._next_number, self.memory)
        self._colo.happened(LocalEvent.LOADED)

    def _say_loaded(self) -> None:
        try:
            self._colo.send(Message.VMSTATE_LOADED)
        finally:
            # RECEIVED was sent, so it is committed, even if the primary is gone by now.
            self._commit()

    def _commit(self) -> None:
        """Hand the checkpoint to the saver, while the primary's guest runs."""
        spent = 1000 * (time.perf_counter() - self._began)
        memory, ram, devices = self.memory, self._ram, self._devices.opaque_states
        assert memory is not None
        checkpoint = ReceivedCheckpoint(
            number=self._next_number,
            pages=ram.pages,
            zero_pages=ram.zero_pages,
            bytes=self._channel().buffer.offset - self._first_byte,
            device_bytes=self._size,
            devices=len(devices),
            milliseconds=spent,
            machine=self._loader.machine,
        )
        if self._saver is not None:
            sections = b"".join(section.data for section in devices) + savevm.EOF
            if self._disks is not None:
                sections += self._disks.mark(checkpoint.number)
            self._saver.committed(checkpoint.number, memory.bitmap, sections)
        bitmap.clear(memory.bitmap)
        self.checkpoints.append(checkpoint)
        self._unreported.append(checkpoint)

    @property
    def _next_number(self) -> int:
        return 0 if self.committed is None else self.committed + 1

    def _report(self) -> None:
        while self._unreported:
            self._on_checkpoint(self._unreported.pop(0))
