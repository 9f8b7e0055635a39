"""Reproductions: verdicts on made-up points, those that fail too, and results that are kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.cli import reproduce as verb
from colobench.cli.main import _parse
from colobench.errors import LocalError, RemoteError
from colobench.lab.bench.case import at_least, at_most
from colobench.lab.reproductions import registry, run
from colobench.lab.reproductions.claims.comparing import cycle_of
from colobench.lab.reproductions.findings import Reproductions
from colobench.lab.reproductions.points import Point, r_squared, rising_share
from colobench.lab.reproductions.registry import chosen, reproductions
from colobench.lab.reproductions.reproduction import (
    DRIFT_LIMIT,
    LEAST_ROUNDS,
    LEAST_SHARE,
    Gate,
    Reproduced,
    State,
    judge,
    overall,
)
from colobench.lab.reproductions.run import as_json, read_reproductions
from colobench.lab.reproductions.table import rows
from colobench.processes import hostinfo
from places import CLONE

GATE = Gate("ratio", "a ratio", at_most(0.5))
ROUNDS = range(1, LEAST_ROUNDS + 1)


def grid(quantity, values):
    """Make points of each round: series, x and y."""
    return [Point(series, quantity, x, y, n) for n in ROUNDS for series, x, y in values]


def layouts(buffered=4104.0, separated=0.0, slower=2.0):
    """Make points of both layouts, with bytes of the secondary for each page."""
    points = []
    for series, size, pause in (("buffered", buffered, slower), ("separated", separated, 1.0)):
        rows = [(series, x) for x in (500, 2000, 8000)]
        points += grid("pages", [(name, x, x) for name, x in rows])
        points += grid("secondary_bytes", [(name, x, 100 + size * x) for name, x in rows])
        points += grid("page_us", [(name, x, pause) for name, x in rows])
        points += grid("pause_ms", [(name, x, pause * x) for name, x in rows])
    return points


def lines(bend=1.0):
    """Make pauses that grow with a power of the pages."""
    sizes = (500, 1000, 2000, 4000, 8000, 12000)
    points = grid("pages", [("colo_v12", x, x) for x in sizes])
    return points + grid("pause_ms", [("colo_v12", x, 1 + (x / 500) ** bend) for x in sizes])


def two(quantity, values):
    """Make points of two series, each at few and at many pages."""
    return grid(quantity, [(name, x, y) for name, of in values.items() for x, y in of.items()])


def walks(by_page, found, cleared):
    names = ("page by page", "found by runs", "found and cleared by runs")
    times = zip(names, (by_page, found, cleared), strict=True)
    return grid("walk_ms", [(name, 4096, each) for name, each in times])


def example(length=24, equal=1.0, rate=5.0):
    of_round = (("bytes", length), ("equal", equal), ("gb_per_s", rate))
    return [Point("XBZRLE", name, 0, y, n) for n in ROUNDS for name, y in of_round]


def captures(copied):
    few, many = {500: 1.0, 8000: 1.0}, {500: 1.0, 8000: copied}
    values = {"stop-and-send": few, "copy-then-send": many}
    return two("page_us", values) + two("pause_ms", values)


def gap(pause):
    return two("pause_ms", {"stop-and-send": {30_000: 1.0}, "gap-precopy": {30_000: pause}})


def streams(idle, loaded):
    alone = {50: 1.0, 8000: 1.0}
    values = {"stream": alone, "multifd": {50: idle, 8000: loaded}}
    return two("page_us", values) + two("pause_ms", values)


def rates(growth=20.0, lost=5.0, bend=False, shift=1.0):
    """Make latency and loss at each interval, of the series colo_v12."""
    latency = [15.0, 30.0, 55.0, 105 * shift, 15 * growth]
    if bend:
        latency[1:3] = latency[2:0:-1]
    points = []
    for n, interval in enumerate((25, 50, 100, 200, 400)):
        share = 0.1 / lost ** (n / 4)
        values = (("latency_ms", latency[n]), ("loaded_ms", 5.0), ("stopped_share", share))
        for name, y in values:
            points += grid(name, [("colo_v12", interval, y)])
    return points


def client(rate):
    return grid("answers_per_s", [("one client", 1, rate)])


def spans(rising=True, total=2.0, lost=2.0):
    points = []
    for n, interval in enumerate((5, 10, 20, 50, 100)):
        values = (
            ("pages", 100.0 * (n if rising else -n)),
            ("pages_per_s", 1000 / total ** (n / 4)),
            ("stopped_share", 0.1 / lost ** (n / 4)),
        )
        for name, y in values:
            points += grid(name, [("colo_v12", interval, y)])
    return points


def adaptive(ratio=1.05, worst=4.0):
    """Make costs of each fixed interval, and of the adaptive one, on each load."""
    values = [(4, worst), (12, 1.0), (40, 1.2), (120, 1.4), (400, worst), (1, ratio)]
    loads = ("frequent requests", "rare requests", "many pages")
    of_loads = [(load, x, y) for load in loads for x, y in values]
    return grid("cost", of_loads) + grid("interval_ms", [(load, x, x) for load, x, _ in of_loads])


def segments(ratio=3.0, streams=0.0, cut=16.0):
    return [
        *grid("megabytes_per_s", [("streams", 1, ratio), ("segments", 1, 1.0)]),
        *grid("checkpoints_per_s", [("streams", 1, streams), ("segments", 1, cut)]),
    ]


def requests(semaphore):
    return [
        *grid("per_megabyte", [("event", 1, 6.0), ("semaphore", 1, semaphore)]),
        *grid("megabytes_per_s", [("event", 1, 6.0), ("semaphore", 1, 5.0)]),
    ]


def modes(comparing=5.0, passive=7.0):
    return [
        *grid("comparing", [("hybrid", 1, comparing)]),
        *grid("passive", [("hybrid", 1, passive)]),
    ]


def divergent(few=0.8, many=0.75, growth=2.0):
    shares = [("plover", 100, few), ("plover", 10_000, many)]
    pages = [("plover", 100, 500.0), ("plover", 10_000, 500 * growth)]
    return grid("equal_share", shares) + grid("pages", pages)


def overhead(sent=12.0, copied=4.0, frozen=2.0):
    lost = (("stop-and-send", sent), ("copy-then-send", copied), ("copy-on-write", frozen))
    rows = [(name, 50, y) for name, y in lost]
    return grid("lost_percent", rows) + grid("pause_ms", rows)


#: For each claim: points with which it holds, and some that break each of its gates in turn.
CASES = {
    "separated": (
        layouts(),
        {
            "buffered": layouts(buffered=0),
            "separated": layouts(separated=4104),
            "pause": layouts(slower=0.9),
        },
    ),
    "linear_pause": (lines(), {"r_squared": lines(bend=4)}),
    "copied": (captures(0.2), {"pause": captures(0.9)}),
    "gap_precopy": (gap(0.5), {"pause": gap(0.95)}),
    "multifd": (streams(1.4, 0.6), {"loaded": streams(1.4, 1.1), "idle": streams(0.6, 0.6)}),
    "rate": (
        rates(),
        {
            "latency": rates(growth=2.0),
            "lost": rates(lost=1.5),
            "rising": rates(bend=True),
            "above": rates(shift=0.7),
            "below": rates(shift=1.4),
        },
    ),
    "ten_requests": (client(9.9), {"least": client(5.0), "most": client(20.0)}),
    "interval": (
        spans(),
        {"rising": spans(rising=False), "total": spans(total=1.0), "lost": spans(lost=1.0)},
    ),
    "adaptive": (adaptive(), {"adaptive": adaptive(ratio=1.3), "worst": adaptive(worst=1.5)}),
    "overhead": (overhead(), {"sent": overhead(frozen=11.0), "copied": overhead(copied=12.0)}),
    "divergent": (
        divergent(),
        {
            "few": divergent(few=0.2),
            "many": divergent(many=0.2),
            "pages": divergent(growth=1.0),
        },
    ),
    "segments": (
        segments(),
        {
            "ratio": segments(ratio=0.9),
            "streams": segments(streams=9.0),
            "segments": segments(cut=0.0),
        },
    ),
    "event": (requests(60.0), {"checkpoints": requests(6.0)}),
    "hybrid": (
        modes(),
        {"least": modes(comparing=4), "most": modes(comparing=9), "passive": modes(passive=2)},
    ),
    "flush_runs": (walks(100, 50, 8), {"ratio": walks(10, 9, 5), "clearing": walks(100, 8, 8)}),
    "xbzrle": (
        example(),
        {"bytes": example(length=25), "equal": example(equal=0.0), "gb_per_s": example(rate=1.0)},
    ),
}


def test_every_claim_is_judged_here() -> None:
    known = reproductions()
    assert CASES.keys() == known.keys()
    for name, (_, broken) in CASES.items():
        assert broken.keys() == {gate.name for gate in known[name].gates}, name


@pytest.mark.parametrize("name", CASES)
def test_a_claim_holds_with_points_that_are_as_published(name: str) -> None:
    holding, _ = CASES[name]
    assert [each.state for each in chosen([name])[0].judge(holding)] == [
        State.VALID for _ in chosen([name])[0].gates
    ]


@pytest.mark.parametrize(
    ("name", "gate"), [(name, gate) for name, (_, broken) in CASES.items() for gate in broken]
)
def test_each_gate_fails_with_points_that_contradict_it(name: str, gate: str) -> None:
    verdicts = chosen([name])[0].judge(CASES[name][1][gate])
    [verdict] = [each for each in verdicts if each.gate.name == gate]
    assert verdict.state is State.INVALID
    assert verdict.holds is False


@pytest.mark.parametrize("name", CASES)
def test_every_claim_has_its_source_label_and_something_to_draw(name: str) -> None:
    [claim] = chosen([name])
    assert claim.kind in ("shape", "value")
    assert claim.source
    assert claim.here.endswith(".")
    assert claim.gates
    assert claim.drawn


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        ("mm ppp mmmmm ppppppp m", {"comparing": 5, "passive": 7}),
        # The first run may have begun before, and the last one may go on.
        ("mmmmm ppppppp", {}),
        ("ppp mmmmm pppp", {}),
        ("mmmmm ppp mmmmm", {}),
        ("ppp mmmmm pppp m", {"comparing": 5, "passive": 4}),
        ("", {}),
    ],
)
def test_only_a_whole_cycle_of_the_hybrid_counts(causes: str, expected: dict[str, int]) -> None:
    names = {"m": "miscompare", "p": "passive"}
    assert cycle_of([names[each] for each in causes if each != " "]) == expected


# -- Valid, invalid, unknown ---------------------------------------------------------------------


def test_few_rounds_are_not_judged() -> None:
    verdict = judge(GATE, [0.1] * (LEAST_ROUNDS - 1))
    assert verdict.state is State.UNKNOWN
    assert verdict.reason == "2 of at least 3 rounds"
    assert judge(GATE, []).reason == "nothing was measured"


def test_an_interval_around_the_bound_is_not_judged() -> None:
    assert judge(GATE, [0.4, 0.45, 0.6]).reason == "the interval has the bound in it"
    assert judge(GATE, [0.4, 0.45, 0.5]).state is State.VALID
    assert judge(GATE, [0.51, 0.6, 0.7]).state is State.INVALID


def test_a_machine_that_drifted_judges_counts_alone() -> None:
    drift = DRIFT_LIMIT * 1.1
    assert judge(GATE, [0.1] * 3, drift).state is State.UNKNOWN
    counted = Gate("count", "a count", at_most(0.5), counted=True)
    assert judge(counted, [0.1] * 3, drift).state is State.VALID
    [claim] = chosen(["copied"])
    found = Reproduced(claim, captures(0.2), memcpy_gb_per_s=[1.0, 1.0, 3.0, 3.0])
    assert found.state is State.UNKNOWN
    found.memcpy_gb_per_s = [2.0, 3.0, 3.0, 3.0]
    assert found.state is State.VALID


def test_a_measurement_that_failed_is_not_valid_by_its_earlier_rounds() -> None:
    [claim] = chosen(["copied"])
    found = Reproduced(claim, captures(0.2), failure="the secondary's process has ended")
    assert {each.state for each in found.verdicts()} == {State.VALID}
    assert found.state is State.UNKNOWN
    assert Reproduced(claim, captures(2.0), failure="…").state is State.INVALID


def test_a_busy_machine_makes_no_claim_invalid() -> None:
    assert judge(GATE, [0.9] * 3, share=LEAST_SHARE).state is State.INVALID
    verdict = judge(GATE, [0.9] * 3, share=0.4)
    assert (verdict.state, verdict.reason) == (State.UNKNOWN, "other work took 60 % of a processor")
    assert judge(GATE, [0.1] * 3, share=0.4).state is State.VALID
    counted = Gate("count", "a count", at_most(0.5), counted=True)
    assert judge(counted, [0.9] * 3, share=0.4).state is State.INVALID


@given(st.lists(st.floats(0, 1), min_size=LEAST_ROUNDS, max_size=9))
def test_opposite_bounds_are_never_both_met(values: list[float]) -> None:
    above = Gate("ratio", "a ratio", at_least(0.5000001))
    states = {judge(GATE, values).state, judge(above, values).state}
    assert states in ({State.VALID, State.INVALID}, {State.UNKNOWN})


@given(st.lists(st.sampled_from(State)))
def test_the_worst_outcome_counts(states: list[State]) -> None:
    worst = overall(states)
    assert (worst is State.INVALID) == (State.INVALID in states)
    assert (worst is State.VALID) == (set(states) == {State.VALID})


def test_unknown_names_are_refused() -> None:
    with pytest.raises(LocalError, match=r"expected one of separated, .* found 'remus'"):
        chosen(["separated", "remus"])


def test_a_line_has_r_squared_of_1_and_a_constant_of_0() -> None:
    assert r_squared([1, 2, 4], [3, 5, 9]) == pytest.approx(1)
    assert r_squared([1, 2, 4], [3, 3, 3]) == 0
    assert rising_share([1, 2, 2, 3, 1]) == 0.5


# -- Results -------------------------------------------------------------------------------------


def found_all(settings=None) -> Reproductions:
    found = Reproductions()
    for name, (points, _) in CASES.items():
        [claim] = chosen([name])
        of_series = {each.series: settings for each in points} if settings else {}
        found.add(Reproduced(claim, list(points), of_series, [10.0, 11.0]))
    return found


def test_results_read_back_are_judged_alike(tmp_path) -> None:
    file = tmp_path / "found.json"
    found = found_all({"ram": "8M"})
    file.write_text(json.dumps(as_json({"cores": 2}, found)))
    again = read_reproductions(file)
    assert repr(again) == repr(found)
    assert again.machine == {"cores": 2}
    assert [each.settings for each in again] == [each.settings for each in found]
    for words in ('{"machine": {}}', "[" * 100_000):
        file.write_text(words)
        with pytest.raises(LocalError, match="expected results of colobench reproduce"):
            read_reproductions(file)


def test_the_table_names_each_claim_once_with_all_of_its_gates() -> None:
    found = found_all()
    assert [row[0] for row in rows(found) if row[0]] == list(CASES)
    assert len(rows(found)) == sum(len(each.reproduction.gates) for each in found)
    assert found.state is State.VALID
    assert "0 are unknown" in repr(found)
    found["xbzrle"].points.clear()
    assert found.only("xbzrle").state is State.UNKNOWN
    assert "nothing was measured" in repr(found)


def test_the_page_has_a_plot_of_each_quantity_and_every_verdict(tmp_path) -> None:
    found = found_all()
    cards = found.plots()
    assert len(cards) == sum(len(each.reproduction.drawn) for each in found)
    page = found.write_page(tmp_path / "page.html").read_text()
    for each in found:
        assert each.reproduction.source.replace("'", "&#39;") in page
    assert "Reproduced" in page


# -- Runs, with made-up measurements -------------------------------------------------------------


@pytest.fixture
def made_up(monkeypatch):
    """Put one claim in the place of all: its rounds give a number, or raise an error."""

    def measure(laboratory):
        for number, (each, _) in enumerate(zip(rounds, laboratory.rounds(), strict=False), 1):
            if isinstance(each, BaseException):
                raise each
            yield [Point("made up", "ratio", 1, each, number)]

    rounds = []
    claim = replace(
        chosen(["copied"])[0],
        name="made_up",
        gates=(GATE,),
        measure=measure,
        figures=lambda points: {"ratio": points[0].y},
    )
    monkeypatch.setattr(registry, "reproductions", lambda: {"made_up": claim})
    monkeypatch.setattr(run, "reproductions", lambda: {"made_up": claim})
    monkeypatch.setattr(run, "_check", lambda found: found.memcpy_gb_per_s.append(10.0))
    monkeypatch.setattr(verb, "compile_all_kernels", lambda: 0)
    monkeypatch.setattr(hostinfo, "describe_everything", lambda: {"cores": 2})
    return rounds


def command(*arguments: str) -> int:
    options, _ = _parse(["reproduce", *arguments])
    return verb.run(options)


@pytest.mark.parametrize(
    ("values", "status", "word"),
    [
        ([0.1] * 5, 0, "valid"),
        ([0.9] * 5, 1, "invalid"),
        ([0.1] * 2, 2, "unknown: 2 of at least 3 rounds"),
        ([0.4, 0.4, 0.4, 0.4, 0.9], 2, "unknown: the interval has the bound in it"),
    ],
)
def test_the_command_exits_by_its_verdict(made_up, capsys, values, status, word) -> None:
    made_up += values
    assert command("made_up") == status
    assert word in capsys.readouterr().out


def test_an_interrupted_run_shows_and_writes_what_was_measured(made_up, capsys, tmp_path) -> None:
    made_up += [0.1, 0.2, KeyboardInterrupt(), 0.3]
    file = tmp_path / "found.json"
    assert command("--json", str(file)) == 130
    out, err = capsys.readouterr()
    assert "unknown: 2 of at least 3 rounds" in out
    assert "interrupted: 2 of 5 rounds were measured" in err
    assert [each.y for each in read_reproductions(file)["made_up"].points] == [0.1, 0.2]


def test_a_claim_that_fails_keeps_its_rounds_and_is_unknown(made_up, capsys) -> None:
    made_up += [0.1, RemoteError("the pair broke")]
    assert command() == 2
    assert "made_up: the pair broke" in capsys.readouterr().out


def test_a_notebook_gets_what_was_measured_before_an_interrupt(made_up) -> None:
    made_up += [0.1, KeyboardInterrupt()]
    found = Reproductions()
    with pytest.raises(KeyboardInterrupt, match="`into` keeps what was measured"):
        run.reproduce("made_up", into=found)
    assert len(found["made_up"].points) == 1
    with pytest.raises(LocalError, match="at least 1 round"):
        run.reproduce("made_up", rounds=0)


def test_the_kept_run_is_judged_by_the_gates_of_this_version() -> None:
    [path] = (CLONE / "datasets" / "reproductions").glob("*.json")
    found = read_reproductions(path)
    assert len(found) >= 8
    for each, row in zip(found, json.loads(path.read_text())["results"], strict=True):
        assert each.points
        assert each.state.value == row["state"], each.reproduction.name
