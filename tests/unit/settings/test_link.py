"""Links as settings: presets, properties, and what does not go with a link."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.settings.link import PRESETS, RATE_MAX, RATE_MIN, Link
from colobench.settings.settings import Settings


@st.composite
def links(draw: st.DrawFn) -> Link:
    rate = draw(st.just(0) | st.integers(RATE_MIN, RATE_MAX))
    delay_us, jitter_us = draw(st.integers(0, 1200)), draw(st.integers(0, 1200))
    return Link(rate, delay_us, jitter_us)


@given(links() | st.sampled_from(list(PRESETS.values())))
def test_links_to_text_and_back_are_the_same(link: Link) -> None:
    assert Link.parse(str(link)) == link


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_their_names(name: str) -> None:
    assert str(Link.parse(name)) == name


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("rate=2.5G", Link(2_500_000_000)),
        ("rate=100Mbit/s,delay=50us", Link(10**8, 50)),
        ("10GbE,delay=1.5ms,jitter=1ms", Link(10**10, 1500, 1000)),
        ("delay=1s", Link(0, 1_000_000)),
    ],
)
def test_properties_are_read_with_their_units(text: str, link: Link) -> None:
    assert Link.parse(text) == link


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2GbE", "expected local, 1GbE"),
        ("", "expected local, 1GbE"),
        ("rate=1G,rate=2G", "expected local, 1GbE"),
        ("rate=1G,10GbE", "expected local, 1GbE"),
        ("rate=1T", "a rate in bits/s"),
        ("rate=5M", "a rate from 10M to 400G"),
        ("rate=0", "a rate from 10M to 400G"),
        ("1GbE,rate=0.0001k", "a rate from 10M to 400G"),
        ("rate=401G", "a rate from 10M to 400G"),
        ("delay=20", "a delay such as 20ms"),
        ("jitter=-1ms", "a jitter such as 20ms"),
        ("delay=2s", "a delay of at most"),
        ("rate=100G,delay=1s", "at most 128 MiB on their way"),
    ],
)
def test_a_link_that_cannot_be_is_refused_with_the_reason(text: str, found: str) -> None:
    with pytest.raises(LocalError, match="link") as caught:
        Link.parse(text)
    assert found in str(caught.value)


def test_memfd_over_a_link_is_refused_with_the_reason() -> None:
    with pytest.raises(LocalError, match=r"link 1GbE: .* found memfd: .* past the link"):
        Settings().override(link="1GbE", transport="memfd")


def test_a_link_slower_than_a_stall_is_refused() -> None:
    with pytest.raises(LocalError, match="round trip shorter than the stall timeout"):
        Settings().override(link="delay=500ms", stall_timeout=1.0)
