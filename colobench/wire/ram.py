"""Payload of RAM's section: the page records, for sender and receiver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from colobench.kernels import bitmap
from colobench.memory.ram import PAGE_SIZE, WORD_BITS, PageMemory, RAMBlock
from colobench.wire.compressed_records import COMPRESSED_RECORDS, CompressedRecordsDecoder
from colobench.wire.errors import RAMError
from colobench.wire.format import (
    BE64,
    BLOCKS_LIMIT,
    PAGE_FLAGS_MASK,
    RAMFlag,
    counted_string,
    ram_flag_names,
)
from colobench.wire.reading import PageRun, PageSync, Parser, RunDecoder, StreamBuffer

#: Most bytes by which learnt blocks may be padded to whole words of a bitmap.
PADDING_LIMIT: Final = 32 << 20
_EMPTY: Final = np.zeros(0, dtype=np.uint8)


class BlockSlice(NamedTuple):
    """The pages of one block in a list of pages: ``pages[begin:end]``."""

    block: RAMBlock
    begin: int
    end: int


class PagesByBlock:
    """Splits lists of pages by block.

    Parameters
    ----------
    blocks
        The RAM blocks, in the order of their first pages.
    """

    def __init__(self, blocks: Sequence[RAMBlock]) -> None:
        self._blocks = tuple(blocks)
        self._edges = np.array([block.first_page for block in blocks[1:]], dtype=np.int32)

    def slices(self, pages: npt.NDArray[np.int32]) -> list[BlockSlice]:
        """Split a page list: int32[n], ascending, page numbers across all blocks."""
        edges = [0, *pages.searchsorted(self._edges).tolist(), len(pages)]
        return [
            BlockSlice(block, begin, end)
            for block, begin, end in zip(self._blocks, edges, edges[1:], strict=False)
            if begin < end
        ]


class RecordSlice(NamedTuple):
    """A checkpoint's records of one block, ``pages[begin:end]``, as a kernel takes them.

    `name` (uint8, with its length byte) follows the first record's header. It is empty if that
    record has CONTINUE instead.
    """

    block: RAMBlock
    begin: int
    end: int
    name: npt.NDArray[np.uint8]

    @property
    def named(self) -> int:
        """1 if the first record names its block, else 0."""
        return len(self.name) and 1


class RAMRecordState:
    """A sender's state between page records: the block of the last record.

    The state is kept as long as the stream lasts, across sections and checkpoints.
    """

    def __init__(self, blocks: Sequence[RAMBlock]) -> None:
        self._split = PagesByBlock(blocks)
        self._names = {
            block.first_page: np.frombuffer(bytearray(counted_string(block.name)), dtype=np.uint8)
            for block in blocks
        }
        self._last_sent_block: RAMBlock | None = None

    def slices(self, pages: npt.NDArray[np.int32]) -> list[RecordSlice]:
        """Split a page list by block; the caller must then send all of its records.

        Parameters
        ----------
        pages
            int32[n], ascending: page numbers across all blocks.
        """
        slices = []
        for block, begin, end in self._split.slices(pages):
            known = block is self._last_sent_block
            name = _EMPTY if known else self._names[block.first_page]
            slices.append(RecordSlice(block, begin, end, name))
            self._last_sent_block = block
        return slices

    def name_next(self) -> None:
        """Name the block in the next record, because a slice turned out to have no records."""
        self._last_sent_block = None


def encode_block_list(blocks: Sequence[RAMBlock]) -> bytes:
    """Encode the payload of RAM's START section: each block's name and length, then EOS."""
    total = sum(block.used_length for block in blocks)
    parts = [BE64.pack(total | RAMFlag.MEM_SIZE)]
    parts += [counted_string(block.name) + BE64.pack(block.used_length) for block in blocks]
    return b"".join(parts) + BE64.pack(RAMFlag.EOS)


class RAMLoader:
    """Parser of RAM sections; it remembers the block of the last page record.

    Parameters
    ----------
    memory
        Memory into which pages are stored, and whose bits are set: a secondary's RAM cache.
    multifd
        True if the pages arrive on multifd channels, see `colobench.wire.multifd`.
    xbzrle
        True if XBZRLE records are accepted; QEMU's capability of this name allows them on both
        sides. Such a record holds the bytes that changed since the page was last stored.
    compression
        How all page records are compressed, see `colobench.wire.compressed_records`, or None.
    """

    def __init__(
        self,
        memory: PageMemory,
        *,
        multifd: bool = False,
        xbzrle: bool = False,
        compression: str | None = None,
    ) -> None:
        self._memory = memory
        self._multifd = multifd
        self._decoder: RunDecoder | None = None
        #: Decoder of runs: none before the first XBZRLE record, as kernels take plain ones sooner.
        self._run_decoder: RunDecoder | None = None
        if xbzrle:
            from colobench.wire.xbzrle import XBZRLEDecoder

            self._decoder = XBZRLEDecoder(memory)
        self._compressed: CompressedRecordsDecoder | None = None
        if compression is not None:
            self._compressed = CompressedRecordsDecoder(compression, RAMLoader(memory).records)
        # Scratch space for a page being decoded, and for its encoding.
        self._blocks = {block.name.encode(): block for block in memory.blocks}
        self._run: PageRun | None = None

    def block_list(self, at: StreamBuffer) -> Parser[None]:
        """Parse the payload of a START section, and compare it with our blocks.

        Raises
        ------
        RAMError
            If a name or length differs from ours.
        """
        blocks = dict(self._blocks)
        total = sum(block.used_length for block in blocks.values())
        offset = at.offset
        word = BE64.unpack((yield 8))[0]
        _expect(word, total | RAMFlag.MEM_SIZE, "RAM size", offset)
        while total:
            offset = at.offset
            block = blocks.pop((name := (yield from _name(at))), None)
            if block is None:
                raise RAMError(
                    "RAM block list",
                    expected=f"one of {[key.decode() for key in blocks]}",
                    found=_printable(name),
                    offset=offset,
                )
            offset = at.offset
            length = BE64.unpack((yield 8))[0]
            _expect(length, block.used_length, f"length of RAM block {block.name!r}", offset)
            total -= length
        offset = at.offset
        word = BE64.unpack((yield 8))[0]
        _expect(word, RAMFlag.EOS, "end of the RAM block list", offset)

    def records(self, at: StreamBuffer) -> Parser[tuple[int, int]]:
        """Parse the payload of a PART or END section.

        Returns
        -------
        pages, zero_pages
            Number of page records, and number of ZERO ones among them.

        Raises
        ------
        RAMError
            If a record names no page of ours, or is of a kind that was not negotiated.
        """
        pages = zero_pages = 0
        while True:
            if self._run is not None:
                taken = yield self._run
                pages += taken[0]
                zero_pages += taken[1]
            offset = at.offset
            word = BE64.unpack((yield 8))[0]
            if word == RAMFlag.EOS:
                return pages, zero_pages
            if self._multifd:
                _expect(word, RAMFlag.MULTIFD_FLUSH, "RAM record", offset)
                taken = yield PageSync(self._memory)
                pages += taken[0]
                zero_pages += taken[1]
                continue
            if self._compressed is not None:
                _expect(word, COMPRESSED_RECORDS, "RAM record", offset)
                taken = yield from self._compressed.block(at)
                pages += taken[0]
                zero_pages += taken[1]
                continue
            zero = yield from self._record(at, word, offset)
            pages += 1
            zero_pages += zero

    def _record(self, at: StreamBuffer, word: int, offset: int) -> Parser[bool]:
        """Parse a record that no kernel takes; return True if it is a ZERO record."""
        flags = word & PAGE_FLAGS_MASK
        kinds = [RAMFlag.PAGE, RAMFlag.ZERO] + [RAMFlag.XBZRLE] * bool(self._decoder)
        if flags in kinds:
            block = yield from self._named_block(at)
        elif self._run and self._decoder and flags == RAMFlag.XBZRLE | RAMFlag.CONTINUE:
            block = self._run.block
        else:
            raise RAMError(
                "RAM record",
                expected=f"{' or '.join(kind.name for kind in kinds)} with a block, or EOS",
                found=f"{ram_flag_names(flags)} ({word:#x})",
                offset=offset,
            )
        page = word // PAGE_SIZE
        if page >= block.pages:
            raise RAMError(
                "RAM page",
                expected=f"an offset below {block.used_length:#x} in block {block.name!r}",
                found=f"{word - flags:#x}",
                offset=offset,
            )
        if flags & RAMFlag.XBZRLE:
            self._run_decoder = self._decoder
        self._run = PageRun(block, self._memory, self._run_decoder)
        if flags & RAMFlag.XBZRLE and self._decoder:
            yield from self._decoder.page(at, block.first_page + page)
        else:
            yield from self._page(at, block.first_page + page, zero=flags == RAMFlag.ZERO)
        return flags == RAMFlag.ZERO

    def _named_block(self, at: StreamBuffer) -> Parser[RAMBlock]:
        offset = at.offset
        name = yield from _name(at)
        block = self._blocks.get(name)
        if block is None:
            raise RAMError(
                "RAM block",
                expected=f"one of {[key.decode() for key in self._blocks]}",
                found=_printable(name),
                offset=offset,
            )
        return block

    def _page(self, at: StreamBuffer, page: int, *, zero: bool) -> Parser[None]:
        offset = at.offset
        begin = page * PAGE_SIZE
        data = yield 1 if zero else PAGE_SIZE
        if zero:
            _expect(data[0], 0, "fill byte of a RAM zero page", offset)
        self._memory.array[begin : begin + PAGE_SIZE] = np.frombuffer(data, dtype=np.uint8)
        bitmap.mark(self._memory.bitmap, page)


def learn_block_list(at: StreamBuffer, limit: int) -> Parser[dict[str, int]]:
    """Parse the payload of a START section whose blocks are not known.

    Parameters
    ----------
    at
        The buffer.
    limit
        Most bytes of all blocks that are accepted.

    Returns
    -------
    dict
        Lengths in bytes by name, in the order of the stream.

    Raises
    ------
    RAMError
        If it is not a list of blocks, or RAM is larger than `limit`.
    """
    sizes: dict[str, int] = {}
    padding = 0
    offset = at.offset
    word = BE64.unpack((yield 8))[0]
    left = word - RAMFlag.MEM_SIZE
    if word & PAGE_FLAGS_MASK != RAMFlag.MEM_SIZE or not 0 < left <= limit:
        raise RAMError(
            "RAM size",
            expected=f"MEM_SIZE with at most {limit} bytes",
            found=f"{ram_flag_names(word & PAGE_FLAGS_MASK)} with {left:#x}",
            offset=offset,
        )
    while left:
        offset = at.offset
        name = _decoded(at, (yield from _name(at)))
        length = BE64.unpack((yield 8))[0]
        if name in sizes or len(sizes) >= BLOCKS_LIMIT:
            raise RAMError(
                "RAM block list",
                expected=f"at most {BLOCKS_LIMIT} blocks, each once",
                found=f"block {name!r} after {len(sizes)}",
                offset=offset,
            )
        if not 0 < length <= left or length % PAGE_SIZE:
            raise RAMError(
                f"length of RAM block {name!r}",
                expected=f"a multiple of {PAGE_SIZE}, at most {left:#x}",
                found=f"{length:#x}",
                offset=at.offset - 8,
            )
        padding += -length % (WORD_BITS * PAGE_SIZE)
        if padding > PADDING_LIMIT:
            raise RAMError(
                "RAM block list",
                expected=f"blocks that are padded by at most {PADDING_LIMIT} bytes in all",
                found=f"{padding} up to block {name!r}",
                offset=offset,
            )
        sizes[name] = length
        left -= length
    offset = at.offset
    word = BE64.unpack((yield 8))[0]
    _expect(word, RAMFlag.EOS, "end of the RAM block list", offset)
    return sizes


def _decoded(at: StreamBuffer, name: bytes) -> str:
    """Decode the name of a block, which goes back into a stream as it came."""
    if not name or not name.isascii():
        raise RAMError(
            "name of a RAM block",
            expected="1 to 255 characters of ASCII",
            found=_printable(name),
            offset=at.offset - len(name),
        )
    return name.decode()


def _name(at: StreamBuffer) -> Parser[bytes]:
    length = (yield 1)[0]
    name: bytes = yield length
    return name


def _printable(name: bytes) -> str:
    return repr(name.decode(errors="backslashreplace"))


def _expect(found: int, expected: int, subject: str, offset: int) -> None:
    if found != expected:
        raise RAMError(subject, expected=f"{expected:#x}", found=f"{found:#x}", offset=offset)
