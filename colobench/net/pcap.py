"""Format of pcap files (2.4, LINKTYPE_ETHERNET), which tcpdump, tshark and Wireshark read.

Source: draft-ietf-opsawg-pcap. A file is a header and records; each record has its own header.
"""

from __future__ import annotations

import struct
from typing import Final

LINKTYPE_ETHERNET: Final = 1
#: Limit of a record's frame, bytes.
SNAPSHOT_LENGTH: Final = 262144
_HEADER = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")
HEADER_BYTES: Final = _HEADER.size
RECORD_HEADER_BYTES: Final = _RECORD.size
#: Header of a file, by its unit of time in nanoseconds.
HEADERS: Final = {
    unit: _HEADER.pack(magic, 2, 4, 0, 0, SNAPSHOT_LENGTH, LINKTYPE_ETHERNET)
    for unit, magic in ((1, 0xA1B23C4D), (1000, 0xA1B2C3D4))
}


def unit_of(begin: bytes) -> int | None:
    """Return the unit of time of a file, nanoseconds; None if the file is not ours.

    Parameters
    ----------
    begin
        The first HEADER_BYTES of the file, or fewer if it is torn there.
    """
    return next((unit for unit, header in HEADERS.items() if header.startswith(begin)), None)


def record(frame: bytes, time_ns: int, unit: int) -> tuple[bytes, bytes]:
    """Encode a record: return its header, and the bytes of the frame that it contains.

    Parameters
    ----------
    frame
        The frame.
    time_ns
        Time at which it was seen, nanoseconds since 1970 (`time.time_ns`).
    unit
        Unit of time of the file, nanoseconds.
    """
    seconds, rest = divmod(time_ns, 1_000_000_000)
    length = min(len(frame), SNAPSHOT_LENGTH)
    header = _RECORD.pack(seconds & 0xFFFFFFFF, rest // unit, length, len(frame))
    return header, frame[:length]


def kept_bytes(data: bytes, at: int) -> int:
    """Return the number of frame bytes in the record whose header is at ``data[at]``."""
    kept: int = _RECORD.unpack_from(data, at)[2]
    return kept
