"""Page records in a buffer, counted and skipped: for a reader that keeps no RAM.

A run of records of one kind is gone through by one `struct.Struct`, whose padding skips the pages.
That is quick enough to need neither numpy nor a kernel, so that a reader starts at once. Source:
QEMU's migration/ram.c, RAM_SAVE_FLAG_*, and docs/xbzrle.txt.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from mmap import mmap
from typing import Any, Final, Protocol, TypeAlias

from colobench.wire.format import BE64, PAGE_FLAGS_MASK, TARGET_PAGE_SIZE, RAMFlag

#: Records by kind, in the order of the numbers that `Marks` hold, which begin with 1.
KINDS: Final = (RAMFlag.PAGE, RAMFlag.ZERO, RAMFlag.XBZRLE, RAMFlag.COMPRESS_PAGE)
_PAGE_MARK, _ZERO_MARK, _XBZRLE_MARK, _COMPRESS_MARK = range(1, 5)
#: Most bytes of a compressed page.
MOST_COMPRESSED: Final = 2 * TARGET_PAGE_SIZE
#: One byte for each page: 0, or the mark of its last record. A mapping takes memory only where
#: pages came.
Marks: TypeAlias = "bytearray | mmap"

_PAGE_BITS: Final = TARGET_PAGE_SIZE.bit_length() - 1
_PAGE_RECORD: Final = struct.Struct(f">Q{TARGET_PAGE_SIZE}x")
_ZERO_RECORD: Final = struct.Struct(">QB")
_XBZRLE_RECORD: Final = struct.Struct(">QBH")
_COMPRESS_RECORD: Final = struct.Struct(">QI")
_ENCODING: Final = 1
_ZEROS: Final = bytes(TARGET_PAGE_SIZE)


class PageCounts:
    """Numbers of page records.

    Attributes
    ----------
    pages, zero, xbzrle, compressed
        Records by kind.
    xbzrle_bytes, compressed_bytes
        Bytes of encoded and of compressed pages.
    duplicates
        Records of a page that had come before.
    """

    # No dataclass: its import takes longer than reading a short stream.
    __slots__ = (
        "compressed",
        "compressed_bytes",
        "duplicates",
        "pages",
        "xbzrle",
        "xbzrle_bytes",
        "zero",
    )

    def __init__(
        self,
        pages: int = 0,
        zero: int = 0,
        xbzrle: int = 0,
        compressed: int = 0,
        xbzrle_bytes: int = 0,
        compressed_bytes: int = 0,
        duplicates: int = 0,
    ) -> None:
        self.pages, self.zero, self.xbzrle, self.compressed = pages, zero, xbzrle, compressed
        self.xbzrle_bytes, self.compressed_bytes = xbzrle_bytes, compressed_bytes
        self.duplicates = duplicates

    @property
    def records(self) -> int:
        """Number of all records."""
        return self.pages + self.zero + self.xbzrle + self.compressed

    def add(self, more: PageCounts) -> None:
        """Add other numbers to these."""
        self.pages += more.pages
        self.zero += more.zero
        self.xbzrle += more.xbzrle
        self.compressed += more.compressed
        self.xbzrle_bytes += more.xbzrle_bytes
        self.compressed_bytes += more.compressed_bytes
        self.duplicates += more.duplicates

    def as_json(self) -> dict[str, int]:
        """Return it as JSON's values."""
        return {
            "pages": self.pages,
            "zero": self.zero,
            "xbzrle": self.xbzrle,
            "compressed": self.compressed,
            "xbzrle_bytes": self.xbzrle_bytes,
            "compressed_bytes": self.compressed_bytes,
            "duplicates": self.duplicates,
        }

    def __repr__(self) -> str:
        return f"PageCounts({self or 'nothing'})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PageCounts) and self.as_json() == other.as_json()

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        kinds = [(self.pages, "pages"), (self.zero, "zero"), (self.xbzrle, "XBZRLE")]
        kinds.append((self.compressed, "compressed"))
        words = [f"{count:,} {name}" for count, name in kinds if count]
        return ", ".join([*words, *[f"{self.duplicates:,} again"] * bool(self.duplicates)])


def new_marks(pages: int) -> Marks:
    """Make the marks of that many pages, all 0."""
    return mmap(-1, pages) if pages else bytearray()


class PageStore(Protocol):
    """Bytes of pages that are stored by slices, elsewhere than in memory."""

    def __len__(self) -> int:
        """Give their number."""

    def __setitem__(self, place: slice, body: bytes | memoryview) -> None:
        """Store bytes of the same number at a place."""


#: Whole pages, to which records are stored.
Pages: TypeAlias = "memoryview | bytes | PageStore"


class RecordCounter:
    """Counter of records with CONTINUE, which stops in front of what it does not take.

    Parameters
    ----------
    seen
        Marks of the block's first pages. Records of pages beyond are not compared.
    block_pages
        The block's number of pages; a record's page must be in it.
    one_kind
        True: stop behind a run of records of one kind.
    kept, first_kept
        Whole pages, and the number of their first page in the block. PAGE and ZERO records of
        these pages are stored there. Other records of them are not taken, and of a single page
        none is, so that who asked for it sees each of them.

    Attributes
    ----------
    counts
        What was counted.
    first, last
        Pages of the first and of the last record.
    bad
        Page of the next record if it is none of the block, or None.
    more
        True if the next record is incomplete or missing.
    """

    def __init__(
        self,
        seen: Marks,
        block_pages: int,
        one_kind: bool = False,
        kept: Pages = b"",
        first_kept: int = 0,
    ) -> None:
        self._seen, self._block_pages, self._one_kind = seen, block_pages, one_kind
        self._kept, self._first_kept = kept, first_kept
        self._end_kept = first_kept + len(kept) // TARGET_PAGE_SIZE
        self.counts = PageCounts()
        self.first = self.last = -1
        self.bad: int | None = None
        self.more = False
        self._takers: dict[int, Callable[[memoryview, int, int], int]] = {
            RAMFlag.PAGE | RAMFlag.CONTINUE: self._take_pages,
            RAMFlag.ZERO | RAMFlag.CONTINUE: self._take_zeros,
            RAMFlag.XBZRLE | RAMFlag.CONTINUE: self._take_encoded,
            RAMFlag.COMPRESS_PAGE | RAMFlag.CONTINUE: self._take_compressed,
        }

    def take(self, view: memoryview, at: int, stop: int) -> int:
        """Count the complete records in ``view[at:stop]``; give the place behind the last one."""
        self.more = False
        while stop - at >= BE64.size:
            (word,) = BE64.unpack_from(view, at)
            taker = self._takers.get(word & PAGE_FLAGS_MASK)
            if taker is None:
                return at
            begin, at = at, taker(view, at, stop)
            if at == begin or self._one_kind:
                return at
        self.more = True
        return at

    def _take_pages(self, view: memoryview, at: int, stop: int) -> int:
        size = _PAGE_RECORD.size
        whole = (stop - at) // size
        seen, known, pages = self._seen, len(self._seen), self._block_pages
        begin_kept, end_kept = self._first_kept, self._end_kept
        flags = RAMFlag.PAGE | RAMFlag.CONTINUE
        taken = again = last = 0
        for (word,) in _PAGE_RECORD.iter_unpack(view[at : at + whole * size]):
            page = word >> _PAGE_BITS
            if word & PAGE_FLAGS_MASK != flags or page >= pages:
                break
            if begin_kept <= page < end_kept:
                body = at + taken * size + BE64.size
                if not self._keep(page, view[body : body + TARGET_PAGE_SIZE]):
                    break
            if page < known:
                if seen[page]:
                    again += 1
                seen[page] = _PAGE_MARK
            last = page
            taken += 1
        self.counts.pages += taken
        return self._took(view, at, size, taken, again, last, whole)

    def _take_zeros(self, view: memoryview, at: int, stop: int) -> int:
        size = _ZERO_RECORD.size
        whole = (stop - at) // size
        seen, known, pages = self._seen, len(self._seen), self._block_pages
        begin_kept, end_kept = self._first_kept, self._end_kept
        flags = RAMFlag.ZERO | RAMFlag.CONTINUE
        taken = again = last = 0
        for word, fill in _ZERO_RECORD.iter_unpack(view[at : at + whole * size]):
            page = word >> _PAGE_BITS
            if word & PAGE_FLAGS_MASK != flags or page >= pages:
                break
            is_new = page < known and not seen[page]
            # What never came is zero already, so that a file stays sparse.
            if (
                begin_kept <= page < end_kept
                and not (is_new and not fill and end_kept - begin_kept > 1)
                and (fill or not self._keep(page, _ZEROS))
            ):
                break
            if page < known:
                again += not is_new
                seen[page] = _ZERO_MARK
            last = page
            taken += 1
        self.counts.zero += taken
        return self._took(view, at, size, taken, again, last, whole)

    def _keep(self, page: int, body: memoryview | bytes) -> bool:
        """Store a page; say whether it was stored."""
        if self._end_kept == self._first_kept + 1:
            return False
        begin = (page - self._first_kept) * TARGET_PAGE_SIZE
        kept: Any = self._kept
        kept[begin : begin + TARGET_PAGE_SIZE] = body
        return True

    def _took(
        self, view: memoryview, at: int, size: int, taken: int, again: int, last: int, whole: int
    ) -> int:
        """Note a run of records of one size; if there is none, say why."""
        if taken:
            self.counts.duplicates += again
            self._note(BE64.unpack_from(view, at)[0] >> _PAGE_BITS, last)
        else:
            self.more = not whole
            self._is_bad(BE64.unpack_from(view, at)[0] >> _PAGE_BITS)
        return at + taken * size

    def _note(self, first: int, last: int) -> None:
        if self.first < 0:
            self.first = first
        self.last = last

    def _is_bad(self, page: int) -> bool:
        if page < self._block_pages:
            return False
        self.bad, self.more = page, False
        return True

    def _take_encoded(self, view: memoryview, at: int, stop: int) -> int:
        self.more = stop - at < _XBZRLE_RECORD.size
        if self.more:
            return at
        word, encoding, length = _XBZRLE_RECORD.unpack_from(view, at)
        begin = at + _XBZRLE_RECORD.size
        end: int = begin + length
        if encoding != _ENCODING or length > TARGET_PAGE_SIZE:
            return at
        if self._take_one(word, end, stop, _XBZRLE_MARK, view[begin:end]):
            self.counts.xbzrle += 1
            self.counts.xbzrle_bytes += length
            return end
        return at

    def _take_compressed(self, view: memoryview, at: int, stop: int) -> int:
        self.more = stop - at < _COMPRESS_RECORD.size
        if self.more:
            return at
        word, length = _COMPRESS_RECORD.unpack_from(view, at)
        end: int = at + _COMPRESS_RECORD.size + length
        if length <= MOST_COMPRESSED and self._take_one(word, end, stop, _COMPRESS_MARK):
            self.counts.compressed += 1
            self.counts.compressed_bytes += length
            return end
        return at

    def _take_one(
        self, word: int, end: int, stop: int, mark: int, encoded: memoryview | None = None
    ) -> bool:
        """Note a record that ends at `end`; say whether it is taken."""
        page = word >> _PAGE_BITS
        if self._is_bad(page):
            return False
        self.more = end > stop
        if self.more or self._first_kept <= page < self._end_kept:
            return False
        if encoded is not None and changed_runs(encoded) is None:
            return False
        if page < len(self._seen):
            self.counts.duplicates += self._seen[page] != 0
            self._seen[page] = mark
        self._note(page, page)
        return True


def changed_runs(body: bytes | memoryview) -> list[tuple[int, int, int]] | None:
    """Split an XBZRLE encoding of changes within one page.

    Returns
    -------
    list of tuple
        Of each run of changed bytes its place in the page, its place in `body`, and its length;
        None if the encoding is wrong.
    """
    runs = []
    at = place = 0
    stop = len(body)
    while at < stop:
        lengths = [0, 0]
        for changed in (0, 1):
            begin = at
            if at >= stop:
                return None
            length = body[at]
            at += 1
            if length > 0x7F:
                if at == stop or body[at] > 0x7F:
                    return None
                length = length & 0x7F | body[at] << 7
                at += 1
            # Only the first run of unchanged bytes may be empty.
            if not length and (changed or begin):
                return None
            lengths[changed] = length
        place += lengths[0]
        runs.append((place, at, lengths[1]))
        place += lengths[1]
        at += lengths[1]
        if place > TARGET_PAGE_SIZE or at > stop:
            return None
    return runs
