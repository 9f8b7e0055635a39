"""Digests of guest memory and of pages: XXH3 of more than 240 bytes, with 64 or 128 bits.

Source: Yann Collet, "xxHash fast digest algorithm", version 0.2.0, section "XXH3 Algorithm
Description (for large inputs)". A stripe is 64 bytes, one word for each of eight accumulators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from colobench.kernels.atomics import address
from colobench.kernels.jit import Bytes, inlined, instruction, kernel
from colobench.kernels.raw import CHUNK, fetch, load_word, pointer, store_word

#: The 192 bytes that the specification calls defaultSecret, as little-endian words.
_SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
        "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
        "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
        "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
        "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
        "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
    ),
    dtype="<u8",
)
_SECRET_BYTES = 192
_PAGE = 4096
_STRIPE, _STRIPES_PER_BLOCK = 64, 16
_BLOCK = _STRIPE * _STRIPES_PER_BLOCK
# Offsets in the secret at which each step begins to read.
_SCRAMBLE_SECRET, _LAST_STRIPE_SECRET, _MERGE_SECRET = 128, 121, 11

_PRIME32_1 = 0x9E3779B1
_PRIME64_1 = np.uint64(0x9E3779B185EBCA87)
_PRIME64_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_MX1 = np.uint64(0x165667919E3779F9)
_ACCUMULATORS = np.array(
    [
        0xC2B2AE3D,
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x85EBCA77,
        0x27D4EB2F165667C5,
        0x9E3779B1,
    ],
    dtype=np.uint64,
)
_32, _37 = np.uint64(32), np.uint64(37)

_BYTE, _WORD, _DOUBLE_WORD = ir.IntType(8), ir.IntType(64), ir.IntType(128)
_LANES = ir.VectorType(_WORD, 8)


@instruction(lambda: types.int64())
def digest_room(builder: Any) -> Any:
    """Return the address of space on the kernel's stack for the secret and the accumulators."""
    with builder.goto_entry_block():
        room = builder.alloca(ir.ArrayType(_BYTE, _SECRET_BYTES + _STRIPE))
    return builder.ptrtoint(room, _WORD)


def _load(builder: Any, address: Any, offset: int = 0) -> Any:
    """Read eight words at an LLVM address."""
    return builder.load(pointer(builder, address, _LANES, offset), align=1)


def _accumulate(builder: Any, lanes: Any, data: Any, key: Any) -> Any:
    """Consume one stripe: the specification's step 2-1, in all lanes at once."""
    key = builder.xor(key, data)
    low = builder.and_(key, _LANES([0xFFFFFFFF] * 8))
    product = builder.mul(low, builder.lshr(key, _LANES([32] * 8)))
    neighbours = ir.VectorType(ir.IntType(32), 8)([1, 0, 3, 2, 5, 4, 7, 6])
    added = builder.add(builder.shuffle_vector(data, data, neighbours), product)
    return builder.add(lanes, added)


def _accumulate_stripes(builder: Any, lanes: Any, data: Any, secret: Any, stripes: int) -> Any:
    """Consume stripes from the beginning of a block."""
    for stripe in range(stripes):
        key = _load(builder, secret, 8 * stripe)
        lanes = _accumulate(builder, lanes, _load(builder, data, stripe * _STRIPE), key)
    return lanes


@instruction(lambda *_: types.void(types.int64, types.int64, types.int64))
def _take_stripe(builder: Any, accumulators: Any, data: Any, secret: Any) -> None:
    """Consume one stripe."""
    lanes = _accumulate_stripes(builder, _load(builder, accumulators), data, secret, 1)
    builder.store(lanes, pointer(builder, accumulators, _LANES), align=1)


@instruction(lambda *_: types.void(types.int64, types.int64, types.int64))
def _take_block(builder: Any, accumulators: Any, data: Any, secret: Any) -> None:
    """Consume a whole block, and end it: the specification's steps 2-1 and 2-2."""
    lanes = _load(builder, accumulators)
    lanes = _accumulate_stripes(builder, lanes, data, secret, _STRIPES_PER_BLOCK)
    lanes = builder.xor(lanes, builder.lshr(lanes, _LANES([47] * 8)))
    lanes = builder.xor(lanes, _load(builder, secret, _SCRAMBLE_SECRET))
    lanes = builder.mul(lanes, _LANES([_PRIME32_1] * 8))
    builder.store(lanes, pointer(builder, accumulators, _LANES), align=1)


@instruction(lambda *_: types.void(types.int64, types.int64, types.int64))
def _take_last_block(builder: Any, accumulators: Any, data: Any, secret: Any) -> None:
    """Consume the last block of an input of whole blocks."""
    stripes = _STRIPES_PER_BLOCK - 1
    lanes = _accumulate_stripes(builder, _load(builder, accumulators), data, secret, stripes)
    last, key = _load(builder, data, stripes * _STRIPE), _load(builder, secret, _LAST_STRIPE_SECRET)
    lanes = _accumulate(builder, lanes, last, key)
    builder.store(lanes, pointer(builder, accumulators, _LANES), align=1)


@instruction(lambda *_: types.uint64(types.uint64, types.uint64))
def _multiply_and_fold(builder: Any, left: Any, right: Any) -> Any:
    """Return the low half of the 128-bit product xor its high half."""
    product = builder.mul(builder.zext(left, _DOUBLE_WORD), builder.zext(right, _DOUBLE_WORD))
    return builder.trunc(builder.xor(product, builder.lshr(product, _DOUBLE_WORD(64))), _WORD)


@inlined
def derive_secret(secret: int, seed: int) -> None:
    """Write the secret that belongs to a seed."""
    for i in range(0, len(_SECRET), 2):
        store_word(secret + 8 * i, _SECRET[i] + np.uint64(seed))
        store_word(secret + 8 * i + 8, _SECRET[i + 1] - np.uint64(seed))


@inlined
def _begin(accumulators: int) -> None:
    """Write the accumulators' initial values: the specification's step 1."""
    for i in range(len(_ACCUMULATORS)):
        store_word(accumulators + 8 * i, _ACCUMULATORS[i])


@inlined
def _merge(accumulators: int, key: int, start: Any) -> Any:
    """Return 64 bits of the digest: the specification's step 4, from a key in the secret."""
    result = start
    for at in range(0, _STRIPE, 16):
        result += _multiply_and_fold(
            load_word(accumulators + at) ^ load_word(key + at),
            load_word(accumulators + at + 8) ^ load_word(key + at + 8),
        )
    result = (result ^ (result >> _37)) * _PRIME_MX1
    return result ^ (result >> _32)


@inlined
def _low(accumulators: int, secret: int, length: int) -> Any:
    """Return the digest of 64 bits, which is also the lower half of that of 128 bits."""
    return _merge(accumulators, secret + _MERGE_SECRET, np.uint64(length) * _PRIME64_1)


@inlined
def _high(accumulators: int, secret: int, length: int) -> Any:
    """Return the upper half of the digest of 128 bits."""
    key = secret + _SECRET_BYTES - _STRIPE - _MERGE_SECRET
    return _merge(accumulators, key, ~(np.uint64(length) * _PRIME64_2))


@inlined
def _take_page(room: int, page: int, next_page: int) -> None:
    """Consume the 4096 bytes at an address, and prefetch the next page.

    The prefetch is needed because the end of a digest keeps the CPU from running ahead to the next
    page.
    """
    accumulators = room + _SECRET_BYTES
    _begin(accumulators)
    for begin in range(0, _PAGE, _BLOCK):
        for at in range(begin, begin + _BLOCK, CHUNK):
            fetch(next_page + at)
        if begin < _PAGE - _BLOCK:
            _take_block(accumulators, page + begin, room)
        else:
            _take_last_block(accumulators, page + begin, room)


@inlined
def digest_page(room: int, page: int) -> Any:
    """Return the digest of the 4096 bytes at an address, and prefetch the page behind them.

    The secret in `room` must be derived already.
    """
    _take_page(room, page, page + _PAGE)
    return _low(room + _SECRET_BYTES, room, _PAGE)


@inlined
def wide_digest_page(room: int, page: int, next_page: int, out: int) -> None:
    """Write the digest of 128 bits of a page, upper half first, and prefetch the next page.

    Like `digest_page`; the addresses are those of two pages, and of two words for the digest.
    """
    _take_page(room, page, next_page)
    store_word(out, _high(room + _SECRET_BYTES, room, _PAGE))
    store_word(out + 8, _low(room + _SECRET_BYTES, room, _PAGE))


@kernel("u8(u1[::1], i8)")
def digest(memory: Bytes, seed: int) -> int:
    """Digest memory, so that any change of it, and of the order of its pages, changes the digest.

    Parameters
    ----------
    memory
        uint8[bytes], at least 241 bytes; guest memory is whole pages.
    seed
        XXH3's seed, 64 bits; another seed gives another digest.

    Returns
    -------
    int
        XXH3_64bits_withSeed of the bytes, a uint64. Two different memories have the same digest
        with probability 2**-64, unless they were constructed for that.
    """
    secret = digest_room()
    accumulators = secret + _SECRET_BYTES
    derive_secret(secret, seed)
    _begin(accumulators)
    at = address(memory)
    last = at + len(memory) - 1
    while at + _BLOCK <= last:
        _take_block(accumulators, at, secret)
        at += _BLOCK
    for stripe in range((last - at) // _STRIPE):
        _take_stripe(accumulators, at + stripe * _STRIPE, secret + 8 * stripe)
    _take_stripe(accumulators, last + 1 - _STRIPE, secret + _LAST_STRIPE_SECRET)
    result: int = _low(accumulators, secret, len(memory))
    return result
