"""Presets, and strategies as texts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.cli.main import main
from colobench.cli.options import chosen_settings
from colobench.errors import LocalError
from colobench.fields.part import settings_of
from colobench.lab.session.session import Session
from colobench.settings.checkpoint import Strategy
from colobench.settings.settings import Settings
from colobench.settings.strategy import make_strategy, preset
from colobench.strategy.presets import PRESETS
from colobench.strategy.trigger import NEEDS
from colobench.strategy.written import TRIGGERS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_strategy_that_says_when_it_is_good(name: str) -> None:
    found = make_strategy(name)
    assert Strategy.from_json(found.as_json()) == found
    assert PRESETS[name].source
    assert PRESETS[name].good_for
    assert Session(strategy=name).settings == Settings().override(**PRESETS[name].axes)


def test_no_two_presets_are_the_same() -> None:
    assert len({preset(name) for name in PRESETS}) == len(PRESETS)


def test_no_parameter_of_a_trigger_has_the_name_of_an_axis() -> None:
    """So that a text of a strategy can be read in one way alone."""
    axes = {each.name for each in settings_of(Strategy)}
    for kind in TRIGGERS.values():
        assert not axes & {each.name for each in settings_of(kind)}
        assert kind.needs <= set(NEEDS)


def test_a_text_changes_axes_of_a_preset() -> None:
    text = "colo_v12,trigger=degradation:target=0.2,maximum=50,transport=memfd"
    found = make_strategy(text).as_json()
    assert found["trigger"] == "degradation:target=0.2,minimum=10,maximum=50"
    assert (found["transport"], found["delay"]) == ("memfd+unix", 50)
    assert make_strategy("multifd,delay=none").delay is None
    assert make_strategy(preset("colo")) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("remix", "strategy: expected one of colo_v12, .*, found 'remix'"),
        ("", "strategy: expected one of"),
        (5, "strategy: expected a Strategy or a text, found 5"),
        ("colo,fast", "strategy colo: expected axis=value of delay, .*, found 'fast'"),
        ("colo,target=1", "strategy colo: expected axis=value of delay"),
        ("colo_v11,transport=memfd", "layout buffered: expected transport stream, .* found memfd"),
        ("hybrid,output=buffer", "trigger hybrid: expected output compare"),
        ("colo_v12,delay=soon", "strategy colo_v12: delay: expected a whole number"),
        ("colo_v12,trigger=soon", "strategy colo_v12: trigger: expected one of"),
    ],
)
def test_a_wrong_text_is_one_clear_error(text: object, words: str) -> None:
    with pytest.raises(LocalError, match=words):
        make_strategy(text)


@given(st.sampled_from(list(PRESETS)), st.sampled_from([5, 700]))
def test_a_strategy_sets_all_axes_and_settings_by_name_go_before_it(name: str, delay: int) -> None:
    before = Settings().override(transport="multifd", tracker="shadow", seed=7, verify=False)
    found = Session(
        before, strategy=name, delay=delay, output="buffer", variant="upstream"
    ).settings
    alone = preset(name).override(delay=delay, output="buffer", variant="upstream")
    assert {axis: found.as_json()[axis] for axis in alone.as_json()} == alone.as_json()
    assert (found.guest.seed, found.checkpoint.verify) == (7, False)


def test_options_go_before_the_strategy_and_it_goes_before_a_file(tmp_path) -> None:
    from colobench.cli.main import _parse
    from colobench.cli.run import USUAL

    file = tmp_path / "run.json"
    file.write_text(json.dumps({"transport": "multifd", "seed": 3}))
    arguments = ["run", "--settings", str(file), "--strategy", "kemari", "--tracker", "shadow"]
    options, _ = _parse(arguments)
    expected = USUAL.override(seed=3, trigger="output", tracker="shadow")
    assert chosen_settings(options, USUAL) == expected


def test_the_table_of_strategies_has_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies"]) == 0
    table = capsys.readouterr().out
    assert main(["strategies", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == PRESETS.keys()
    for name, each in PRESETS.items():
        assert f"\n{name} " in table
        assert Strategy.from_json(found[name]["axes"]) == preset(name)
        assert found[name]["source"] == each.source
