"""Pages of a decoded stream that are kept: one page, or a whole block in a file."""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path

from colobench.errors import LocalError
from colobench.wire.errors import RAMError
from colobench.wire.format import TARGET_PAGE_SIZE as PAGE_SIZE
from colobench.wire.format import RAMFlag
from colobench.wire.page_counts import changed_runs

#: Records of one page whose offsets are kept.
_HISTORY_LIMIT = 1000


class KeptPages:
    """Keeper of pages, as their last records left them.

    Parameters
    ----------
    block
        Name of the block.
    page
        Number of the only page to keep; None keeps all of the block, in `file`.
    file
        File of a whole block.

    Attributes
    ----------
    first, array
        Number of the first page, and the pages.
    history
        Offset in the stream and kind of the page's records, if only one is kept; the first ones.
    """

    def __init__(self, block: str, page: int | None = None, file: Path | None = None) -> None:
        self.block, self.page, self._file = block, page, file
        self.first = page or 0
        self.array = memoryview(bytearray(0 if page is None else PAGE_SIZE))
        self.history: list[tuple[int, str]] = []
        self._map: mmap.mmap | None = None

    def resize(self, length: int) -> None:
        """Make room for a block of `length` bytes, as soon as the stream tells it.

        Raises
        ------
        LocalError
            If the file cannot be so large.
        """
        if self._file is None or len(self.array) == -(-length // PAGE_SIZE) * PAGE_SIZE:
            return
        size = -(-length // PAGE_SIZE) * PAGE_SIZE
        try:
            with open(self._file, "r+b" if self._file.exists() else "w+b") as file:
                file.truncate(0)
                file.truncate(size)
                self._map = mmap.mmap(file.fileno(), size)
        except (OSError, ValueError, OverflowError) as error:
            raise LocalError(
                f"{self._file}: expected room for {size:,} bytes of block {self.block!r}, "
                f"found: {error}"
            ) from error
        self.array = memoryview(self._map)

    def keep(self, page: int, kind: RAMFlag, body: bytes, offset: int) -> None:
        """Store a record's page.

        Raises
        ------
        RAMError
            If a compressed or encoded page is wrong.
        """
        begin = (page - self.first) * PAGE_SIZE
        if not 0 <= begin < len(self.array):
            return
        if self.page is not None and len(self.history) < _HISTORY_LIMIT:
            self.history.append((offset, kind.name))
        place = self.array[begin : begin + PAGE_SIZE]
        if kind == RAMFlag.PAGE:
            place[:] = body
        elif kind == RAMFlag.ZERO:
            place[:] = body * PAGE_SIZE
        elif kind == RAMFlag.XBZRLE:
            # The reader has refused what is no encoding.
            for at, source, length in changed_runs(body) or ():
                place[at : at + length] = body[source : source + length]
        else:
            place[:] = _decompressed(body, offset)


def _decompressed(body: bytes, offset: int) -> bytes:
    machine = zlib.decompressobj()
    try:
        page = machine.decompress(body, PAGE_SIZE)
    except zlib.error as error:
        raise RAMError(
            "compressed page", expected="zlib's format", found=str(error), offset=offset
        ) from error
    if len(page) != PAGE_SIZE:
        raise RAMError(
            "compressed page", expected=f"{PAGE_SIZE} bytes", found=len(page), offset=offset
        )
    return page
