"""Torture: kills by plan find nothing in our COLO, and each planted bug is found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from colobench.cli.main import main
from colobench.lab.checker.linearizability import Effort
from colobench.lab.checker.sectors import SectorsVerdict
from colobench.lab.session.record import Records
from colobench.lab.torture.bug_hunt import hunt_bug
from colobench.lab.torture.catch import Catch
from colobench.lab.torture.double_round import DoubleSectorsRound
from colobench.lab.torture.kill_plan import LAYERS, SECONDS, TRANSPORTS, Kill, plan
from colobench.lab.torture.kill_results import KillResult, Results, summarize
from colobench.lab.torture.museum import MUSEUM
from colobench.lab.torture.needless_checkpoints import WAVES, count_needless
from colobench.lab.torture.run import _judge_clean, in_blocks, run_clean, torture
from colobench.lab.torture.settings import USUAL_PAIR, TortureSettings
from colobench.lab.torture.store_round import Judgement
from colobench.lab.torture.text import render
from colobench.settings.bug import Bug
from places import CLONE
from share import LONG, SEED, amount, some

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


def test_kills_lose_and_tear_no_sector_of_the_guests_disk(tmp_path: Path) -> None:
    """Both ways of output; the images of each pair go with it."""
    pair = USUAL_PAIR.override(guest="sectors", hostfwd=(), disks=f"{tmp_path}/disk,size=4M")
    kills = plan(SEED, amount(2, 100), transports=["stream"])
    results = list(torture(kills, TortureSettings(pair=pair)))
    assert summarize(results).violations == ()
    assert all(each.linearizable and each.operations for each in results)
    assert not list(tmp_path.iterdir())


def test_kills_of_both_nodes_lose_no_answered_write(tmp_path: Path) -> None:
    """A pair that is started on the disk that is left answers as the history says it must.

    Each node has a cache that is lost with it.
    """
    disk = f"{tmp_path}/disk,size=4M"
    for policy in some(("always", "everysec", "no"), 1):
        pair = USUAL_PAIR.override(
            disks=disk, appendfsync=policy, volatile_cache=True, experiment=True
        )
        kills = plan(SEED, amount(2, 100), seconds=SECONDS, layers=LAYERS)
        results = list(torture(kills, TortureSettings(pair=pair), jobs=2))
        assert summarize(results).violations == ()
        assert all(each.linearizable and each.details["logged"] for each in results)
    assert not list(tmp_path.iterdir())


def test_kills_of_both_nodes_lose_no_flushed_sector(tmp_path: Path) -> None:
    """Also if each node has a cache that is lost with it."""
    pair = USUAL_PAIR.override(
        guest="sectors",
        hostfwd=(),
        disks=f"{tmp_path}/disk,size=4M",
        writes_per_tick=8,
        volatile_cache=True,
        experiment=True,
    )
    kills = plan(SEED, amount(2, 100), seconds=SECONDS, layers=LAYERS)
    results = list(torture(kills, TortureSettings(pair=pair), jobs=2))
    assert summarize(results).violations == ()
    assert all(each.linearizable and each.operations for each in results)
    assert summarize(results).under_way[0] > 0
    assert not list(tmp_path.iterdir())


def test_two_kills_need_a_log_on_a_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["torture", "--double", "--kills", "1"]) == 1
    printed = capsys.readouterr()
    assert "expected a guest with its log on a disk, found no disk" in printed.err
    # Where nothing was found out, nothing is said of violations.
    assert printed.out == ""
    disk = ["--disk", f"{tmp_path}/disk,size=4M"]
    assert main(["torture", "--double", "--kills", "1", *disk, "--appendonly", "no"]) == 1
    assert "found one without a log" in capsys.readouterr().err
    assert main(["torture", "--layers", "ram", "--kills", "1"]) == 1
    assert "expected a guest with a disk, found none" in capsys.readouterr().err


#: Bugs that unit tests catch on a minimal trace: a pair has to show them only in a long run.
TRACED = (
    *(Bug.SKIPPED_ZERO_PAGES, Bug.UNTOUCHED_PAGES),
    *(Bug.FOREIGN_SEQUENCE, Bug.TWICE_SUBTRACTED),
)
SHOWN = [bug for bug in Bug if LONG or bug not in TRACED]
KILLED = [bug for bug in SHOWN if MUSEUM[bug].catch.kills]


# Each takes some ten seconds, so a short run has others each day.
@pytest.mark.parametrize("bug", some(KILLED, 10), ids=lambda bug: bug.value)
def test_each_planted_bug_is_caught(bug: Bug) -> None:
    shown = MUSEUM[bug]
    settings = TortureSettings(clients=6, patience=6.0).override(**shown.changes())
    transports = [each for each in TRANSPORTS if settings.go_with(shown.outputs[0], each)]
    kills = plan(
        *(1, 200),
        transports=transports,
        outputs=shown.outputs,
        victims=shown.victims,
        points=shown.points,
        seconds=shown.seconds,
    )
    for result in torture(kills, settings):
        if result.violations:
            print(f"\n{bug.value}, kill {result.kill.number}: {result.violations[0]}")
            return
    pytest.fail("not caught in 200 kills")


@pytest.mark.parametrize("bug", [Bug.PASSED_ENTRY, Bug.KEPT_REQUEST], ids=lambda bug: bug.value)
def test_each_bug_that_a_pair_shows_without_a_kill_is_caught(bug: Bug) -> None:
    hunt = hunt_bug(bug.value)
    assert hunt.caught, hunt
    print(f"\n{hunt!r}")


def test_each_bug_that_costs_checkpoints_is_caught_by_its_rate() -> None:
    """Counts of each beside those of one run without a bug."""
    bugs = [bug for bug in SHOWN if MUSEUM[bug].catch is Catch.COUNTS]
    assert bugs
    waves = {Bug.TWICE_SUBTRACTED: 2}
    of_bug = {}
    for bug in (*bugs, None):
        settings = TortureSettings().override(**MUSEUM[bug or bugs[0]].changes())
        pair = settings.of_output("compare").override(bug=bug)
        of_bug[bug] = count_needless(pair, 20.0, waves=waves.get(bug, WAVES))
    for bug in bugs:
        print(f"\n{bug.value}: {of_bug[bug]}; without: {of_bug[None]}")
        assert of_bug[bug].exceeds(of_bug[None])


def test_clean_checkpoints_raise_no_alarm() -> None:
    found = dict(run_clean(amount(100, 1000), TortureSettings(clients=6)))
    assert set(found) == {"buffer", "compare"}
    for judgement in found.values():
        assert judgement.linearizable
        assert judgement.violations == ()


@pytest.mark.parametrize("guest", [["--guest", "sectors"], ["--appendfsync", "always"]])
def test_clean_checkpoints_of_a_guest_with_a_disk_are_judged_by_it(
    tmp_path: Path, guest: list[str]
) -> None:
    disk = ["--disk", f"{tmp_path}/disk,size=16M"]
    assert main(["torture", "--clean", "4", *disk, *guest]) == 0


def test_clean_checkpoints_are_those_of_the_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    strategy = ["--strategy", "remus,transport=multifd"]
    assert main(["torture", "--clean", "10", *strategy, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["outputs"]) == {"buffer"}
    used = found["outputs"]["buffer"]["settings"]
    assert (used["capture"], used["transport"]) == ("copy-then-send", "multifd+unix")
    assert main(["torture", "--clean", "10", "--transport", "memfd"]) == 1
    assert "found --transport memfd" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--clean", "4", "--double"], "--clean: expected no --double, found --double"),
        (["--clean", "4", "--kills", "7"], "--clean: expected no --kills, found --kills 7"),
        (["--clean", "4", "--layers", "ram"], "--clean: expected no --layers, found --layers ram"),
        (["--clean", "1"], "checkpoints: expected at least one for each way of output: 2, found 1"),
        (["--bug", "empty-sync", "--clean", "4"], "expected no --clean, found --clean 4"),
        (["--bug", "empty-sync", "--jobs", "2"], "expected no --jobs, found --jobs 2"),
        (["--bug", "empty-sync", "--output", "buffer"], "expected no --output"),
        (["--bug", "kept-request", "--clients", "3"], "expected no other settings"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["torture", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_guest_that_has_written_nothing_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SectorsVerdict(*[0] * 7, ())
    settings = TortureSettings().override(guest="sectors", hostfwd=(), disks="disk,size=4M")
    [kill] = plan(1, 1, seconds=SECONDS)
    session = SimpleNamespace(records=Records(), settings=settings.pair)
    monkeypatch.setattr("colobench.lab.torture.run.judge_sectors", lambda *_: nothing)
    monkeypatch.setattr(
        "colobench.lab.torture.double_round.check_sectors", lambda *_, **__: nothing
    )
    assert not _judge_clean(session, None, settings).clean  # type: ignore[arg-type]
    both = DoubleSectorsRound(session, kill, settings)  # type: ignore[arg-type]
    monkeypatch.setattr(both, "carry_out", lambda: both._judge([], np.zeros(0)))
    assert both.result().linearizable is None
    assert both.result().undecided


@pytest.mark.parametrize(
    ("number", "said"),
    some([(signal.SIGINT, "colobench torture: interrupted\n"), (signal.SIGTERM, "")], 1),
)
def test_torture_that_is_ended_shows_what_it_found_and_leaves_nothing(
    tmp_path: Path, number: int, said: str
) -> None:
    path, disk = tmp_path / "results.jsonl", tmp_path / "disk"
    command = [sys.executable, "-m", "colobench", "torture", "--kills", "100", "--clients", "4"]
    command += ["--disk", f"{disk},size=4M"]
    with subprocess.Popen(
        [*command, "--results", str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TQDM_DISABLE": "1"},
    ) as tortures:
        while not (path.exists() and path.read_bytes().endswith(b"\n")):
            assert tortures.poll() is None
        tortures.send_signal(number)
        printed, errors = tortures.communicate(timeout=120)
    assert tortures.returncode == 128 + number
    assert errors == said
    assert list(tmp_path.iterdir()) == [path]
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


@pytest.mark.parametrize(
    "more",
    [["--kills", "1"], ["--kills", "1", "--json"], ["--clean", "4"], ["--clean", "4", "--json"]],
)
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
    assert main(["torture", *limits, *more]) == 1
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
    "wrong disk": "disk",
    "checkpoints were not equal": "digests",
}


def test_published_table_of_planted_bugs_is_that_of_the_published_runs() -> None:
    directory = CLONE / "datasets" / "torture"
    lines = (directory / "2026-11-28-planted-bugs.jsonl").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    table = (directory / "README.md").read_text()
    for bug in map(Bug, dict.fromkeys(run["bug"] for run in runs)):
        of_bug = {run["seed"]: run for run in runs if run["bug"] == bug.value}
        said = "\n".join(words for run in of_bug.values() for _, words in run["violations"])
        kills = " | ".join(str(of_bug[seed]["kills"]) for seed in (1, 2, 3))
        reasons = "; ".join(name for part, name in REASONS.items() if part in said)
        assert f"| {bug.value} | {kills} | {reasons} |" in table
