"""A recorded checkpoint that is cut at one place after another, with and without a RAM cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from colobench.errors import LocalError
from colobench.guest.numba.devices import standard_devices
from colobench.guest.numba.machine import MACHINE_TYPE
from colobench.kernels import bitmap, pages
from colobench.kernels.digest import digest
from colobench.kernels.page_records import PAGE_RECORD_BYTES
from colobench.lab.interrupt import interruptible
from colobench.lab.progress import bar
from colobench.lab.session.session import Session
from colobench.memory.ram import RAM, PageMemory, RAMCache, lay_out
from colobench.memory.tracker import Words
from colobench.settings.settings import Settings
from colobench.settings.transport import Encoding, PageTransport
from colobench.wire.loadvm import COLO_DEVICES, COLO_RAM, PRECOPY, Incoming, vmdescription_section
from colobench.wire.messages import message
from colobench.wire.reading import Parser, Parsing, StreamBuffer, parse_bytes, sized_bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """State of a secondary that has received the beginning of a checkpoint, and nothing more.

    Attributes
    ----------
    bytes, pages
        Bytes of the checkpoint that have come, and the whole pages among them.
    arrived
        The pages, uint64[pages / 64], bit i of word w for page 64 w + i.
    committed
        Whether all of it has come.
    cached, direct
        The checkpoint that RAM is of, with a RAM cache and without; None if of neither this one
        nor the one before.
    """

    bytes: int
    pages: int
    arrived: Words = field(repr=False)
    committed: bool
    cached: int | None
    direct: int | None


@dataclass(frozen=True, slots=True)
class TornCheckpoint:
    """A checkpoint with all of its cuts.

    Attributes
    ----------
    checkpoint
        Number of the checkpoint.
    ram_bytes
        Bytes of the guest's RAM.
    cuts
        Cuts from the first byte to the last.
    """

    checkpoint: int
    ram_bytes: int
    cuts: tuple[Cut, ...] = field(repr=False)


class ReplayedSecondary:
    """A secondary without a socket, which loads a recorded stream.

    Parameters
    ----------
    settings
        Settings of the recorded session.
    data
        Bytes that a secondary received, beginning with the migration.
    cache
        Whether pages go to a RAM cache first, or straight to RAM.
    closing
        Stack that frees the memory.
    """

    def __init__(self, settings: Settings, data: bytes, *, cache: bool, closing: ExitStack) -> None:
        blocks = lay_out(settings.guest.block_sizes())
        self.ram = RAM("colobench-torn-ram", blocks)
        closing.callback(self.ram.close)
        self.memory: PageMemory = self.ram
        if cache:
            self.memory = RAMCache("colobench-torn-cache", blocks)
            closing.callback(self.memory.close)
        self._incoming = Incoming(
            MACHINE_TYPE,
            self.memory,
            list(standard_devices()),
            xbzrle=True,
            settings=settings.agreed(),
        )
        self._buffer = StreamBuffer.over(data)
        self._parse(self._migration())

    def follow(self) -> None:
        """Load the next checkpoint, which must be whole."""
        self._parse(self._checkpoint())

    def rest(self) -> int:
        """Count the bytes of the stream that are left."""
        return len(self._buffer)

    def follow_cut(self, step: int) -> Iterator[tuple[int, bool]]:
        """Load the last checkpoint, `step` bytes at a time, without flushing it.

        Yields
        ------
        tuple
            Number of its bytes that have come, and whether the checkpoint is whole.
        """
        buffer = self._buffer
        size, come = len(buffer), 0
        buffer.end = buffer.start
        parsing = Parsing(self._checkpoint(), buffer)
        yield come, False
        while come < size:
            more = min(step, size - come)
            buffer.received(more)
            come += more
            yield come, parsing.step()

    def flush(self) -> None:
        """Copy received pages to RAM, unless they are there already."""
        if self.memory is self.ram:
            bitmap.clear(self.memory.bitmap)
        else:
            pages.flush(self.ram.array, self.memory.array, self.memory.bitmap)

    def ram_digest(self) -> str:
        """Digest RAM, as a node does."""
        return f"{int(digest(self.ram.array, 0)):016x}"

    def _parse(self, parser: Parser[None]) -> None:
        parsing = Parsing(parser, self._buffer)
        if not parsing.step():
            raise parsing.ended()
        self.flush()

    def _migration(self) -> Parser[None]:
        yield from self._incoming.stream_header(self._buffer)
        yield from self._incoming.load_sections(self._buffer, PRECOPY)
        yield from vmdescription_section(self._buffer)

    def _checkpoint(self) -> Parser[None]:
        at = self._buffer
        # CHECKPOINT_REQUEST and VMSTATE_SEND.
        yield from message(at)
        yield from message(at)
        yield from self._incoming.load_sections(at, COLO_RAM)
        _, size = yield from message(at)
        devices = yield from sized_bytes(size or 0)
        parse_bytes(lambda at: self._incoming.load_sections(at, COLO_DEVICES), devices)


@interruptible("nothing is kept; the session lives on as it was")
def cut_checkpoint(
    session: Session,
    *,
    step: int = PAGE_RECORD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> TornCheckpoint:
    """Cut a session's last checkpoint at one place after another, and find the state of RAM.

    The loader of a secondary reads the recorded stream twice: into a RAM cache that is flushed
    when the checkpoint is whole, and straight into RAM.

    Parameters
    ----------
    session
        Session with ``delay=None``, ``keep_stream=True``, ``verify=True`` and the layout
        ``separated``, with a checkpoint, and a relay that has forgotten nothing. It is not changed.
    step
        Bytes from one cut to the next, by default a record of one page. At each cut all of RAM is
        digested twice, which takes some milliseconds: thousands of cuts take minutes.
    progress
        Function that is called with the number of cuts done, and the total; None shows a bar if it
        takes long.

    Raises
    ------
    LocalError
        If the session is another one, or the step is none.
    """
    if not isinstance(step, int) or step < 1:
        raise LocalError(f"step: expected a number of bytes from 1 up, found {step!r}")
    stream = _recorded_stream(session)
    if progress is not None:
        return _cut(session, stream, step, progress)
    with bar("cutting a checkpoint", "cuts") as shown:
        return _cut(session, stream, step, shown)


def _cut(
    session: Session, stream: bytes, step: int, progress: Callable[[int, int], None]
) -> TornCheckpoint:
    number = len(session.records)
    digests = {session.journal.digests[each]["ram"]: each for each in (number - 1, number)}
    ram_bytes = session.settings.guest.ram_bytes
    cuts = []
    with ExitStack() as closing:
        cached, direct = (
            ReplayedSecondary(session.settings, stream, cache=cache, closing=closing)
            for cache in (True, False)
        )
        for _ in range(number - 1):
            cached.follow()
            direct.follow()
        total = 1 + -(-cached.rest() // step)
        both = zip(cached.follow_cut(step), direct.follow_cut(step), strict=True)
        for (come, finished), _ in both:
            arrived = cached.memory.bitmap.copy()
            if finished:
                cached.flush()
            cuts.append(
                Cut(
                    bytes=come,
                    pages=int(bitmap.popcount(arrived)),
                    arrived=arrived,
                    committed=finished,
                    cached=digests.get(cached.ram_digest()),
                    direct=digests.get(direct.ram_digest()),
                )
            )
            progress(len(cuts), total)
    return TornCheckpoint(number, ram_bytes, tuple(cuts))


def _recorded_stream(session: Session) -> bytes:
    names = ("delay", "layout", "verify", "transport")
    settings = session.settings.as_json()
    found = {name: settings[name] for name in names}
    expected = {"delay": None, "layout": "separated", "verify": True}
    encoding = session.settings.checkpoint.encoding
    if encoding not in (Encoding.NONE, Encoding.XBZRLE):
        raise LocalError(
            f"session: expected encoding none or xbzrle, whose page records are cut here, "
            f"found {encoding.value}"
        )
    pages = session.settings.checkpoint.transport.pages
    if (
        session.relay is None
        or pages is not PageTransport.STREAM
        or any(found[name] != value for name, value in expected.items())
    ):
        raise LocalError(
            "session: expected delay None, layout separated, verify, transport stream and "
            f"keep_stream, found {', '.join(f'{name} {value}' for name, value in found.items())} "
            f"and {'keep_stream' if session.relay else 'no keep_stream'}"
        )
    if session.pairs > 1:
        raise LocalError(
            "session: expected its first pair, whose migration is checkpoint 0, found one that "
            "a secondary has joined again"
        )
    if not session.records:
        raise LocalError("session: expected a checkpoint, found none")
    stream = session.relay.data("P→S")
    if len(stream) != session.relay.crossed("P→S"):
        raise LocalError(
            f"relay: expected all {session.relay.crossed('P→S')} bytes of the stream, "
            f"found {len(stream)}"
        )
    return stream
