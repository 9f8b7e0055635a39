"""QEMU's multifd: RAM pages on connections of their own, in packets that name their pages first.

A *channel* is one more connection to where the migration goes. It begins with a handshake::

    be32 magic 0x11223344, be32 version 1, 16 bytes uuid, u8 channel, u8 channels, 38 reserved bytes

(where QEMU has 39 reserved bytes and says nowhere how many channels there are)

and then carries packets, numbers big-endian::

    offset
       0   be32 magic 0x11223344      be32 version 1
       8   be32 flags                 be32 pages_alloc: how many offsets there is room for, 128
      16   be32 normal_pages          be32 next_packet_size: bytes of pages that follow
      24   be64 packet_num
      32   be32 zero_pages            28 reserved bytes
      64   the RAM block's name, 256 bytes, filled up with 0
     320   be64 × pages_alloc: the pages' offsets in the block, normal ones, then zero ones
    1344   normal_pages × 4096 bytes

What belongs to a RAM section ends on each channel with a packet that has the flag SYNC. In the main
stream the section's payload is a record MULTIFD_FLUSH ("now take what comes on the channels, up to
SYNC"), and EOS. QEMU writes that record behind the pages; here it goes ahead of them, so that the
receiver gets to work with the first packet.

``memfd`` uses the same packets without bytes: next_packet_size is 0. Then the handshake of channel
0 carries the descriptor of the sender's RAM (SCM_RIGHTS), whose layout is the receiver's, and the
receiver copies the pages itself. This is not QEMU's; its packets are.

Source: QEMU's migration/multifd.h, version 9.0 and later (in 7.2 zero_pages is still reserved).
The bytes are moved by `colobench.kernels.multifd`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from colobench.kernels import multifd_packets as packets
from colobench.kernels.multifd_packets import MAGIC, PACKET_PAGES, SYNC, VERSION
from colobench.memory.ram import PAGE_SIZE, RAMBlock
from colobench.wire.errors import HeaderError, RAMError, StreamError

_HANDSHAKE = struct.Struct(">II16sBB38x")
HANDSHAKE_BYTES = _HANDSHAKE.size
#: What a packet begins with that has SYNC and no normal pages.
SYNC_BEGIN = struct.pack(">IIIIII", MAGIC, VERSION, SYNC, PACKET_PAGES, 0, 0)
_PACKET = struct.Struct(f">IIIIIIQI28x256s{8 * PACKET_PAGES}x")


def handshake(channel: int, channels: int) -> bytes:
    """Give the first bytes of a channel, one of so many; our machines have no uuid."""
    return _HANDSHAKE.pack(MAGIC, VERSION, bytes(16), channel, channels)


def parse_handshake(data: bytes, channels: int) -> int:
    """Read the first bytes of a channel; which one it is, below `channels`.

    Raises
    ------
    HeaderError
        If they are not a handshake, or of no such channel, or of another number of them.
    """
    magic, version, uuid, channel, found_channels = _HANDSHAKE.unpack(data)
    for subject, expected, found, offset in (
        ("multifd magic", f"{MAGIC:#x}", f"{magic:#x}", 0),
        ("multifd version", VERSION, version, 4),
        ("multifd uuid", bytes(16).hex(), uuid.hex(), 8),
        ("multifd channels", channels, found_channels, 25),
    ):
        if expected != found:
            raise HeaderError(subject, expected=expected, found=found, offset=offset)
    if channel >= channels:
        raise HeaderError(
            "multifd channel", expected=f"less than {channels}", found=channel, offset=24
        )
    return int(channel)


def sync_packet(number: int) -> bytes:
    """Give the packet that ends a RAM section's pages on a channel."""
    return _PACKET.pack(MAGIC, VERSION, SYNC, PACKET_PAGES, 0, 0, number, 0, b"")


class Blocks(NamedTuple):
    """RAM blocks as `kernels.multifd.receive_packets` wants them.

    They are uint8[256 * n] and twice int64[n].
    """

    names: npt.NDArray[np.uint8]
    first_pages: npt.NDArray[np.int64]
    pages: npt.NDArray[np.int64]

    @classmethod
    def of(cls, blocks: Sequence[RAMBlock]) -> Blocks:
        """Make them from the blocks."""
        names = b"".join(block.name.encode().ljust(packets.NAME_BYTES, b"\0") for block in blocks)
        return cls(
            np.frombuffer(bytearray(names), dtype=np.uint8),
            np.array([block.first_page for block in blocks], dtype=np.int64),
            np.array([block.pages for block in blocks], dtype=np.int64),
        )

    def by_first_page(self) -> dict[int, npt.NDArray[np.uint8]]:
        """Give each block's name as a packet has it, uint8[256], by the block's first page."""
        names = self.names.reshape(-1, packets.NAME_BYTES)
        return dict(zip(self.first_pages.tolist(), names, strict=True))


#: Where in a packet each of `packets.FIELDS` stands.
_FIELD_AT = (0, 4, 8, 12, 16, 20, 32, 64, 320)


def packet_error(progress: npt.NDArray[np.int64], carried: bool) -> StreamError:
    """Give the error for a packet that `colobench.kernels.multifd.receive_packets` refused.

    Parameters
    ----------
    progress
        The kernel's int64[PROGRESS_SLOTS].
    carried
        Whether the pages' bytes follow the packets.
    """
    field, found = int(progress[packets.FIELD]), int(progress[packets.FOUND]) % 2**64
    offset = int(progress[packets.PACKET_AT]) + _FIELD_AT[field]
    expected: dict[str, Any] = {
        "magic": f"{MAGIC:#x}",
        "version": VERSION,
        "flags": f"0 or {SYNC} (SYNC)",
        "pages_alloc": PACKET_PAGES,
        "normal_pages": f"at most {PACKET_PAGES}",
        "next_packet_size": f"{PAGE_SIZE} for each normal page" if carried else 0,
        "zero_pages": f"at most {PACKET_PAGES} with the normal pages",
        "ramblock": "the name of a RAM block",
        "offset": f"a multiple of {PAGE_SIZE} within the RAM block",
    }
    name = packets.FIELDS[field]
    shown = f"{found:#x}" if name in ("magic", "offset") else found
    if name == "ramblock":
        shown = "another"
    return RAMError(f"multifd {name}", expected=expected[name], found=shown, offset=offset)
