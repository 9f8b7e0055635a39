"""Pages of a decoded stream that are kept: one page, or a whole block in a file."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.wire.errors import RAMError
from colobench.wire.format import TARGET_PAGE_SIZE as PAGE_SIZE
from colobench.wire.format import RAMFlag
from colobench.wire.page_counts import changed_runs
from colobench.wire.ram_reader import UNKNOWN_BLOCK, ReadBlock

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
    records
        Number of all of them.
    """

    def __init__(self, block: str, page: int | None = None, file: Path | None = None) -> None:
        self.block, self.page, self._file = block, page, file
        self.first = page or 0
        self._content = bytearray(PAGE_SIZE * (page is not None))
        self.array: memoryview | PageFile = memoryview(self._content)
        self.history: list[tuple[int, str]] = []
        self.records = 0
        #: Offset of an XBZRLE record whose page had not come before.
        self._baseless: int | None = None

    def resize(self, length: int) -> None:
        """Make room for a block of `length` bytes, as soon as the stream tells it.

        Raises
        ------
        LocalError
            If the file cannot be so large, or the block has no such page.
        """
        pages = -(-length // PAGE_SIZE)
        if self.page is not None and self.page >= pages:
            raise LocalError(
                f"page: expected one below {pages:,} in block {self.block!r}, found {self.page:,}"
            )
        if self._file is None:
            return
        if not isinstance(self.array, PageFile) or len(self.array) != pages * PAGE_SIZE:
            self.close()
            self.array = PageFile(self._file, pages * PAGE_SIZE)

    @property
    def content(self) -> bytes:
        """Bytes of the only page."""
        return bytes(self._content)

    def as_json(self) -> dict[str, Any]:
        """Return the only page as JSON's values."""
        return {
            "block": self.block,
            "number": self.page,
            "records": self.records,
            "history": [{"offset": offset, "kind": kind} for offset, kind in self.history],
            "content": self.content.hex() if self.records else None,
        }

    def close(self, *, discard: bool = False) -> None:
        """Close the file; with `discard`, remove it, because it has not what was asked for."""
        if isinstance(self.array, PageFile):
            self.array.close(discard=discard)

    def check(self, blocks: Sequence[ReadBlock], *, damaged: bool) -> None:
        """Refuse what is not the block's content, once the stream was read.

        Parameters
        ----------
        blocks
            The blocks of the stream.
        damaged
            True if parts of it could not be read: the pages are then what the others have.

        Raises
        ------
        LocalError
            If the stream has no such block, not its length or not its pages.
        """
        named = {block.name: block for block in blocks}
        block = named.get(self.block)
        if block is None:
            raise LocalError(f"RAM block: expected one of {list(named)}, found {self.block!r}")
        if self._file is not None and block.length is None:
            raise LocalError(
                f"block list: expected one with the length of {self.block!r}, found none: the "
                "stream begins behind it"
            )
        if damaged:
            return
        unknown = named.get(UNKNOWN_BLOCK)
        if unknown is not None and unknown is not block and unknown.counts.records:
            raise LocalError(
                f"pages of {self.block!r}: expected records that name their blocks, found "
                f"{unknown.counts.records:,} of {UNKNOWN_BLOCK}, with which the stream begins"
            )
        if self._baseless is not None:
            raise LocalError(
                f"page {self.page:,} of {self.block!r}: expected the whole page before its "
                f"changes, found XBZRLE at offset {self._baseless:,} first"
            )
        # Marks are made by the first record.
        missing = block.seen[: block.pages].count(0) if block.counts.records else block.pages
        if self._file is not None and missing:
            self.close(discard=True)
            raise LocalError(
                f"pages of {self.block!r}: expected all {block.pages:,} in the stream, found "
                f"none of {missing:,}: with multifd they are on other connections, with "
                "x-ignore-shared in a file of QEMU's"
            )

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
        if self.page is not None:
            self.records += 1
            if kind == RAMFlag.XBZRLE and self.records == 1:
                self._baseless = offset
            if len(self.history) < _HISTORY_LIMIT:
                self.history.append((offset, kind.name))
        place = slice(begin, begin + PAGE_SIZE)
        if kind == RAMFlag.PAGE:
            self.array[place] = body
        elif kind == RAMFlag.ZERO:
            self.array[place] = body * PAGE_SIZE
        elif kind == RAMFlag.XBZRLE:
            # The reader has refused what is no encoding.
            for at, source, length in changed_runs(body) or ():
                changed = slice(begin + at, begin + at + length)
                self.array[changed] = body[source : source + length]
        else:
            self.array[place] = _decompressed(body, offset)


class PageFile:
    """File of a block's pages, sparse where none came.

    It is written and not mapped: where the disk is full, a write to a mapping ends the process.

    Parameters
    ----------
    path
        The file; what it had is lost.
    size
        Its length, bytes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        try:
            self._file = open(path, "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._no_room(error) from error
        try:
            self._file.truncate(size)
        except (OSError, OverflowError) as error:
            self.close(discard=True)
            raise self._no_room(error) from error

    def __len__(self) -> int:
        return self._size

    def __setitem__(self, place: slice, body: bytes | memoryview) -> None:
        """Write bytes to ``file[place]``.

        Raises
        ------
        LocalError
            If they cannot be written, as on a full disk.
        """
        view, at = memoryview(body), int(place.start)
        try:
            while view:
                count = os.pwrite(self._file.fileno(), view, at)
                view, at = view[count:], at + count
        except OSError as error:
            raise self._no_room(error) from error

    def close(self, *, discard: bool = False) -> None:
        """Close it; with `discard`, remove it, if it is a file."""
        self._file.close()
        if discard and self._path.is_file():
            self._path.unlink()

    def _no_room(self, error: Exception) -> LocalError:
        return LocalError(
            f"{self._path}: expected room for a block of {self._size:,} bytes, found: "
            f"{getattr(error, 'strerror', None) or error}"
        )


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
