"""QEMU's multifd: RAM pages on connections of their own, in packets that name their pages first.

A *channel* is a further connection to the destination. It begins with a handshake::

    be32 magic 0x11223344, be32 version 1, 16 bytes uuid, u8 channel, u8 channels, 38 reserved bytes

(QEMU has 39 reserved bytes instead, and does not send the number of channels.)

Then it carries packets, with big-endian numbers::

    offset
       0   be32 magic 0x11223344      be32 version 1
       8   be32 flags                 be32 pages_alloc: room for this number of offsets, 128
      16   be32 normal_pages          be32 next_packet_size: bytes of pages that follow
      24   be64 packet_num
      32   be32 zero_pages            28 reserved bytes
      64   the RAM block's name, 256 bytes, filled up with 0
     320   be64 × pages_alloc: the pages' offsets in the block, normal ones, then zero ones
    1344   normal_pages × 4096 bytes

On each channel, the pages of a RAM section end with a packet that has the flag SYNC. In the main
stream, the section's payload is a record MULTIFD_FLUSH ("take the pages on the channels, up to
SYNC") and EOS. QEMU sends that record after the pages. colobench sends it before them, so that the
receiver starts with the first packet.

``memfd`` uses the same packets without page bytes: next_packet_size is 0. The handshake of channel
0 then carries the descriptor of the sender's RAM (SCM_RIGHTS), which has the same layout as the
receiver's, and the receiver copies the pages itself. QEMU has no such transport.

Source: QEMU's migration/multifd.h, version 9.0 and later (in 7.2 zero_pages is still reserved).
`colobench.kernels.multifd` moves the bytes.
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
#: First bytes of a packet that has SYNC and no normal pages.
SYNC_BEGIN = struct.pack(">IIIIII", MAGIC, VERSION, SYNC, PACKET_PAGES, 0, 0)
_HEAD = struct.Struct(">IIIIII")
_PACKET = struct.Struct(f">IIIIIIQI28x256s{8 * PACKET_PAGES}x")


def handshake(channel: int, channels: int) -> bytes:
    """Encode the handshake of channel number `channel` of `channels`; our machines have no uuid."""
    return _HANDSHAKE.pack(MAGIC, VERSION, bytes(16), channel, channels)


def parse_handshake(data: bytes, channels: int) -> int:
    """Parse a channel's handshake, and return the channel's number, less than `channels`.

    Raises
    ------
    HeaderError
        If `data` is no handshake, or the channel or the number of channels differs from ours.
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
    """Encode the packet that ends a RAM section's pages on a channel."""
    return _PACKET.pack(MAGIC, VERSION, SYNC, PACKET_PAGES, 0, 0, number, 0, b"")


def packet_at(data: bytes | bytearray, offset: int = 0) -> tuple[int, bool] | None:
    """Measure the packet at an offset, with the bytes of its pages.

    Returns
    -------
    tuple or None
        Its length, and whether it has SYNC; None if its head is not whole.
    """
    if len(data) - offset < packets.PACKET_BYTES:
        return None
    _, _, flags, _, _, following = _HEAD.unpack_from(data, offset)
    return packets.PACKET_BYTES + following, bool(flags & SYNC)


class Blocks(NamedTuple):
    """Arrays of n RAM blocks for `kernels.multifd.receive_packets`.

    Shapes: uint8[256 * n] for `names`, int64[n] for `first_pages` and `pages`.
    """

    names: npt.NDArray[np.uint8]
    first_pages: npt.NDArray[np.int64]
    pages: npt.NDArray[np.int64]

    @classmethod
    def of(cls, blocks: Sequence[RAMBlock]) -> Blocks:
        """Make the arrays from the blocks."""
        names = b"".join(block.name.encode().ljust(packets.NAME_BYTES, b"\0") for block in blocks)
        return cls(
            np.frombuffer(bytearray(names), dtype=np.uint8),
            np.array([block.first_page for block in blocks], dtype=np.int64),
            np.array([block.pages for block in blocks], dtype=np.int64),
        )

    def by_first_page(self) -> dict[int, npt.NDArray[np.uint8]]:
        """Return the name of each block in a packet's format, uint8[256], by its first page."""
        names = self.names.reshape(-1, packets.NAME_BYTES)
        return dict(zip(self.first_pages.tolist(), names, strict=True))


#: Offset in a packet of each of `packets.FIELDS`.
_FIELD_AT = (0, 4, 8, 12, 16, 20, 32, 64, 320)


def packet_error(progress: npt.NDArray[np.int64], carried: bool) -> StreamError:
    """Make the error for a packet that `colobench.kernels.multifd.receive_packets` refused.

    Parameters
    ----------
    progress
        The kernel's int64[PROGRESS_SLOTS].
    carried
        True if the packets are followed by the pages' bytes.
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
