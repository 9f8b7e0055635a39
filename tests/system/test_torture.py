"""Torture: kills by plan find nothing in our COLO, and each planted bug is found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from colobench.cli.main import main
from colobench.lab.checker.linearizability import Effort
from colobench.lab.torture.kill_plan import Kill, plan
from colobench.lab.torture.kill_results import KillResult, Results, summarize
from colobench.lab.torture.museum import MUSEUM
from colobench.lab.torture.run import Judgement, in_blocks, run_clean, torture
from colobench.lab.torture.settings import TortureSettings
from colobench.lab.torture.text import render
from colobench.settings.bug import Bug
from places import CLONE
from share import SEED, amount

#: By each transport and output, at points that the plan picks.
KILLS = amount(6, 200)

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_kills_lose_no_answered_write_and_no_connection() -> None:
    kills = plan(SEED, KILLS)
    results = list(torture(kills, jobs=2))
    summary = summarize(results)
    assert summary.violations == ()
    assert summary.clean
    assert sorted(each.kill.number for each in results) == list(range(KILLS))
    assert summary.operations > 0
    print(f"\ntakeover, ms: {summary.takeover_ms}")


@pytest.mark.parametrize("bug", Bug, ids=lambda bug: bug.value)
def test_each_planted_bug_is_caught(bug: Bug) -> None:
    shown = MUSEUM[bug]
    kills = plan(1, 200, outputs=shown.outputs, victims=shown.victims, points=shown.points)
    settings = TortureSettings(clients=6, patience=6.0).override(**shown.changes())
    for result in torture(kills, settings):
        if result.violations:
            print(f"\n{bug.value}, kill {result.kill.number}: {result.violations[0]}")
            return
    pytest.fail("not caught in 200 kills")


def test_clean_checkpoints_raise_no_alarm() -> None:
    found = dict(run_clean(amount(100, 1000), TortureSettings(clients=6)))
    assert set(found) == {"buffer", "compare"}
    for judgement in found.values():
        assert judgement.linearizable
        assert judgement.violations == ()


def test_clean_checkpoints_are_those_of_the_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    strategy = ["--strategy", "remus,transport=multifd"]
    assert main(["torture", "--clean", "10", *strategy, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["outputs"]) == {"buffer"}
    used = found["outputs"]["buffer"]["settings"]
    assert (used["capture"], used["transport"]) == ("copy-then-send", "multifd+unix")
    assert main(["torture", "--clean", "10", "--transport", "memfd"]) == 1
    assert "found --transport memfd" in capsys.readouterr().err


def test_torture_that_is_interrupted_shows_what_it_found_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "colobench", "torture", "--kills", "100", "--clients", "4"]
    with subprocess.Popen(
        [*command, "--results", str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TQDM_DISABLE": "1"},
    ) as tortures:
        while not (path.exists() and path.read_bytes().endswith(b"\n")):
            assert tortures.poll() is None
        tortures.send_signal(signal.SIGINT)
        printed, errors = tortures.communicate(timeout=120)
    assert tortures.returncode == 130
    assert errors == "colobench torture: interrupted\n"
    assert json.loads(printed)["kills"] == len(Results(path).load())


def test_torture_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.jsonl"
    arguments = ["torture", "--results", str(path), "--transport", "memfd", "--output", "buffer"]
    arguments += ["--clients", "4", "--json", "--kills"]
    assert main([*arguments, "1"]) == 0
    [first] = Results(path).load()
    assert main([*arguments, "2"]) == 0
    assert Results(path).load()[0] == first
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["kills"] == 2
    assert summary["clean"]
    # All is done already, and nothing is started.
    assert main([*arguments, "2"]) == 0
    assert main([*arguments, "1", "--seed", "7"]) == 1
    assert "expected results of" in capsys.readouterr().err
    assert main([*arguments, "1", "--heartbeat-limit", "300"]) == 1
    assert (
        "expected results with heartbeat_interval 30, heartbeat_limit 300, found some"
        in capsys.readouterr().err
    )


def test_more_clients_than_the_guest_takes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["torture", "--kills", "1", "--clients", "64"]) == 1
    assert "clients: expected at most 63 of a guest with 16M" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--json"], ["--clean", "4"], ["--clean", "4", "--json"]])
def test_a_history_that_is_undecided_does_not_pass(
    more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = ("key k: found neither",)
    asked = []

    def torture(kills: list[Kill], settings: TortureSettings, **_: object) -> Iterator[KillResult]:
        asked.append(settings.effort())
        yield KillResult(kills[0], 5.0, 9.0, 100, None, undecided=tried)

    def run_clean(
        _: int, settings: TortureSettings, outputs: Sequence[str], **__: object
    ) -> Iterator[tuple[str, Judgement]]:
        asked.append(settings.effort())
        yield "buffer", Judgement(100, None, (), tried)

    monkeypatch.setattr("colobench.lab.torture.run.torture", torture)
    monkeypatch.setattr("colobench.lab.torture.run.run_clean", run_clean)
    limits = ["--checker-seconds", "7", "--checker-memory", "3M"]
    assert main(["torture", "--kills", "1", *limits, *more]) == 1
    assert tried[0] in capsys.readouterr().out
    assert asked == [Effort(seconds=7, bytes=3 * 2**20)]


def test_blocks_keep_every_kill_and_one_pair_suffers_each() -> None:
    kills = plan(3, 300)
    blocks = list(in_blocks(kills))
    assert sorted(kill.number for block in blocks for kill in block) == list(range(300))
    assert all(len({(kill.transport, kill.output) for kill in block}) == 1 for block in blocks)


def test_published_figures_are_those_of_the_published_results() -> None:
    directory = CLONE / "datasets" / "torture"
    results = Results(directory / "2026-11-27-1000-kills.jsonl").load()
    kills = plan(20261127, 1000)
    assert sorted((each.kill for each in results), key=lambda kill: kill.number) == kills
    assert render(summarize(results), TortureSettings()) in (directory / "README.md").read_text()
    clean = json.loads((directory / "2026-11-27-10000-clean.json").read_text())
    assert clean["clean"]
    operations = sum(output["operations"] for output in clean["outputs"].values())
    assert f"{operations:,} operations checked" in (directory / "README.md").read_text()


#: What the published table calls a violation, by a part of its sentence.
REASONS = {
    "ClientsStalled": "clients without an answer",
    "torn state": "torn state",
    "not linearizable": "not linearizable",
    "checkpoints were not equal": "digests",
}


def test_published_table_of_planted_bugs_is_that_of_the_published_runs() -> None:
    directory = CLONE / "datasets" / "torture"
    lines = (directory / "2026-11-28-planted-bugs.jsonl").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    table = (directory / "README.md").read_text()
    for bug in Bug:
        of_bug = {run["seed"]: run for run in runs if run["bug"] == bug.value}
        said = "\n".join(words for run in of_bug.values() for _, words in run["violations"])
        kills = " | ".join(str(of_bug[seed]["kills"]) for seed in (1, 2, 3))
        reasons = "; ".join(name for part, name in REASONS.items() if part in said)
        assert f"| {bug.value} | {kills} | {reasons} |" in table
