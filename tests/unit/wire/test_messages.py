"""COLO's messages survive the way over the wire, and what is no message is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.wire.errors import InvalidMessage, StreamEnded
from colobench.wire.messages import SIZE_LIMIT, Message, encode_message, message
from colobench.wire.reading import parse_bytes


@pytest.mark.parametrize("sent", [each for each in Message if each is not Message.VMSTATE_SIZE])
def test_message_without_value_is_four_bytes(sent):
    encoded = encode_message(sent)
    assert encoded == sent.value.to_bytes(4, "big")
    assert parse_bytes(message, encoded) == (sent, None)


@settings(deadline=None)
@given(st.integers(0, SIZE_LIMIT))
def test_size_survives(size):
    encoded = encode_message(Message.VMSTATE_SIZE, size)
    assert len(encoded) == 12
    assert parse_bytes(message, encoded) == (Message.VMSTATE_SIZE, size)


def test_size_beyond_the_limit_is_refused_before_anything_is_read():
    encoded = encode_message(Message.VMSTATE_SIZE, 101)
    with pytest.raises(InvalidMessage) as error:
        parse_bytes(lambda at: message(at, size_limit=100), encoded, offset=50)
    assert (error.value.expected, error.value.found, error.value.offset) == (
        "at most 100",
        "101",
        54,
    )


def test_unknown_number_names_number_and_place():
    with pytest.raises(InvalidMessage) as error:
        parse_bytes(message, bytes([0, 0, 1, 8]), offset=1000)
    assert (
        str(error.value) == "COLO message: expected 0 to 7, or 256 to 259, found 264 at offset 1000"
    )


@pytest.mark.parametrize("length", range(12))
def test_torn_message_is_stream_ended(length):
    with pytest.raises(StreamEnded):
        parse_bytes(message, encode_message(Message.VMSTATE_SIZE, 7)[:length])


def test_value_goes_with_size_only():
    with pytest.raises(LocalError, match="VMSTATE_SIZE: expected a value, found None"):
        encode_message(Message.VMSTATE_SIZE)
    with pytest.raises(LocalError, match="VMSTATE_SEND: expected no value, found 3"):
        encode_message(Message.VMSTATE_SEND, 3)
