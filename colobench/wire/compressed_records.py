"""Compressed page records in a RAM section, an extension of ours to QEMU's stream.

A record COMPRESSED_RECORDS stands for the records of at most 128 pages::

    be64 flag COMPRESSED_RECORDS
    be32 bytes of the records, be32 bytes of the compressed block, the block

Decompressed, the block is page records (PAGE or ZERO) and EOS, see `colobench.wire.ram`. Nodes with
such an encoding agree on it in their settings. A real QEMU never sees it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from colobench.kernels import page_records
from colobench.wire.compression import CompressionError, compressed_limit, decompressor
from colobench.wire.errors import RAMError
from colobench.wire.format import COMPRESSED_RECORDS as COMPRESSED_RECORDS
from colobench.wire.reading import Parser, StreamBuffer, parse_bytes, sized_bytes

BLOCK_PAGES: Final = 128
#: Most bytes of a block's records, with the name of a RAM block and EOS.
RECORDS_LIMIT: Final = (
    BLOCK_PAGES * page_records.PAGE_RECORD_BYTES
    + page_records.NAME_BYTES
    + page_records.HEADER_BYTES
)
HEADER: Final = struct.Struct(">QII")
_SIZES: Final = struct.Struct(">II")


class CompressedRecordsDecoder:
    """Decoder of compressed page records.

    Parameters
    ----------
    method
        Name of the compression, see `colobench.wire.compression`.
    records
        Makes a parser of page records up to EOS, which returns numbers of pages and of zero pages.
    """

    def __init__(
        self, method: str, records: Callable[[StreamBuffer], Parser[tuple[int, int]]]
    ) -> None:
        self._method, self._records = method, records
        self._decompressor = decompressor(method)

    def block(self, at: StreamBuffer) -> Parser[tuple[int, int]]:
        """Parse the rest of a record, after its flag; return numbers of pages and of zero pages.

        Raises
        ------
        RAMError
            If it is too long, or is not what it announces.
        """
        offset = at.offset
        size, length = _SIZES.unpack((yield _SIZES.size))
        for subject, found, limit in (
            ("size of compressed RAM records", size, RECORDS_LIMIT),
            ("length of compressed RAM records", length, compressed_limit(size)),
        ):
            if not 0 < found <= limit:
                expected = f"1 to {limit} bytes"
                raise RAMError(subject, expected=expected, found=found, offset=offset)
        compressed = yield from sized_bytes(length)
        try:
            records = self._decompressor.decompress(compressed, size)
        except CompressionError as error:
            raise RAMError(
                "compressed RAM records",
                expected=f"{size} bytes by {self._method}",
                found=error,
                offset=offset,
            ) from error
        return parse_bytes(self._records, records, offset=offset)
