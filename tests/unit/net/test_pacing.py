"""A link's schedule: never faster than its rate, in order, and at its rate if kept busy."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from colobench.net.pacing import Pacing
from colobench.settings.link import PRESETS, Link

NS_PER_BYTE = 8_000_000_000
rates = st.sampled_from([link.rate for link in PRESETS.values() if link.rate])
links = st.builds(Link, rates, st.integers(0, 30_000), st.integers(0, 5_000))
#: Bytes of each piece, and nanoseconds from the last one to it.
pieces = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.integers(0, 50_000_000)), min_size=1, max_size=40
)


def pacing_of(link: Link) -> Pacing:
    return Pacing(link, random.Random(1).random)


@given(links, pieces)
def test_bytes_never_arrive_faster_than_rate_and_delay(
    link: Link, pieces: list[tuple[int, int]]
) -> None:
    pacing, now, ends = pacing_of(link), 0, [(0, 0)]
    for count, gap in pieces:
        now += gap
        arrival = pacing.put(count, now, now)
        assert arrival >= now + count * NS_PER_BYTE // link.rate + link.delay_us * 1000
        ends.append((ends[-1][0] + count, arrival))
    first = pieces[0][1]
    for sent, arrival in ends[1:]:
        assert arrival - first >= sent * NS_PER_BYTE // link.rate + link.delay_us * 1000


@given(links, pieces)
def test_nothing_is_overtaken_whatever_the_jitter(
    link: Link, pieces: list[tuple[int, int]]
) -> None:
    pacing, now, arrivals = pacing_of(link), 0, []
    for count, gap in pieces:
        now += gap
        arrivals.append(pacing.put(count, now, now))
    assert arrivals == sorted(arrivals)


@given(rates, st.integers(0, 30_000), pieces)
def test_a_link_that_is_kept_busy_holds_its_rate(
    rate: int, delay_us: int, pieces: list[tuple[int, int]]
) -> None:
    pacing = pacing_of(Link(rate, delay_us))
    arrival = 0
    for count, _ in pieces:
        arrival = pacing.put(count, 0, 0)
    exact = pacing.bytes * NS_PER_BYTE // rate
    assert exact <= pacing.sending_ns <= exact + len(pieces)
    assert arrival == pacing.sending_ns + delay_us * 1000
    assert pacing.lost_ns == 0


@given(rates, st.integers(1, 1 << 20), st.integers(0, 10**9), st.integers(0, 10**9))
def test_lost_time_is_that_in_which_bytes_waited_for_an_idle_link(
    rate: int, count: int, since: int, late: int
) -> None:
    pacing = pacing_of(Link(rate))
    free = pacing.put(count, 0, 0)
    pacing.put(count, since + late, since)
    assert pacing.lost_ns == max(0, since + late - max(free, since))


@given(links)
def test_what_may_be_on_its_way_has_room(link: Link) -> None:
    pacing, now, on_their_way = pacing_of(link), 0, []
    for _ in range(200):
        now = max(now, pacing.opens_at())
        on_their_way = [(arrival, count) for arrival, count in on_their_way if arrival > now]
        assert sum(count for _, count in on_their_way) + pacing.piece <= pacing.room
        on_their_way.append((pacing.put(pacing.piece, now, now), pacing.piece))
