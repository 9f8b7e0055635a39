"""The failure detector: what counts as a sign of life, and when a peer is suspected."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.protocol.heartbeat import (
    BEAT_BYTES,
    SEQUENCE_LIMIT,
    Beat,
    FailureDetector,
    Heard,
    InvalidBeat,
    check_timing,
    decode_beat,
    encode_beat,
    sender_digest,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SEQUENCES = st.integers(0, SEQUENCE_LIMIT - 1)
INTERVAL, PAUSE, LIMIT = 10, 30, 50


def beat(sequence: int, *, pairing: str = "pairing", node: str = "secondary") -> bytes:
    return encode_beat(Beat(sender_digest(pairing, node), sequence))


def detector(now: float = 0) -> FailureDetector:
    return FailureDetector("pairing", "secondary", interval=INTERVAL, limit=LIMIT, now=now)


@given(st.binary(min_size=16, max_size=16), SEQUENCES)
def test_beat_survives_its_encoding_in_one_size(sender: bytes, sequence: int) -> None:
    encoded = encode_beat(Beat(sender, sequence))
    assert len(encoded) == BEAT_BYTES
    assert decode_beat(encoded) == Beat(sender, sequence)


def test_format_of_a_beat_does_not_change_unnoticed() -> None:
    header, sender, sequence = b"COLB\x01", bytes(range(16)), b"\0\0\0\0\0\0\x01\x02"
    assert encode_beat(Beat(sender, 258)) == header + sender + sequence


@pytest.mark.parametrize(
    "wrong", [Beat(b"short", 0), Beat(bytes(16), -1), Beat(bytes(16), SEQUENCE_LIMIT)]
)
def test_beat_that_does_not_fit_is_our_own_mistake(wrong: Beat) -> None:
    with pytest.raises(LocalError, match="be64"):
        encode_beat(wrong)


@given(st.binary(max_size=2 * BEAT_BYTES))
def test_any_bytes_are_a_beat_or_ignored_and_counted(datagram: bytes) -> None:
    doubting = detector()
    assert doubting.receive(datagram, 1) in (Heard.MALFORMED, Heard.FOREIGN)
    assert doubting.counts.total() == 1
    assert doubting.silence(20) == 20


@given(st.integers(0, BEAT_BYTES - 1), st.integers(1, 255), SEQUENCES)
def test_damaged_beat_of_the_peer_is_taken_for_nothing_worse_than_another_number(
    place: int, change: int, sequence: int
) -> None:
    damaged = bytearray(beat(sequence))
    damaged[place] ^= change
    if place >= BEAT_BYTES - 8:
        assert decode_beat(bytes(damaged)).sequence != sequence
    else:
        heard = detector().receive(bytes(damaged), 1)
        assert heard is (Heard.MALFORMED if place < 5 else Heard.FOREIGN)


def test_error_names_what_was_expected_of_a_beat() -> None:
    with pytest.raises(InvalidBeat, match=f"expected {BEAT_BYTES} bytes, found 3"):
        decode_beat(b"abc")
    with pytest.raises(InvalidBeat, match="version 1, found b'COLB', 2"):
        decode_beat(b"COLB\x02" + bytes(BEAT_BYTES - 5))


@given(NAMES, NAMES, NAMES, NAMES)
def test_only_the_same_node_in_the_same_pairing_is_the_same_sender(
    pairing: str, node: str, other_pairing: str, other_node: str
) -> None:
    assume((pairing, node) != (other_pairing, other_node))
    assert sender_digest(pairing, node) != sender_digest(other_pairing, other_node)


def test_beats_of_an_old_pairing_and_our_own_do_not_count() -> None:
    doubting = detector()
    doubting.receive(beat(0, pairing="older"), 40)
    doubting.receive(beat(0, node="primary"), 40)
    assert doubting.counts == {Heard.FOREIGN: 2}
    assert doubting.suspects(LIMIT)


@given(st.lists(st.integers(0, 20)))
def test_only_beats_newer_than_all_before_count(sequences: list[int]) -> None:
    doubting = detector()
    newest = -1
    for now, sequence in enumerate(sequences):
        expected = Heard.BEAT if sequence > newest else Heard.REPEATED
        newest = max(newest, sequence)
        assert doubting.receive(beat(sequence), now) is expected


def test_old_beats_played_back_for_ever_keep_nobody_alive() -> None:
    doubting = detector()
    recorded = [beat(sequence) for sequence in range(3)]
    for now in range(0, 60, 5):
        doubting.turn(now)
        doubting.receive(recorded[now % 3], now)
    assert doubting.suspects(70)


#: What a driver does between two turns: how long it waits, and whether it hears a beat then.
TURNS = st.lists(st.tuples(st.integers(0, 3 * LIMIT), st.booleans()), max_size=50)


@given(TURNS)
def test_suspicion_is_silence_since_the_last_sign_of_life_or_our_own_pause(
    turns: list[tuple[int, bool]],
) -> None:
    doubting = detector()
    now = since = sequence = 0
    for waited, hears in turns:
        now += waited
        doubting.turn(now)
        if waited > PAUSE:
            since = now
        if hears:
            doubting.receive(beat(sequence), now)
            sequence, since = sequence + 1, now
        assert doubting.silence(now) == now - since
        assert doubting.suspects(now) is (now - since >= LIMIT)
        assert doubting.deadline() == since + LIMIT
    assert doubting.pauses == sum(waited > PAUSE for waited, _ in turns)


@given(TURNS, st.integers(1, PAUSE))
def test_completeness_a_dead_peer_is_suspected_once_we_have_listened_for_the_limit(
    turns: list[tuple[int, bool]], step: int
) -> None:
    doubting = detector()
    now = 0
    for sequence, (waited, hears) in enumerate(turns):
        now += waited
        doubting.turn(now)
        if hears:
            doubting.receive(beat(sequence), now)
    died = now
    while now < died + LIMIT:
        now += step
        doubting.turn(now)
    assert doubting.suspects(now)
    doubting.turn(now + step)
    assert doubting.suspects(now + step)


@given(st.lists(st.tuples(st.integers(0, LIMIT - 1), st.integers(0, 3)), min_size=1, max_size=50))
def test_accuracy_a_peer_that_is_heard_within_the_limit_is_never_suspected(
    gaps: list[tuple[int, int]],
) -> None:
    doubting = detector()
    now = 0
    for sequence, (gap, idle_turns) in enumerate(gaps):
        for _ in range(idle_turns):
            doubting.turn(now + gap // 2)
            assert not doubting.suspects(now + gap // 2)
        now += gap
        doubting.turn(now)
        assert not doubting.suspects(now)
        doubting.receive(beat(sequence), now)


@given(st.integers(PAUSE + 1, 10**9))
def test_peer_is_not_blamed_for_our_own_pause_but_for_one_more_limit_of_silence(gap: int) -> None:
    doubting = detector()
    doubting.turn(gap)
    assert not doubting.suspects(gap)
    for waited in range(LIMIT):
        doubting.turn(gap + waited)
        assert not doubting.suspects(gap + waited)
    doubting.turn(gap + LIMIT)
    assert doubting.suspects(gap + LIMIT)


def test_suspicion_is_taken_back_by_a_beat() -> None:
    doubting = detector()
    assert doubting.suspects(LIMIT)
    doubting.receive(beat(0), LIMIT)
    assert not doubting.suspects(LIMIT)


@given(st.floats(), st.floats())
def test_timing_is_two_positive_times_with_room_for_a_lost_beat(
    interval: float, limit: float
) -> None:
    fine = 0 < 2 * interval <= limit < float("inf")
    if fine:
        check_timing(interval, limit)
    else:
        with pytest.raises(LocalError, match=r"heartbeat.*expected.*found"):
            check_timing(interval, limit)


def test_detector_checks_its_timing() -> None:
    with pytest.raises(LocalError, match="at least two intervals, 20 s, found 19"):
        FailureDetector("pairing", "secondary", interval=10, limit=19, now=0)


@given(st.integers(1, 1000), st.integers(0, 1000))
def test_turn_that_is_late_by_less_than_half_an_interval_is_no_pause(
    interval: int, more: int
) -> None:
    doubting = FailureDetector(
        "pairing", "secondary", interval=interval, limit=2 * interval + more, now=0
    )
    now = 0.0
    while not doubting.suspects(now):
        now += interval * 1.5
        doubting.turn(now)
    assert doubting.pauses == 0
