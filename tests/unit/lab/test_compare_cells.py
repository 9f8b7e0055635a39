"""Cells of a comparison: texts become settings, and all are checked before anything starts."""

from __future__ import annotations

import pytest

from colobench.errors import LocalError
from colobench.guest.programs import Program
from colobench.lab.compare.cells import in_rounds, make_cells, read_guest, read_strategy
from colobench.lab.compare.settings import USUAL_PAIR
from colobench.settings.checkpoint import Strategy
from colobench.settings.settings import Settings


def cells(*strategies, guests=("hotcold",), links=()):
    return make_cells(strategies, guests, links, USUAL_PAIR)


def test_each_strategy_meets_each_guest():
    found = cells("transport=stream", "transport=memfd,delay=5", guests=("hotcold", "kv,ram=16M"))
    assert [(each.strategy, each.guest) for each in found] == [
        ("transport=stream", "hotcold"),
        ("transport=memfd,delay=5", "hotcold"),
        ("transport=stream", "kv,ram=16M"),
        ("transport=memfd,delay=5", "kv,ram=16M"),
    ]
    assert found[1].settings.checkpoint.delay == 5
    assert found[3].settings.guest.ram_bytes == 16 << 20
    assert not any(each.settings.checkpoint.verify for each in found)


def test_a_guest_that_serves_can_be_reached_before_it_is_protected():
    [found] = cells("transport=stream", guests=("kv",))
    assert found.settings.guest.program is Program.KV
    assert found.serves
    assert found.settings.network.hostfwd
    assert found.settings.network.serve_unprotected


def test_rounds_go_forth_and_back():
    found = cells("delay=1", "delay=2", "delay=3")
    order = [(number, cell.settings.checkpoint.delay) for number, cell in in_rounds(found, 3)]
    assert order == [(1, 1), (1, 2), (1, 3), (2, 3), (2, 2), (2, 1), (3, 1), (3, 2), (3, 3)]


def test_strategy_is_a_text_a_value_or_settings():
    wanted = Settings().override(transport="memfd", delay=20).checkpoint.as_json()
    strategy = Strategy().override(transport="memfd", delay=20)
    for given in ("transport=memfd,delay=20", {"transport": "memfd", "delay": 20}, strategy):
        name, changes = read_strategy(given)
        assert "delay=20" in name
        made = Settings().override(**changes).checkpoint.as_json()
        assert {key: made[key] for key in strategy.as_json()} == {
            key: wanted[key] for key in strategy.as_json()
        }


def test_guest_may_have_settings():
    assert read_guest("hotcold,writes_per_tick=200,ram=16M") == {
        "guest": "hotcold",
        "writes_per_tick": 200,
        "ram": "16M",
    }


def test_none_is_written_as_a_word():
    assert read_strategy("delay=none")[1] == {"delay": None}


@pytest.mark.parametrize(
    ("strategies", "guests", "words"),
    [
        (["nonsense"], ["hotcold"], "expected settings such as"),
        (["delay=soon"], ["hotcold"], "delay"),
        (["transport=multifd,layout=buffered"], ["hotcold"], "expected transport stream"),
        (["delay=1"], ["windows"], "windows"),
        (["delay=1"], ["hotcold,delay=3"], "expected settings such as"),
        (["delay=1", "delay=1"], ["hotcold"], "delay=1 on hotcold twice"),
        ([], ["hotcold"], "at least one strategy"),
    ],
)
def test_mistakes_are_refused_by_name(strategies, guests, words):
    with pytest.raises(LocalError, match=words):
        cells(*strategies, guests=guests)
