"""Settings are one value, the same in Python, in JSON and on a command line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.cli import run
from colobench.cli.main import _parse
from colobench.cli.options import add_settings_options, chosen_settings
from colobench.errors import LocalError
from colobench.fields.kinds import Integer
from colobench.fields.part import Part, part, setting, settings_of
from colobench.lab.torture.settings import TortureSettings
from colobench.memory.tracker_names import ALL_TRACKERS
from colobench.protocol.colo import VARIANTS
from colobench.settings.checkpoint import CheckpointSettings
from colobench.settings.file import read_settings
from colobench.settings.settings import Settings
from setting_values import BASES, arguments_of, settings_values, values_of

EVERY = {each.name: each for each in settings_of(Settings)}


@cache
def parser_of(usual: Part) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_settings_options(parser, usual)
    return parser


def from_command_line(arguments: list[str], usual: Any) -> Any:
    return chosen_settings(parser_of(usual).parse_args(arguments), usual)


@given(settings_values())
def test_settings_to_json_and_back_are_the_same(settings: Settings) -> None:
    assert Settings.from_json(json.loads(json.dumps(settings.as_json()))) == settings


@given(settings_values(), st.sampled_from([*BASES, run.USUAL]))
def test_settings_to_a_command_line_to_json_and_back_are_the_same(
    settings: Settings, usual: Settings
) -> None:
    found = from_command_line(arguments_of(settings, usual), usual)
    assert found == settings
    assert Settings.from_json(json.loads(json.dumps(found.as_json()))) == settings


@given(settings_values(TortureSettings()))
def test_settings_of_torture_to_json_and_back_are_the_same(settings: TortureSettings) -> None:
    assert TortureSettings.from_json(json.loads(json.dumps(settings.as_json()))) == settings


@pytest.mark.parametrize("name", EVERY)
@hypothesis.settings(max_examples=15)
@given(data=st.data())
def test_any_value_of_each_setting_is_kept_on_every_way(name: str, data: st.DataObject) -> None:
    value = data.draw(values_of(EVERY[name]))
    accepted = 0
    for base in BASES:
        try:
            settings = base.override(**{name: value})
        except LocalError:
            continue
        accepted += 1
        assert Settings.from_json(settings.as_json()) == settings
        assert from_command_line(arguments_of(settings, base), base) == settings
        assert from_command_line(arguments_of(settings, run.USUAL), run.USUAL) == settings
    # A working set must fit into RAM, an interval into a limit; ports and images may come twice;
    # KVM's log goes with a KVM guest alone.
    refused = ("hostfwd", "disks", "working_set", "heartbeat_interval")
    assert accepted or name in refused or value == "kvm", value


def test_no_two_settings_have_one_name_or_one_option() -> None:
    for kind in (Settings, TortureSettings):
        every = list(settings_of(kind))
        assert len({each.name for each in every}) == len(every)
        assert len({each.option for each in every}) == len(every)


def test_every_setting_says_what_it_is() -> None:
    for each in settings_of(TortureSettings):
        assert each.help
        assert each.title
        assert not each.help.endswith(".")


def test_names_are_those_of_the_tables_that_carry_them_out() -> None:
    assert EVERY["variant"].kind.choices.keys() == VARIANTS.keys()  # type: ignore[attr-defined]
    assert EVERY["tracker"].kind.choices.keys() == ALL_TRACKERS.keys()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", EVERY)
def test_each_default_is_a_value_of_its_setting(name: str) -> None:
    each = EVERY[name]
    assert Settings().override(**{name: Settings().as_json()[name]}) == Settings()
    assert each.derived or each.kind.check(name, each.default) == each.default


# -- What follows from what ----------------------------------------------------------------------


def test_comparing_output_takes_the_variant_whose_secondary_runs() -> None:
    assert Settings().checkpoint.variant == "v12"
    compared = Settings().override(output="compare")
    assert compared.checkpoint.variant == "upstream"
    assert compared.override(output="buffer").checkpoint.variant == "v12"
    assert Settings().override(variant="upstream", delay=5).checkpoint.variant == "upstream"


def test_a_value_that_others_need_stays_as_it_was_given() -> None:
    given = Settings().override(encoding="divergent", variant="upstream")
    changed = given.override(tracker="userfault").override(delay=5)
    assert changed.checkpoint.variant == "upstream"
    assert changed.override(encoding="none").checkpoint.variant == "upstream"
    assert given.checkpoint.changes()["variant"] == "upstream"
    with pytest.raises(LocalError, match="divergent: expected variant upstream"):
        given.override(variant=None)


def test_channels_follow_the_transport() -> None:
    multifd = Settings().override(transport="multifd")
    assert multifd.checkpoint.multifd_channels >= 1
    assert multifd.override(transport="stream").checkpoint.multifd_channels == 0
    assert multifd.override(multifd_channels=7, delay=5).checkpoint.multifd_channels == 7


def test_heartbeats_are_there_once_one_of_their_settings_is_given() -> None:
    assert Settings().heartbeat is None
    beating = Settings().override(heartbeat_limit=200)
    assert beating.heartbeat is not None
    assert (beating.heartbeat.interval_ms, beating.heartbeat.limit_ms) == (20, 200)
    assert beating.override(heartbeat=None) == Settings()
    assert beating.override(heartbeat_limit=None, heartbeat_interval=None) == Settings()


# -- What is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], r"settings: expected a JSON object, found \[\]"),
        ({"rma": "64M"}, "settings: expected the name of one, such as ram, trace, found 'rma'"),
        ({"heartbeat": 5}, "heartbeat: expected HeartbeatSettings, found 5"),
        ({"quirks": [3]}, "quirks: expected a list of texts"),
        ({"delay": "soon"}, r"delay: expected 0 to 4294967295 ms or None, found 'soon' \(str\)"),
        ({"heartbeat_interval": 5, "heartbeat_limit": None}, "heartbeat_limit: expected 2 to"),
    ],
)
def test_wrong_json_is_one_clear_error(found: Any, words: str) -> None:
    with pytest.raises(LocalError, match=words):
        Settings.from_json(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected JSON, found"),
        ("{", "expected JSON, found"),
        pytest.param("[" * 100_000, "expected JSON, found it nested too deeply", id="deep"),
        ("[1]", r"expected a JSON object, found \[1\]"),
        ('{"settings": 1}', "expected a JSON object, found 1"),
    ],
)
def test_wrong_file_of_settings_is_one_clear_error(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text)
    with pytest.raises(LocalError, match=rf"^settings: .*settings.json: {words}"):
        read_settings(file)
    with pytest.raises(LocalError, match="cannot be read"):
        read_settings(tmp_path / "missing.json")


# -- Files ---------------------------------------------------------------------------------------


@hypothesis.settings(max_examples=20)
@given(settings=settings_values())
def test_settings_are_read_from_whatever_colobench_writes(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "written"
    for written in (
        json.dumps(settings.as_json()),
        json.dumps({"checkpoints": 5, "settings": settings.as_json()}, indent=1),
        json.dumps({"kill": 1, "settings": settings.as_json(), "torture": {"clients": 3}}) + "\n{}",
    ):
        file.write_text(written)
        options, _ = _parse(["run", "--settings", str(file)])
        assert chosen_settings(options, run.USUAL) == settings
        options, _ = _parse(["run", "--settings", str(file), "--seed", "99"])
        assert chosen_settings(options, run.USUAL) == settings.override(seed=99)


def test_a_file_that_names_few_settings_changes_those(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"ram": "32M"}')
    options, _ = _parse(["run", "--settings", str(file), "--delay", "none"])
    assert chosen_settings(options, run.USUAL) == run.USUAL.override(ram="32M", delay=None)


# -- One edit ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MoreCheckpointSettings(CheckpointSettings):
    """Settings of checkpoints, and one that there is not."""

    # All that a new setting takes, beside its use.
    patience: int = setting(Integer(1, 60_000, "ms"), 250, "time that a checkpoint may take")


@dataclass(frozen=True, slots=True)
class MoreSettings(Settings):
    """The whole, with that part."""

    checkpoint: CheckpointSettings = part(MoreCheckpointSettings)


def test_a_new_setting_is_one_field(capsys: pytest.CaptureFixture[str]) -> None:
    usual = MoreSettings()
    with pytest.raises(SystemExit):
        from_command_line(["--help"], usual)
    assert "--patience MS" in capsys.readouterr().out
    chosen = from_command_line(["--patience", "90"], usual)
    assert chosen.checkpoint.patience == 90
    assert chosen.as_json()["patience"] == 90
    assert MoreSettings.from_json(chosen.as_json()) == chosen
    with pytest.raises(LocalError, match="patience: expected 1 to 60000 ms, found 0"):
        usual.override(patience=0)
    with pytest.raises(LocalError, match="expected the name of one"):
        Settings().override(patience=90)


def test_importing_settings_brings_no_heavy_library() -> None:
    code = "import colobench.settings.settings, sys; "
    code += "print(*{'numba', 'numpy', 'bokeh', 'psutil'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.split() == []


def test_parts_are_values() -> None:
    for kind in (Settings, TortureSettings):
        assert issubclass(kind, Part)
        assert dataclasses.is_dataclass(kind)
        assert hash(kind()) == hash(kind())
