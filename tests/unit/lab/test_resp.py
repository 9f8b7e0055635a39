"""Redis's protocol as a client reads and writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.lab.clients.resp import ErrorReply, ReplyParser, RESPError, encode

lines = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40)
scalars = (
    lines
    | st.binary(max_size=100)
    | st.integers(-(2**63), 2**63 - 1)
    | lines.map(ErrorReply)
    | st.none()
)
ascii_lines = st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=40)
ascii_scalars = ascii_lines | ascii_lines.map(ErrorReply) | st.binary() | st.integers(0, 9)
replies = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


def written(reply):
    match reply:
        case None:
            return b"$-1\r\n"
        case str():
            return b"+" + reply.encode("latin-1") + b"\r\n"
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case int():
            return b":%d\r\n" % reply
        case ErrorReply(message):
            return b"-" + message.encode("latin-1") + b"\r\n"
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(written, reply))


@given(st.lists(replies, max_size=6), st.data())
def test_answers_are_read_however_their_bytes_are_cut(answers, data):
    stream = b"".join(map(written, answers))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser, found = ReplyParser(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:end])
    assert found == answers
    assert parser.pending == 0


@given(replies)
def test_no_answer_comes_before_its_last_byte(answer):
    stream, parser = written(answer), ReplyParser()
    assert [parser.feed(stream[at : at + 1]) for at in range(len(stream) - 1)] == [[]] * (
        len(stream) - 1
    )
    assert parser.feed(stream[-1:]) == [answer]


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5))
def test_requests_are_arrays_of_bulk_strings(arguments):
    assert ReplyParser().feed(encode(*arguments)) == [arguments]


def as_hiredis(value):
    """Give what hiredis gives, which does not tell statuses from strings."""
    match value:
        case str():
            return value.encode()
        case ErrorReply(message):
            return message
        case list():
            return [as_hiredis(each) for each in value]
    return value


def without_exceptions(value):
    if isinstance(value, list):
        return [without_exceptions(each) for each in value]
    return str(value) if isinstance(value, Exception) else value


@given(st.recursive(ascii_scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=12))
def test_hiredis_reads_the_same(answer):
    hiredis = pytest.importorskip("hiredis", reason="hiredis is not installed")
    reader = hiredis.Reader()
    reader.feed(written(answer))
    assert without_exceptions(reader.gets()) == as_hiredis(answer)


@pytest.mark.parametrize(
    "stream",
    [
        b"?\r\n",
        b"G",
        b":12x\r\n",
        b":\r\n",
        b":+\r\n",
        b"$-2\r\n",
        b"$3\r\nabcd\r\n",
        b"$999999999999\r\n",
        b"*-2\r\n",
        b"*99999999\r\n",
        b"*1\r\n" * 10,
        b"+" + b"a" * 70_000,
    ],
)
def test_bytes_that_are_no_answer_are_refused(stream):
    with pytest.raises(RESPError, match="expected"):
        ReplyParser().feed(stream)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(stream):
    try:
        found = ReplyParser().feed(stream)
    except RESPError:
        return
    assert isinstance(found, list)


def test_the_code_of_an_error_is_its_first_word():
    assert ErrorReply("OOM command not allowed").code == "OOM"
