"""Access to bytes at any address: words, copies, prefetches, tests for set bits.

Addresses, lengths and counts are int64, words are uint64 in the machine's byte order. Nothing is
checked, and only `stream` needs alignment.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from colobench.kernels.jit import inlined, instruction

#: Bytes that `any_bit` tests.
CHUNK = 256
#: Bytes of a cache line.
LINE = 64
#: Words that `words_in_use` tests, and their bytes.
STRETCH_WORDS = 64
STRETCH = 8 * STRETCH_WORDS
_BYTE, _WORD, _FLAG = ir.IntType(8), ir.IntType(64), ir.IntType(1)
_LINE = ir.VectorType(_WORD, 8)
_NUMBER = ir.IntType(32)
_STRETCH = ir.VectorType(_WORD, STRETCH_WORDS)


def pointer(builder: Any, address: Any, to: Any, offset: int = 0) -> Any:
    """Return the LLVM pointer to an LLVM type at an LLVM address."""
    return builder.inttoptr(builder.add(address, _WORD(offset)), to.as_pointer())


def declared(builder: Any, kind: Any, name: str) -> Any:
    """Return the LLVM function of that type and name, declared in this module if it is not yet."""
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


@instruction(lambda _: types.uint64(types.int64))
def load_word(builder: Any, address: Any) -> Any:
    """Read a word."""
    return builder.load(pointer(builder, address, _WORD), align=1)


@instruction(lambda *_: types.void(types.int64, types.uint64))
def store_word(builder: Any, address: Any, word: Any) -> None:
    """Write a word."""
    builder.store(word, pointer(builder, address, _WORD), align=1)


@instruction(lambda _: types.int32(types.int64))
def load_number(builder: Any, address: Any) -> Any:
    """Read an int32."""
    return builder.load(pointer(builder, address, _NUMBER), align=1)


@instruction(lambda *_: types.void(types.int64, types.int32))
def store_number(builder: Any, address: Any, number: Any) -> None:
    """Write an int32."""
    builder.store(number, pointer(builder, address, _NUMBER), align=1)


@instruction(lambda _: types.uint64(types.uint64))
def swap_bytes(builder: Any, word: Any) -> Any:
    """Reverse the bytes of a word: big-endian to little-endian and back."""
    return builder.bswap(word)


@instruction(lambda _: types.int64(types.uint64))
def trailing_zeros(builder: Any, word: Any) -> Any:
    """Return the number of a word's lowest set bit; 64 for 0."""
    return builder.cttz(word, _FLAG(0))


@instruction(lambda _: types.int64(types.uint64))
def count_ones(builder: Any, word: Any) -> Any:
    """Count the set bits of a word."""
    return builder.ctpop(word)


def _not_zero(builder: Any, line: Any) -> Any:
    """Return an LLVM word with a set bit for each nonzero word of a line."""
    flags = builder.icmp_unsigned("!=", line, _LINE([0] * 8))
    return builder.zext(builder.bitcast(flags, _BYTE), _WORD)


def _prefetch(builder: Any, address: Any, offset: int) -> None:
    """Prefetch the line at an LLVM address into all levels of the cache."""
    place = _BYTE.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [place, _NUMBER, _NUMBER, _NUMBER])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", [place], kind)
    to_read, all_levels, data = _NUMBER(0), _NUMBER(3), _NUMBER(1)
    builder.call(prefetch, [pointer(builder, address, _BYTE, offset), to_read, all_levels, data])


@instruction(lambda _: types.void(types.int64))
def fetch(builder: Any, address: Any) -> None:
    """Prefetch CHUNK bytes from any address, mapped or not."""
    for offset in range(0, CHUNK, LINE):
        _prefetch(builder, address, offset)


@instruction(lambda _: types.void(types.int64))
def fetch_line(builder: Any, address: Any) -> None:
    """Prefetch one line, and with it the TLB entry of its page."""
    _prefetch(builder, address, 0)


@instruction(lambda _: types.uint64(types.int64))
def any_bit(builder: Any, address: Any) -> Any:
    """Return 0 if no bit is set in CHUNK bytes."""
    seen = _LINE([0] * 8)
    for offset in range(0, CHUNK, LINE):
        line = builder.load(pointer(builder, address, _LINE, offset), align=1)
        seen = builder.or_(seen, line)
    return _not_zero(builder, seen)


@instruction(lambda *_: types.uint64(types.int64, types.int64))
def any_difference(builder: Any, left: Any, right: Any) -> Any:
    """Return 0 if CHUNK bytes are the same at both addresses."""
    seen = _LINE([0] * 8)
    for offset in range(0, CHUNK, LINE):
        lines = [
            builder.load(pointer(builder, address, _LINE, offset), align=1)
            for address in (left, right)
        ]
        seen = builder.or_(seen, builder.xor(*lines))
    return _not_zero(builder, seen)


@instruction(lambda _: types.uint64(types.int64))
def words_in_use(builder: Any, address: Any) -> Any:
    """Return a word with one bit for each word of STRETCH bytes, set if that word is not 0."""
    words = builder.load(pointer(builder, address, _STRETCH), align=1)
    return builder.bitcast(builder.icmp_unsigned("!=", words, _STRETCH([0] * STRETCH_WORDS)), _WORD)


@instruction(lambda _: types.uint64(types.int64))
def words_with_edges(builder: Any, address: Any) -> Any:
    """Return a word with one bit for each word of STRETCH bytes, set if a bit in it is an edge.

    An edge is a bit that differs from the next lower bit. For a word's lowest bit that is the
    highest of the previous word, so one word before the address is read.
    """
    words = builder.load(pointer(builder, address, _STRETCH), align=1)
    before = builder.load(pointer(builder, address, _STRETCH, -8), align=1)
    below = builder.or_(
        builder.shl(words, _STRETCH([1] * STRETCH_WORDS)),
        builder.lshr(before, _STRETCH([63] * STRETCH_WORDS)),
    )
    return builder.bitcast(builder.icmp_unsigned("!=", words, below), _WORD)


@instruction(lambda *_: types.void(types.int64, types.int64, types.int64))
def copy(builder: Any, to: Any, source: Any, length: Any) -> None:
    """Copy bytes between places that do not overlap, as memcpy does."""
    kinds = [_BYTE.as_pointer(), _BYTE.as_pointer(), _WORD]
    memcpy = builder.module.declare_intrinsic("llvm.memcpy", kinds)
    places = [pointer(builder, address, _BYTE) for address in (to, source)]
    builder.call(memcpy, [*places, length, _FLAG(0)])


@instruction(lambda *_: types.void(types.int64, types.int64))
def clear(builder: Any, address: Any, length: Any) -> None:
    """Set bytes to 0."""
    memset = builder.module.declare_intrinsic("llvm.memset", [_BYTE.as_pointer(), _WORD])
    builder.call(memset, [pointer(builder, address, _BYTE), _BYTE(0), length, _FLAG(0)])


@instruction(lambda *_: types.void(types.int64, types.int64))
def _stream_chunk(builder: Any, to: Any, source: Any) -> None:
    """Copy CHUNK bytes past the CPU's cache; `to` is a multiple of 64."""
    around_the_cache = builder.module.add_metadata([ir.IntType(32)(1)])
    for offset in range(0, CHUNK, LINE):
        line = builder.load(pointer(builder, source, _LINE, offset), align=1)
        store = builder.store(line, pointer(builder, to, _LINE, offset), align=LINE)
        store.set_metadata("nontemporal", around_the_cache)


@inlined
def stream(to: int, source: int, length: int) -> None:
    """Copy bytes that are not needed soon, without fetching their destination into the cache.

    `length` is a multiple of CHUNK. A `fence` must follow the last such copy. If `to` is not a
    multiple of 64, as in small arrays of numpy, this is `copy`.
    """
    if to % LINE:
        copy(to, source, length)
    else:
        for offset in range(0, length, CHUNK):
            _stream_chunk(to + offset, source + offset)


@instruction(lambda *_: types.void(*[types.int64] * 6))
def stream_beside(
    builder: Any, to: Any, source: Any, ahead: Any, to_2: Any, source_2: Any, ahead_2: Any
) -> None:
    """Stream CHUNK bytes at two places, line by line in turns, and prefetch the next ones.

    Two streams that are far from each other keep more of the memory's banks busy than one does. The
    CPU's own prefetchers stop at the end of a page. `ahead` is the address at which a stream goes
    on; `to` and `to_2` are multiples of 64.
    """
    around_the_cache = builder.module.add_metadata([_NUMBER(1)])
    for offset in range(0, CHUNK, LINE):
        _prefetch(builder, ahead, offset)
        _prefetch(builder, ahead_2, offset)
        for begin, end in ((source, to), (source_2, to_2)):
            line = builder.load(pointer(builder, begin, _LINE, offset), align=1)
            store = builder.store(line, pointer(builder, end, _LINE, offset), align=LINE)
            store.set_metadata("nontemporal", around_the_cache)


@instruction(lambda: types.void())
def fence(builder: Any) -> None:
    """Make all earlier writes, those of `stream` included, visible before all later ones."""
    builder.fence("seq_cst")
