"""Decoder of XBZRLE records in a RAM section: the bytes of pages that changed.

A receiver without XBZRLE does not import this module, and does not compile its kernels.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from colobench.kernels import bitmap, xbzrle, xbzrle_records
from colobench.memory.ram import PAGE_SIZE, PageMemory
from colobench.wire.errors import RAMError
from colobench.wire.reading import PageRun, Parser, StreamBuffer

#: Header of an encoding: number of the kind of encoding, length in bytes.
_HEADER: Final = struct.Struct(">BH")


class XBZRLEDecoder:
    """Decoder of XBZRLE records into the pages from which they were made.

    Parameters
    ----------
    memory
        Memory with the pages that were received last; decoded pages replace them, and their bits
        are set.
    """

    def __init__(self, memory: PageMemory) -> None:
        self._memory = memory
        self._decoded, self._encoding = np.empty((2, PAGE_SIZE), dtype=np.uint8)

    def take_records(
        self, buffer: StreamBuffer, cursor: npt.NDArray[np.int64], run: PageRun
    ) -> int:
        """Take all records with CONTINUE that follow, XBZRLE ones among them.

        Returns
        -------
        int
            Status of `kernels.xbzrle_records.take_xbzrle_records`.
        """
        return int(
            xbzrle_records.take_xbzrle_records(buffer.array, cursor, *run.place, self._decoded)
        )

    def page(self, at: StreamBuffer, page: int) -> Parser[None]:
        """Parse the rest of a record, after its header and its block's name.

        Raises
        ------
        RAMError
            If it is not a valid encoding of a page; then the page stays as it was.
        """
        offset = at.offset
        encoding, length = _HEADER.unpack((yield _HEADER.size))
        if encoding != xbzrle_records.ENCODING_XBZRLE:
            expected = f"{xbzrle_records.ENCODING_XBZRLE:#x}"
            raise RAMError(
                "encoding of a RAM page", expected=expected, found=f"{encoding:#x}", offset=offset
            )
        if length > PAGE_SIZE:
            raise RAMError(
                "length of an XBZRLE encoding",
                expected=f"at most {PAGE_SIZE} bytes",
                found=length,
                offset=offset + 1,
            )
        offset = at.offset
        data = yield length
        self._encoding[:length] = np.frombuffer(data, dtype=np.uint8)
        place = self._memory.array[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
        # Decode into a copy: a wrong encoding is found only after part of it is decoded.
        self._decoded[:] = place
        if xbzrle.decode(self._decoded, 0, self._encoding, 0, length) == xbzrle.MALFORMED:
            raise RAMError(
                "XBZRLE encoding",
                expected=f"pairs of a zrun and an nzrun, {PAGE_SIZE} bytes of a page at most",
                found=f"{length} bytes, {data[:16].hex(' ')}{' ...' * (length > 16)}",
                offset=offset,
            )
        place[:] = self._decoded
        bitmap.mark(self._memory.bitmap, page)
