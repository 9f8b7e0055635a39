"""A link's framing: frames come out as they went in, however the stream was cut."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.net.link import FRAME_LIMIT, LinkDecoder, LinkError, encode_frame


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(position % (len(data) + 1) for position in at), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


@given(st.lists(st.binary(max_size=100), max_size=20), st.lists(st.integers(0, 5000), max_size=20))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    frames: list[bytes], at: list[int]
) -> None:
    data = b"".join(map(encode_frame, frames))
    decoder = LinkDecoder()
    found = [frame for piece in cut(data, at) for frame in decoder.feed(piece)]
    assert found == frames
    assert decoder.pending == 0


def test_framing_is_that_of_qemus_socket_netdev() -> None:
    assert encode_frame(b"frame") == b"\0\0\0\5frame"


@given(st.lists(st.binary(max_size=30), max_size=10), st.integers(0, 1000))
def test_frames_are_given_as_soon_as_they_are_complete(frames: list[bytes], at: int) -> None:
    data = b"".join(map(encode_frame, frames))
    end = at % (len(data) + 1)
    ends, position = [], 0
    for frame in frames:
        position += 4 + len(frame)
        ends.append(position)
    complete = sum(1 for each in ends if each <= end)
    decoder = LinkDecoder()
    assert decoder.feed(data[:end]) == frames[:complete]
    assert decoder.pending == end - ([0, *ends][complete])


def test_length_over_the_limit_is_an_error_before_anything_is_kept() -> None:
    decoder = LinkDecoder(limit=1514)
    assert decoder.feed(encode_frame(bytes(1514))) == [bytes(1514)]
    with pytest.raises(LinkError, match="at most 1514 bytes, found one of 1515"):
        decoder.feed(struct.pack(">I", 1515))


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_any_bytes_are_frames_or_a_link_error(pieces: list[bytes]) -> None:
    decoder = LinkDecoder()
    for piece in pieces:
        try:
            frames = decoder.feed(piece)
        except LinkError:
            return
        assert all(len(frame) <= FRAME_LIMIT for frame in frames)
        assert decoder.pending <= FRAME_LIMIT + 4
