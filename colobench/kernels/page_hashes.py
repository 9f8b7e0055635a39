"""Hashes of pages, by which two nodes find the pages that differ: XXH3 with 128 bits.

Source: Yann Collet, "xxHash fast digest algorithm", version 0.2.0, see `colobench.kernels.digest`.
"""

from __future__ import annotations

from colobench.kernels.atomics import address
from colobench.kernels.digest import derive_secret, digest_room, wide_digest_page
from colobench.kernels.jit import Bytes, Pages, Words, kernel

_PAGE = 4096


@kernel("i8(u1[::1], i4[::1], i8, u8[::1])")
def hash_listed_pages(memory: Bytes, pages: Pages, seed: int, hashes: Words) -> int:
    """Hash each page of a list by itself, with 128 bits.

    Parameters
    ----------
    memory
        uint8[bytes], whole pages of 4096 bytes.
    pages
        int32[n], the pages to hash, in any order.
    seed
        XXH3's seed, 64 bits.
    hashes
        uint64[2 n], set to two words for each page, the upper half first: XXH3_128bits_withSeed of
        its 4096 bytes. Two different pages have the same hash with probability 2**-128, unless they
        were constructed for that.

    Returns
    -------
    int
        n.
    """
    room = digest_room()
    derive_secret(room, seed)
    begin, out = address(memory), address(hashes)
    for i in range(len(pages)):
        ahead = min(i + 1, len(pages) - 1)
        page, next_page = begin + pages[i] * _PAGE, begin + pages[ahead] * _PAGE
        wide_digest_page(room, page, next_page, out + 16 * i)
    return len(pages)
