"""Planted bugs of colo-compare on minimal traces, beside what the comparison does without them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from colobench.net import frame as net
from colobench.net.compare_tcp import TcpConnection
from colobench.net.frame import ACK, GUEST_IP, HOST_IP, PSH, SYN, ConnectionKey, Segment
from colobench.net.mirror import MARK
from colobench.net.outcome import Miscompare, Outcome, Timeout
from colobench.net.planted_bugs import ForeignSequence, compare_class, connection_class
from colobench.settings.bug import Bug

ISN = 1000
TEXT = b"+a reply that is longer than a header\r\n"


def frame(seq: int, payload: bytes = b"", flags: int = ACK, port: int = 40000) -> bytes:
    """Give a frame of the guest that acknowledges the client's SYN."""
    connection = ConnectionKey(GUEST_IP, 6379, HOST_IP, port)
    segment = Segment(connection, seq, 7001, flags, 1000, payload)
    return net.build_tcp(net.HOST_MAC, net.GUEST_MAC, segment)


class Compared:
    """A filter with a planted bug, or without one, and one connection that is open."""

    def __init__(self, bug: Bug | None, port: int = 40000, isn: int = ISN) -> None:
        self.filter = compare_class(bug)(compare_timeout=1.0, tcp=connection_class(bug))
        self.now = 0.0
        self.open(port, isn)

    def open(self, port: int = 40000, isn: int = ISN) -> list[bytes]:
        """Let both guests send a SYN; give what is released."""
        return list(self.both(frame(isn, flags=SYN | ACK, port=port)).frames)

    def both(self, primary: bytes, secondary: bytes | None = None) -> Outcome:
        """Let both guests send a frame; give the outcome of both together."""
        first = self.filter.primary(primary, self.now)
        second = self.filter.secondary(secondary or primary, self.now)
        return Outcome(first.frames + second.frames, first.cause or second.cause)

    def commit(self) -> list[bytes]:
        """Take a checkpoint."""
        self.filter.secondary(MARK, self.now)
        return self.filter.checkpoint()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    ForeignSequence._left_behind = 0
    yield
    ForeignSequence._left_behind = 0


def test_a_comparison_taken_for_a_truth_value_stops_what_is_equal_and_passes_what_is_not() -> None:
    said = frame(ISN + 1, TEXT, ACK | PSH)
    other = frame(ISN + 1, TEXT.upper(), ACK | PSH)
    assert Compared(None).both(said).frames == (said,)
    assert isinstance(Compared(None).both(said, other).cause, Miscompare)
    wrong = Compared(Bug.MEMCMP_TRUTH)
    equal = wrong.both(said)
    assert isinstance(equal.cause, Miscompare)
    assert equal.frames == ()
    # An answer that only one of the guests has given reaches the client.
    assert Compared(Bug.MEMCMP_TRUTH).both(said, other).frames == (said,)


def test_a_connection_that_begins_at_another_ones_number_holds_equal_output() -> None:
    second = frame(5_000_000, flags=SYN | ACK, port=40001)
    right, wrong = Compared(None), Compared(Bug.FOREIGN_SEQUENCE)
    assert right.open(40001, 5_000_000) == [second]
    assert wrong.open(40001, 5_000_000) == []
    assert right.filter.scan(2.0).cause is None
    assert isinstance(wrong.filter.scan(2.0).cause, Timeout)


def test_a_connection_that_begins_behind_another_one_passes_what_was_not_compared() -> None:
    wrong = Compared(Bug.FOREIGN_SEQUENCE, isn=5_000_000)
    wrong.commit()
    wrong.both(frame(5_000_001, TEXT, ACK | PSH))
    alone = frame(1000, flags=SYN | ACK, port=40001)
    wrong.filter.secondary(alone, 0.0)
    assert wrong.filter.primary(alone, 0.0).frames == (alone,)
    # The secondary has not sent this.
    answer = frame(1001, TEXT, ACK | PSH, port=40001)
    assert wrong.filter.primary(answer, 0.0).frames == (answer,)


def test_a_header_that_is_subtracted_twice_hides_the_end_and_leaves_a_gap() -> None:
    first, second = (frame(ISN + 1 + at * len(TEXT), TEXT, ACK | PSH) for at in range(2))
    right, wrong = Compared(None), Compared(Bug.TWICE_SUBTRACTED)
    assert [right.both(each).frames for each in (first, second)] == [(first,), (second,)]
    different_end = frame(ISN + 1, TEXT[:-3] + b"!\r\n", ACK | PSH)
    assert wrong.both(first, different_end).frames == (first,)
    assert wrong.both(second).frames == ()
    assert right.filter.scan(2.0).cause is None
    assert isinstance(wrong.filter.scan(2.0).cause, Timeout)


def test_a_request_that_is_kept_over_a_checkpoint_is_the_last_one() -> None:
    def difference(at: int) -> tuple[bytes, bytes]:
        seq = ISN + 1 + at * len(TEXT)
        return frame(seq, TEXT, ACK | PSH), frame(seq, TEXT.upper(), ACK | PSH)

    causes = {}
    for bug in (None, Bug.KEPT_REQUEST):
        compared = Compared(bug)
        causes[bug] = []
        for at in range(3):
            causes[bug].append(compared.both(*difference(at)).cause is not None)
            assert len(compared.commit()) == 1
    assert causes == {None: [True, True, True], Bug.KEPT_REQUEST: [True, False, False]}


def test_a_connection_without_a_bug_is_of_the_usual_class() -> None:
    assert {connection_class(bug) for bug in (None, Bug.EARLY_RELEASE)} == {TcpConnection}
