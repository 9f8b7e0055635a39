"""Payload of RAM's sections for a reader: blocks are learnt from the stream, records are counted.

`colobench.wire.ram` loads the same records into memory whose blocks are known.
"""

from __future__ import annotations

from typing import Final, Protocol

from colobench.errors import LocalError
from colobench.wire.buffer import StreamBuffer
from colobench.wire.errors import RAMError
from colobench.wire.format import (
    BE16,
    BE32,
    BE64,
    BLOCKS_LIMIT,
    COMPRESSED_RECORDS,
    PAGE_FLAGS_MASK,
    RAMFlag,
    ram_flag_names,
)
from colobench.wire.format import TARGET_PAGE_SIZE as PAGE_SIZE
from colobench.wire.lookahead import CountRecords, Skip
from colobench.wire.page_counts import (
    KINDS,
    MOST_COMPRESSED,
    Marks,
    PageCounts,
    Pages,
    RecordCounter,
    changed_runs,
    new_marks,
)
from colobench.wire.recorded import Log
from colobench.wire.steps import LookAhead, Steps

#: Block name of page records with CONTINUE whose previous record was not read.
UNKNOWN_BLOCK: Final = "the block before"
#: Limit of the pages of all blocks that are told apart.
TOLD_APART_LIMIT: Final = 1 << 26
#: Most bytes of a compressed block of ours.
_COMPRESSED_LIMIT: Final = 16 * 1024 * 1024


class PageKeeper(Protocol):
    """Keeper of pages of one block.

    Attributes
    ----------
    block
        Name of the block.
    first
        Number of the first page that is kept.
    """

    block: str
    first: int

    @property
    def array(self) -> Pages:
        """The pages."""

    def resize(self, length: int) -> None:
        """Learn the length of the block, bytes."""

    def keep(self, page: int, kind: RAMFlag, body: bytes, offset: int) -> None:
        """Keep a record's page that was not taken with others."""


class ReadBlock:
    """A RAM block as the stream describes it.

    Attributes
    ----------
    name, length
        Name, and length in bytes; None if no block list named it.
    address
        Address in the guest, if the stream tells it (x-ignore-shared).
    seen
        Marks of its first pages, see `colobench.wire.page_counts`.
    counts
        Sums of all its records.
    """

    __slots__ = ("address", "counts", "length", "name", "seen")

    def __init__(self, name: str) -> None:
        self.name = name
        self.length: int | None = None
        self.address: int | None = None
        self.seen: Marks = bytearray()
        self.counts = PageCounts()

    @property
    def pages(self) -> int:
        """Number of its pages; of one that no list named, more than there can be."""
        return 1 << 52 if self.length is None else -(-self.length // PAGE_SIZE)


class RAMReader:
    """Reader of RAM's records; it remembers the blocks, and the block of the last record.

    Parameters
    ----------
    at, log
        The buffer that is parsed, and the maker of its items.
    one_kind
        True if records of different kinds are different items.
    keeper
        Keeper of some pages, or None.

    Attributes
    ----------
    blocks
        Blocks by name, in the order of the stream.
    addresses
        True if block lists have addresses (x-ignore-shared).
    page_sizes
        True if block lists may have the page size of a block (after POSTCOPY_ADVISE).
    """

    def __init__(
        self, at: StreamBuffer, log: Log, *, one_kind: bool, keeper: PageKeeper | None = None
    ) -> None:
        self._at, self._log = at, log
        self._one_kind, self._keeper = one_kind, keeper
        self._block: ReadBlock | None = None
        self._left = TOLD_APART_LIMIT
        self.blocks: dict[str, ReadBlock] = {}
        self.addresses = self.page_sizes = False

    def forget_block(self) -> None:
        """Forget the block of the last record, because something in between was not read."""
        self._block = None

    def records(self) -> Steps[None]:
        """Read records up to EOS.

        Raises
        ------
        RAMError
            If a record is of an unknown kind, or its page is none of its block.
        LocalError
            If pages are to be kept, and are compressed together.
        """
        at = self._at
        while True:
            yield from self._count()
            offset = at.offset
            (word,) = BE64.unpack((yield BE64.size))
            flags = word & PAGE_FLAGS_MASK
            if flags in (RAMFlag.EOS, RAMFlag.MULTIFD_FLUSH):
                self._log.add(RAMFlag(flags).name, "")
                if flags == RAMFlag.EOS:
                    return
            elif flags == RAMFlag.MEM_SIZE:
                yield from self._block_list(word - flags)
            elif word == COMPRESSED_RECORDS:
                yield from self._compressed_records()
            else:
                yield from self._record(word, offset)

    def _count(self) -> Steps[None]:
        """Count the records with CONTINUE that follow, as far as they are of the usual kinds."""
        block = self._present_block()
        kept: Pages = b""
        first = 0
        if self._keeper is not None and self._keeper.block == block.name:
            kept, first = self._keeper.array, self._keeper.first
        while True:
            found: RecordCounter = yield CountRecords(
                self._told_apart(block), block.pages, self._one_kind, kept, first
            )
            if found.counts.records:
                self._note(block, found.counts, found.first, found.last)
            if found.bad is not None:
                self._refuse_page(block, found.bad, self._at.offset)
            if not self._one_kind or not found.counts.records:
                return

    def _present_block(self) -> ReadBlock:
        if self._block is None:
            self._block = self._named(UNKNOWN_BLOCK)
        return self._block

    def _named(self, name: str) -> ReadBlock:
        block = self.blocks.get(name)
        if block is None:
            # Only in a stream without a block list, such as a recorded checkpoint.
            block = self.blocks[name] = ReadBlock(name)
        return block

    def _told_apart(self, block: ReadBlock) -> Marks:
        if not len(block.seen) and block.length:
            pages = min(block.pages, self._left)
            self._left -= pages
            block.seen = new_marks(pages)
        return block.seen

    def _note(self, block: ReadBlock, counts: PageCounts, first: int, last: int) -> None:
        block.counts.add(counts)
        self._log.add_records(block.name, counts, first, last)

    @staticmethod
    def _refuse_page(block: ReadBlock, page: int, offset: int) -> None:
        raise RAMError(
            "RAM page",
            expected=f"an offset below {block.length:#x} in block {block.name!r}",
            found=f"{page * PAGE_SIZE:#x}",
            offset=offset,
        )

    def _record(self, word: int, offset: int) -> Steps[None]:
        """Read a record that is not counted with others."""
        flags = word & PAGE_FLAGS_MASK
        kind = flags & ~RAMFlag.CONTINUE
        if kind not in KINDS:
            raise RAMError(
                "RAM record",
                expected=" or ".join(each.name for each in KINDS),
                found=ram_flag_names(flags),
                offset=offset,
            )
        if not flags & RAMFlag.CONTINUE:
            yield from self._block_name()
        block, page = self._present_block(), word // PAGE_SIZE
        if page >= block.pages:
            self._refuse_page(block, page, offset)
        body: bytes
        if kind == RAMFlag.PAGE:
            body, counts = (yield PAGE_SIZE), PageCounts(pages=1)
        elif kind == RAMFlag.ZERO:
            body, counts = (yield 1), PageCounts(zero=1)
        elif kind == RAMFlag.XBZRLE:
            body = yield from self._encoding()
            counts = PageCounts(xbzrle=1, xbzrle_bytes=len(body))
        else:
            body = yield from self._compressed_page()
            counts = PageCounts(compressed=1, compressed_bytes=len(body))
        self._keep(block, page, RAMFlag(kind), body, offset)
        seen = self._told_apart(block)
        if page < len(seen):
            counts.duplicates = int(seen[page] != 0)
            seen[page] = 1 + KINDS.index(RAMFlag(kind))
        self._note(block, counts, page, page)

    def _keep(self, block: ReadBlock, page: int, kind: RAMFlag, body: bytes, offset: int) -> None:
        keeper = self._keeper
        if keeper is not None and keeper.block == block.name:
            keeper.keep(page, kind, body, offset)

    def _block_name(self) -> Steps[None]:
        offset = self._at.offset
        name = yield from _name()
        if name not in self.blocks and any(each.length for each in self.blocks.values()):
            raise RAMError(
                "RAM block", expected=f"one of {list(self.blocks)}", found=repr(name), offset=offset
            )
        if len(self.blocks) >= BLOCKS_LIMIT and name not in self.blocks:
            self._refuse_blocks(offset)
        self._block = self._named(name)

    def _encoding(self) -> Steps[bytes]:
        offset = self._at.offset
        encoding = (yield 1)[0]
        (length,) = BE16.unpack((yield BE16.size))
        if encoding != 1 or length > PAGE_SIZE:
            raise RAMError(
                "XBZRLE record",
                expected=f"encoding 1 of at most {PAGE_SIZE} bytes",
                found=f"encoding {encoding} of {length} bytes",
                offset=offset,
            )
        body: bytes = yield length
        if changed_runs(body) is None:
            raise RAMError(
                "XBZRLE record",
                expected="runs within the page and the record",
                found=body[:16].hex(" "),
                offset=offset + 1 + BE16.size,
            )
        return body

    def _compressed_page(self) -> Steps[bytes]:
        offset = self._at.offset
        (length,) = BE32.unpack((yield BE32.size))
        if length > MOST_COMPRESSED:
            raise RAMError(
                "compressed page",
                expected=f"at most {MOST_COMPRESSED} bytes",
                found=length,
                offset=offset,
            )
        body: bytes = yield length
        return body

    def _compressed_records(self) -> Steps[None]:
        offset = self._at.offset
        size, length = (BE32.unpack((yield BE32.size))[0], BE32.unpack((yield BE32.size))[0])
        if length > _COMPRESSED_LIMIT:
            raise RAMError(
                "compressed records",
                expected=f"at most {_COMPRESSED_LIMIT} bytes",
                found=length,
                offset=offset + BE32.size,
            )
        if self._keeper is not None:
            raise LocalError(
                f"pages of {self._keeper.block!r}: expected records that are not compressed "
                f"together, found COMPRESSED_RECORDS at offset {offset - BE64.size:,}, whose pages "
                "are not decoded"
            )
        yield Skip(length)
        self._log.add("COMPRESSED_RECORDS", "", f"{size} bytes of records in {length}")

    def _block_list(self, total: int) -> Steps[None]:
        blocks: list[str] = []
        listed = 0
        while listed < total:
            offset = self._at.offset
            if len(blocks) >= BLOCKS_LIMIT:
                self._refuse_blocks(offset)
            name = yield from _name()
            (length,) = BE64.unpack((yield BE64.size))
            if length > total - listed:
                raise RAMError(
                    "RAM block list",
                    expected=f"at most {total - listed} bytes in block {name!r}",
                    found=length,
                    offset=offset,
                )
            block = self._named(name)
            block.length = length
            if self._keeper is not None and self._keeper.block == name:
                self._keeper.resize(length)
            if self.page_sizes and _is_page_size((yield LookAhead(BE64.size)).data):
                yield BE64.size
            if self.addresses:
                (block.address,) = BE64.unpack((yield BE64.size))
            blocks.append(f"{name} {length}")
            listed += length
        title = f"{len(blocks)} blocks, {total} bytes"
        self._log.add(RAMFlag.MEM_SIZE.name, title, ", ".join(blocks))

    @staticmethod
    def _refuse_blocks(offset: int) -> None:
        raise RAMError(
            "RAM block list", expected=f"at most {BLOCKS_LIMIT} blocks", found="more", offset=offset
        )


def _name() -> Steps[str]:
    length = (yield 1)[0]
    name: bytes = yield length
    return name.decode(errors="backslashreplace")


def _is_page_size(data: bytes) -> bool:
    """Say whether the size of a huge page comes next, and not a block's name or a record."""
    size = int.from_bytes(data, "big")
    return size.bit_count() == 1 and PAGE_SIZE < size < 1 << 40
