"""Requests: those that a disk can do are done, the others have an error number of NBD's."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.block.backend import BlockError
from colobench.block.request import (
    GUEST_LENGTH_MAX,
    NBD_LENGTH_MAX,
    SECTOR_SIZE,
    BlockRequest,
    RequestKind,
)
from memory_disk import MemoryDisk

SIZE = 16 * SECTOR_SIZE
ranges = st.integers(-1, 17).flatmap(
    lambda first: st.tuples(st.just(first), st.integers(-1, 18 - first))
)


def refusal(request: BlockRequest) -> int:
    """Give the error's number, or 0."""
    try:
        request.check(SIZE)
    except BlockError as error:
        return error.errno
    return 0


def expected_refusal(kind: RequestKind, offset: int, length: int) -> int:
    if kind is RequestKind.FLUSH:
        return errno.EINVAL if offset or length else 0
    if offset < 0 or length <= 0 or offset % SECTOR_SIZE or length % SECTOR_SIZE:
        return errno.EINVAL
    if offset + length > SIZE:
        return errno.EINVAL if kind is RequestKind.READ else errno.ENOSPC
    return 0


@given(st.sampled_from(RequestKind), ranges, st.sampled_from((0, 1, 511)))
def test_a_request_that_passes_the_check_changes_its_range_and_nothing_else(kind, place, odd):
    offset, length = place[0] * SECTOR_SIZE, place[1] * SECTOR_SIZE + odd
    data = b"w" * length if kind is RequestKind.WRITE else b""
    request = BlockRequest(kind, offset, length, data)
    assert refusal(request) == expected_refusal(kind, offset, length)
    if refusal(request):
        return
    disk = MemoryDisk(b"o" * SIZE)
    expected = bytearray(disk.bytes)
    assert request.perform(disk) == (b"o" * length if kind is RequestKind.READ else b"")
    if kind in (RequestKind.WRITE, RequestKind.WRITE_ZEROES, RequestKind.DISCARD):
        fill = b"w" if kind is RequestKind.WRITE else b"\0"
        expected[offset : offset + length] = fill * length
    assert disk.bytes == expected


@pytest.mark.parametrize("length_max", [GUEST_LENGTH_MAX, NBD_LENGTH_MAX])
def test_the_longest_request_passes_and_a_longer_one_does_not(length_max):
    disk = 2 * NBD_LENGTH_MAX
    BlockRequest(RequestKind.READ, 0, length_max).check(disk, length_max)
    with pytest.raises(BlockError, match=r"expected 1 to .* found .*EINVAL"):
        BlockRequest(RequestKind.READ, 0, length_max + SECTOR_SIZE).check(disk, length_max)


def test_a_write_has_as_much_data_as_it_says_and_no_other_request_has_any():
    for request in (
        BlockRequest(RequestKind.WRITE, 0, 512, b"short"),
        BlockRequest(RequestKind.READ, 0, 512, bytes(512)),
        BlockRequest(RequestKind.FLUSH, 0, 0, bytes(512)),
    ):
        with pytest.raises(BlockError, match="data"):
            request.check(SIZE)


def test_force_unit_access_reaches_the_backend():
    disk = MemoryDisk(bytes(SIZE))
    BlockRequest(RequestKind.WRITE, 0, 512, bytes(512), fua=True).perform(disk)
    BlockRequest(RequestKind.FLUSH).perform(disk)
    assert disk.flushes == 2
