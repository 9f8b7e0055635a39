"""Reader of a multifd channel, as QEMU 7.2 and its later versions speak it.

`colobench.wire.multifd` has the layout. QEMU sends no number of channels, and its uuid may be set.
In 7.2, zero pages are in the main stream, and a packet without pages keeps the next_packet_size of
the one before, which its reader ignores. Since 9.0, packets also have zero pages, and since 10.0
there are packets with the state of a device.
"""

from __future__ import annotations

import struct
from typing import Final

from colobench.wire.buffer import StreamBuffer
from colobench.wire.errors import HeaderError, RAMError, StreamError
from colobench.wire.format import BE32, BLOCKS_LIMIT, TARGET_PAGE_SIZE
from colobench.wire.format import MULTIFD_MAGIC as MAGIC
from colobench.wire.format import MULTIFD_NAME_BYTES as NAME_BYTES
from colobench.wire.format import MULTIFD_SYNC as SYNC
from colobench.wire.format import MULTIFD_VERSION as VERSION
from colobench.wire.lookahead import Skip, SkipRest
from colobench.wire.page_counts import PageCounts
from colobench.wire.ram_reader import ReadBlock
from colobench.wire.reader import UNEXPLAINED
from colobench.wire.recorded import Log, Sink
from colobench.wire.steps import Ahead, LookAhead, Steps

_HANDSHAKE: Final = struct.Struct(">II16sB39x")
#: What begins all packets, and what follows it in one with pages and in one with a device's state.
_BEGIN: Final = struct.Struct(">III")
_PAGES: Final = struct.Struct(f">IIIQI28x{NAME_BYTES}s")
_DEVICE: Final = struct.Struct(f">{NAME_BYTES}sII")
#: Flag of a packet with the state of a device (since 10.0).
DEVICE_STATE: Final = 32 << 1
#: How the pages are compressed, by bits 1 to 5 of the flags.
_METHODS: Final = {0: "", 2: "zlib", 4: "zstd", 8: "qpl", 16: "uadk", 32: "qatzip"}
_METHOD_MASK: Final = 0x3E
#: Limits of a packet: its offsets, and its bytes.
_OFFSETS_LIMIT: Final = 4096
_BYTES_LIMIT: Final = 64 * 1024 * 1024


class MultifdReader:
    """Reader of one channel.

    Parameters
    ----------
    at, sink
        The buffer that is read, and the receiver of the items.

    Attributes
    ----------
    blocks
        Blocks that its packets name, without their lengths.
    channel
        Number of the channel, once the handshake was read.
    """

    def __init__(self, at: StreamBuffer, sink: Sink) -> None:
        self._at = at
        self._log = Log(at, sink)
        self.blocks: dict[str, ReadBlock] = {}
        self.channel: int | None = None

    def stream(self) -> Steps[None]:
        """Read the handshake and all packets."""
        try:
            yield from self._handshake()
            while (yield from self._more()):
                yield from self._packet()
        except StreamError as error:
            yield SkipRest()
            self._log.add(UNEXPLAINED, str(error))

    def _more(self) -> Steps[bool]:
        ahead: Ahead = yield LookAhead(1)
        return bool(ahead.data)

    def _handshake(self) -> Steps[None]:
        magic, version, uuid, channel = _HANDSHAKE.unpack((yield _HANDSHAKE.size))
        if (magic, version) != (MAGIC, VERSION):
            raise HeaderError(
                "multifd handshake",
                expected=f"{MAGIC:#x} version {VERSION}",
                found=f"{magic:#x} version {version}",
                offset=0,
            )
        self.channel = channel
        detail = f"channel {channel}" + (f", uuid {uuid.hex()}" if any(uuid) else "")
        self._log.add("handshake", "multifd", detail)

    def _packet(self) -> Steps[None]:
        offset = self._at.offset
        magic, version, flags = _BEGIN.unpack((yield _BEGIN.size))
        if (magic, version) != (MAGIC, VERSION):
            raise RAMError(
                "multifd packet",
                expected=f"{MAGIC:#x} version {VERSION}",
                found=f"{magic:#x} version {version}",
                offset=offset,
            )
        if flags & DEVICE_STATE and not flags & ~DEVICE_STATE & ~SYNC:
            yield from self._device_packet()
        else:
            yield from self._pages_packet(flags, offset)

    def _device_packet(self) -> Steps[None]:
        offset = self._at.offset
        idstr, instance, size = _DEVICE.unpack((yield _DEVICE.size))
        self._check(size, _BYTES_LIMIT, "next_packet_size", offset + NAME_BYTES + BE32.size)
        yield Skip(size)
        self._log.add("device state", _text(idstr), f"instance {instance}, {size} bytes")

    def _pages_packet(self, flags: int, offset: int) -> Steps[None]:
        begin = self._at.offset
        room, normal, size, number, zero, name = _PAGES.unpack((yield _PAGES.size))
        method = _METHODS.get(flags & _METHOD_MASK)
        if method is None or flags & ~_METHOD_MASK & ~SYNC:
            raise RAMError(
                "multifd flags",
                expected=f"SYNC and one of {list(_METHODS)}",
                found=f"{flags:#x}",
                offset=offset + 8,
            )
        self._check(room, _OFFSETS_LIMIT, "pages_alloc", begin)
        self._check(normal + zero, room, "number of pages", begin + BE32.size)
        self._check(size, _BYTES_LIMIT, "next_packet_size", begin + 2 * BE32.size)
        offsets = struct.unpack(f">{room}Q", (yield 8 * room))[: normal + zero]
        if normal:
            # Without pages, the size is that of an earlier packet, and nothing follows.
            yield Skip(size)
        if flags & SYNC:
            words = f"packet {number}" + (f", {normal} pages" if normal else "")
            self._log.add("SYNC", _text(name), words)
        if not normal + zero:
            if not flags & SYNC:
                self._log.add("packet", _text(name), f"packet {number}, without pages")
            return
        self._count(_text(name), offsets, normal, size if method else 0)

    def _count(self, name: str, offsets: tuple[int, ...], normal: int, encoded: int) -> None:
        if name not in self.blocks and len(self.blocks) >= BLOCKS_LIMIT:
            raise RAMError(
                "multifd ramblock",
                expected=f"at most {BLOCKS_LIMIT} blocks",
                found="more",
                offset=self._at.offset,
            )
        block = self.blocks.setdefault(name, ReadBlock(name))
        counts = PageCounts(zero=len(offsets) - normal)
        if encoded:
            counts.compressed, counts.compressed_bytes = normal, encoded
        else:
            counts.pages = normal
        block.counts.add(counts)
        # The bytes of a packet with SYNC are in its own item already.
        first, last = offsets[0] // TARGET_PAGE_SIZE, offsets[-1] // TARGET_PAGE_SIZE
        self._log.add_records(name, counts, first, last)

    def _check(self, found: int, limit: int, subject: str, offset: int) -> None:
        if found > limit:
            raise RAMError(
                f"multifd {subject}", expected=f"at most {limit}", found=found, offset=offset
            )


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode(errors="backslashreplace")
