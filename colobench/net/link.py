"""QEMU's framing of frames on a stream socket: length in 32 bits, big-endian, then the frame.

``-netdev socket`` and ``-netdev stream`` use it, and so do the chardevs of filter-mirror,
filter-redirector and colo-compare without virtio-net headers.
"""

from __future__ import annotations

import struct

from colobench.errors import RemoteError

#: Limit of a frame, bytes: 4 KiB + 64 KiB, QEMU's NET_BUFSIZE.
FRAME_LIMIT = 4096 + 65536
_LENGTH = struct.Struct(">I")


class LinkError(RemoteError):
    """Wrong framing on a link, after which no further frame can be found."""


def encode_frame(frame: bytes) -> bytes:
    """Encode a frame for a link."""
    return _LENGTH.pack(len(frame)) + frame


class LinkDecoder:
    """Decoder of the frames in a link's bytes, which may arrive in pieces of any size.

    Parameters
    ----------
    limit
        Limit of a frame, bytes.
    """

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self._limit = limit
        self._rest = b""

    @property
    def pending(self) -> int:
        """Number of bytes of an incomplete frame, including its length field."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Take in bytes, and return the frames that are complete now.

        Raises
        ------
        LinkError
            If a length is greater than the limit. The frames before it are lost.
        """
        data = self._rest + data if self._rest else data
        frames = []
        begin, length_of = 0, _LENGTH.unpack_from
        last = len(data) - _LENGTH.size
        while begin <= last:
            (length,) = length_of(data, begin)
            if length > self._limit:
                raise LinkError(
                    f"link: expected a frame of at most {self._limit} bytes, found one of {length}"
                )
            end = begin + _LENGTH.size + length
            if end > len(data):
                break
            frames.append(data[begin + _LENGTH.size : end])
            begin = end
        self._rest = data[begin:]
        return frames
