"""Any run can be repeated from the JSON that colobench has written of it."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

import colobench
from colobench.cli import run as run_verb
from colobench.cli import torture as torture_verb
from colobench.cli.main import _parse
from colobench.cli.options import chosen_settings
from colobench.cli.verbs import VERBS, module_of
from colobench.errors import LocalError
from colobench.fields.part import settings_of
from colobench.lab.bench import pause
from colobench.lab.bench import run as bench
from colobench.lab.bench.case import Case, judge, missing
from colobench.lab.bench.measured import Measured
from colobench.lab.bench.page import write_bench_page
from colobench.lab.report.html import write_report
from colobench.lab.reproductions.findings import Reproductions
from colobench.lab.reproductions.points import Point
from colobench.lab.reproductions.registry import chosen
from colobench.lab.reproductions.reproduction import Reproduced
from colobench.lab.reproductions.run import as_json as reproductions_as_json
from colobench.lab.session import status
from colobench.lab.session.record import Records
from colobench.lab.session.status import PairState, SessionStatus
from colobench.lab.session.supervise import Tally
from colobench.lab.session.takeover import Killed, TakeoverRecord
from colobench.lab.studies import demo
from colobench.lab.sweep.results import SweepResult
from colobench.lab.torture.kill_plan import plan
from colobench.lab.torture.kill_results import KillResult, Results, summarize
from colobench.lab.torture.settings import DECIDED, TortureSettings
from colobench.lab.torture.store_round import Judgement
from colobench.lab.torture.text import as_json, clean_as_json
from colobench.settings.file import read_settings
from colobench.settings.settings import Settings
from records import make_record
from setting_values import BASES, settings_values, values_of

PACKAGE = Path(colobench.__file__).parent
#: What a verb that starts sessions does without a file.
USUAL = {"demo": Settings(), "run": run_verb.USUAL, "torture": TortureSettings()}
OUTPUTS = ("buffer", "compare")


# -- What writes JSON of runs --------------------------------------------------------------------


def session_of(settings: Settings) -> Any:
    """Make what the writers ask of a session that has had a few checkpoints."""
    records = Records(make_record(number, settings=settings) for number in (1, 2, 3))
    none = {"began": 1.0, "link_use": lambda: None}
    return SimpleNamespace(settings=settings, records=records, **none)


def written_by_demo(settings: Settings, path: Path) -> None:
    path.write_text(json.dumps(summary_of_demo(settings)))


def summary_of_demo(settings: Settings) -> dict[str, Any]:
    session = session_of(settings)
    killed = Killed("primary", 1, -9, "ram", 3, 2.0)
    takeover = TakeoverRecord("secondary", 1.0, 3, True, 5, 6, 2.0, 2.1, 2.2, 2.3)
    return demo.summarize(session, session.records, killed, takeover, True)


def written_by_run(settings: Settings, path: Path) -> None:
    path.write_text(json.dumps(run_verb.summarize(session_of(settings), Tally(), None)))


def written_by_records(settings: Settings, path: Path) -> None:
    path.write_text(session_of(settings).records.to_json())


def written_by_report(settings: Settings, path: Path) -> None:
    write_report(path, session_of(settings).records, summary_of_demo(settings))


def row(settings: Settings, case: str = "case") -> Any:
    measured = Measured([1.0], [2.0], settings=settings.as_json())
    return judge("checkpoint", Case(case, "ms", lambda: measured), measured)


def rows(settings: Settings) -> list[Any]:
    return [missing("bitmap", Case("no session", "ms", lambda: Measured([1.0])), ""), row(settings)]


def written_by_bench(settings: Settings, path: Path) -> None:
    path.write_text(json.dumps(bench.as_json({"cores": 2}, rows(settings)), indent=1))


def written_by_bench_page(settings: Settings, path: Path) -> None:
    write_bench_page(path, {"cores": 2}, rows(settings))


def written_by_pause(settings: Settings, path: Path) -> None:
    step = pause.PauseStep("pause", "both", "", True, 1.0, 1.0, 1.0, None)
    profiles = [pause.Profile("stream", 7, 5, (step,), step, settings.as_json())] * 2
    path.write_text(json.dumps(pause.as_json({"cores": 2}, profiles)))


def written_by_status(settings: Settings, path: Path) -> None:
    found = SessionStatus(
        "/x", 1, PairState.PROTECTED, 1.0, settings.as_json(), True, (), {"switch": 2}, ()
    )
    path.write_text(json.dumps({"sessions": [found.as_json()]}))


def published(settings: Settings, path: Path) -> None:
    status.publish(path.parent, {"state": "alone", "settings": settings.as_json()})
    (path.parent / status.FILE).replace(path)


def found_of(settings: Settings) -> Reproductions:
    """Make a result with two series of the same pair, and one without a pair."""
    found = Reproductions()
    of_pairs = {"copy-then-send": settings.as_json(), "stop-and-send": settings.as_json()}
    points = [Point(name, "pause_ms", 1.0, 2.0, 1) for name in (*of_pairs, "a kernel")]
    points += [Point(name, "page_us", 1.0, 2.0, 1) for name in of_pairs]
    [claim] = chosen(["copied"])
    found.add(Reproduced(claim, points, dict(of_pairs), [1.0]))
    return found


def written_by_reproductions(settings: Settings, path: Path) -> None:
    path.write_text(json.dumps(reproductions_as_json({"cores": 2}, found_of(settings))))


def written_by_reproductions_page(settings: Settings, path: Path) -> None:
    found_of(settings).write_page(path)


def written_by_sweep(settings: Settings, path: Path) -> None:
    result = SweepResult("0", "a cell", {}, settings.as_json(), "here", "an error", None)
    path.write_text(result.to_json())


WRITERS: dict[str, Callable[[Settings, Path], None]] = {
    "demo": written_by_demo,
    "run": written_by_run,
    "records": written_by_records,
    "reproductions": written_by_reproductions,
    "bench": written_by_bench,
    "bench pause": written_by_pause,
    "status": written_by_status,
    "session.json": published,
    "sweep": written_by_sweep,
}
PAGE_WRITERS = {
    "report": written_by_report,
    "bench page": written_by_bench_page,
    "reproductions page": written_by_reproductions_page,
}


def result(settings: TortureSettings, number: int = 0) -> KillResult:
    kill = plan(1, number + 1)[number]
    of_kill = settings.of_kill(kill).as_json()
    return KillResult(kill, 1.0, 2.0, 3, True, (), {}, of_kill, settings.own_json())


def written_by_torture(settings: TortureSettings, path: Path) -> None:
    path.write_text(json.dumps(as_json(summarize([result(settings)]), settings)))


def written_by_results(settings: TortureSettings, path: Path) -> None:
    path.unlink(missing_ok=True)
    for number in range(4):
        Results(path).append(result(settings, number))


def written_by_clean_torture(settings: TortureSettings, path: Path) -> None:
    found = {output: Judgement(5, True, ()) for output in OUTPUTS}
    path.write_text(json.dumps(clean_as_json(10, found, settings)))


TORTURE_WRITERS: dict[str, Callable[[TortureSettings, Path], None]] = {
    "torture": written_by_torture,
    "results": written_by_results,
    "clean": written_by_clean_torture,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written") / "written"


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "describe_machine", lambda: {"cores": 2})


def read_by(verb: str, file: Path | str) -> Any:
    options, _ = _parse([verb, "--settings", str(file)])
    if verb == "torture":
        return torture_verb._settings(options)[0]
    return chosen_settings(options, USUAL[verb])


# -- The properties ------------------------------------------------------------------------------


def few(examples: int) -> Callable[[Any], Any]:
    """Try that many examples with what is the same for all of them."""
    same = hypothesis.HealthCheck.function_scoped_fixture
    return hypothesis.settings(max_examples=examples, deadline=None, suppress_health_check=[same])


@few(20)
@given(settings=settings_values())
def test_every_verb_repeats_a_run_from_whatever_was_written_of_it(
    settings: Settings, file: Path
) -> None:
    for write in WRITERS.values():
        write(settings, file)
        for verb in ("demo", "run"):
            assert read_by(verb, file) == settings


@pytest.mark.parametrize("name", [each.name for each in settings_of(Settings)])
@few(3)
@given(data=st.data())
def test_no_setting_is_lost_in_a_report_or_in_records(
    name: str, data: st.DataObject, file: Path
) -> None:
    setting = next(each for each in settings_of(Settings) if each.name == name)
    value = data.draw(values_of(setting))
    for base in BASES:
        try:
            settings = base.override(**{name: value})
        except LocalError:
            continue
        written_by_records(settings, file)
        assert read_by("run", file) == settings


@few(3)
@given(settings=settings_values())
def test_pages_carry_the_settings_of_what_they_show(settings: Settings, file: Path) -> None:
    for write in PAGE_WRITERS.values():
        write(settings, file)
        assert read_by("demo", file) == settings


def apart_from_decided(settings: TortureSettings) -> dict[str, Any]:
    own = settings.pair.checkpoint.has_own_trigger()
    decided = DECIDED if own else (*DECIDED, "trigger")
    return {name: each for name, each in settings.as_json().items() if name not in decided}


@few(15)
@given(settings=settings_values(TortureSettings()))
def test_torture_is_repeated_from_whatever_was_written_of_it(
    settings: TortureSettings, file: Path
) -> None:
    for write in TORTURE_WRITERS.values():
        try:
            write(settings, file)
        except LocalError:
            # Some settings go with one way of output alone.
            hypothesis.reject()
        assert apart_from_decided(read_by("torture", file)) == apart_from_decided(settings)


def test_a_kills_pair_runs_again_from_the_line_of_its_result(file: Path) -> None:
    settings = TortureSettings()
    written_by_results(settings, file)
    for number in range(4):
        expected = settings.of_kill(plan(1, number + 1)[number])
        assert read_by("run", f"{file}#{number + 1}") == expected
    with pytest.raises(LocalError, match="expected one choice of"):
        read_by("run", file)
    # A process that is killed while it writes leaves a torn line.
    file.write_text(file.read_text() + '{"kill": {"num')
    assert read_by("run", f"{file}#4") == expected


def test_one_of_several_runs_is_chosen_by_its_number(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    several = [Settings().override(ram=f"{size}M", delay=None) for size in (8, 8, 16)]
    found = [each for settings in several for each in rows(settings)]
    file.write_text(json.dumps(bench.as_json({}, found)))
    with pytest.raises(LocalError) as caught:
        read_by("run", file)
    assert str(caught.value).splitlines() == [
        f"settings: {file}: expected one choice of 2, such as {file}#3, found none:",
        '  #1: ram "8M"',
        '  #3: ram "16M"',
    ]
    assert [read_by("demo", f"{file}#{number}") for number in (1, 2, 3)] == several
    for wrong in (0, 4):
        with pytest.raises(LocalError, match=f"a run from #1 to #3, found #{wrong}"):
            read_by("run", f"{file}#{wrong}")
    # A file may have such a name.
    named = tmp_path / "bench.json#1"
    named.write_text('{"ram": "32M"}')
    assert read_by("demo", named) == Settings().override(ram="32M")


def test_records_of_several_sessions_keep_the_settings_of_each() -> None:
    several = [Settings().override(ram=ram) for ram in ("8M", "16M")]
    records = [make_record(n, settings=each) for each in several for n in (1, 2)]
    found = json.loads(Records([*records, make_record(1)]).to_json())
    assert [(len(each["records"]), each["settings"]) for each in found] == [
        *((2, each.as_json()) for each in several),
        (1, None),
    ]


def test_a_file_without_a_session_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(bench.as_json({}, rows(Settings())[:1])))
    with pytest.raises(LocalError, match="expected those of a session, found a run without one"):
        read_settings(file)


# -- Nothing is left out -------------------------------------------------------------------------

#: Each function that writes JSON: the writer above that is tested in its place, or the reason why
#: what it writes is not of a run that could be repeated.
JSON_WRITERS = {
    "block/generation.py: to_text": "an image of a disk",
    "block/generation.py: checkpoint_text": "the number of an image's checkpoint",
    "cli/bench.py: _bench_pause": "bench pause",
    "cli/bench.py: _show_bench": "bench",
    "cli/demo.py: run": "demo",
    "cli/disk/repair.py: run": "an image of a disk",
    "cli/disk/show.py: run": "images of disks",
    "cli/reproduce.py: _write": "reproductions",
    "cli/miscompares.py: run": "miscompares",
    "cli/run.py: run": "run",
    "cli/status.py: run": "status",
    "cli/strategies.py: run": "the table of strategies",
    "cli/torture.py: _run_plan": "torture",
    "cli/torture.py: _catch_without_kills": "how a bug was caught without a kill",
    "node/receive/mark.py: to_bytes": "the mark of a migration file",
    "lab/cockpit/export.py: changed_settings": "settings as JSON has them, to be compared",
    "lab/cockpit/export.py: runs_as_json": "runs of the cockpit, which test_cockpit_export repeats",
    "lab/course/score_sheet.py: export": "a student's scores",
    "lab/course/score_sheet.py: _hash": "a student's scores",
    "cli/torture.py: _torture_nobody": "clean",
    "lab/compare/measurement.py: to_json": "a comparison's measurement, with its settings",
    "lab/compare/page.py: write_comparison_page": "the settings of each cell, to be read",
    "lab/compare/parquet.py: measurement_row": "a measurement's settings in a column",
    "lab/sweep/cells.py: to_json": "a message to a worker",
    "lab/sweep/results.py: to_json": "sweep",
    "lab/sweep/results.py: write_tables": "the settings of a cell that failed, in a column",
    "lab/sweep/results.py: _of_one_type": "a value of the grid in a column",
    "lab/bench/subjects/startup.py: _first_checkpoint": "the argument of a process",
    "lab/clients/history.py: write": "operations of clients, of whatever store",
    "lab/reproductions/page.py: write_reproductions_page": "the settings of each pair, to be read",
    "lab/session/record.py: to_json": "records",
    "lab/session/session_processes.py: settings_arguments": "the argument of a process",
    "lab/course/lessons/lesson_90.py: _all_but_transport": "a key by which runs are told apart",
    "lab/session/session_processes.py: trigger_parameters": "a parameter of the primary",
    "lab/session/status.py: publish": "session.json",
    "lab/torture/kill_results.py: to_json": "results",
    "doctor.py: render_json": "the machine, without a session",
    "cli/decode.py: run": "what a stream consists of, without a session",
    "cli/send.py: run": "a recorded session sent to a real QEMU, without a session",
    "cli/receive.py: _print_record": "a checkpoint of a real QEMU, without a session",
    "peers/dataset.py: write_recordings": "recordings of a real QEMU, without a session",
    "memory/trace.py: to_bytes": "a trace of written pages, without a session",
    "node/grants.py: append": "the arbiter's own file",
    "node/monitor.py: _encode": "QMP",
    "protocol/arbiter.py: encode_line": "a message to the arbiter",
    "settings/file.py: _choices": "values in an error",
    "settings/own_trigger.py: _own_trigger": "a value of a setting",
    "ui/base/feed.py: read_module": "colours",
    "wire/agreement.py: encode_agreement": "a message to the peer",
    "wire/agreement.py: _shown": "values in an error",
    "wire/savevm.py: vmdescription_section": "QEMU's description of devices",
}
#: The pages that carry JSON.
PAGES = {
    "lab/report/html.py": "report",
    "lab/bench/page.py": "bench page",
    "lab/compare/page.py": "the settings of each cell",
    "lab/reproductions/page.py": "reproductions page",
    "lab/cockpit/page.py": "runs of the cockpit, whose JSON repeats them",
}


def callers_of(name: str, attribute: bool) -> Counter[str]:
    """Find the functions of the package that call another: file, and name of the function."""
    found: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        for function in ast.walk(ast.parse(source)) if name in source else ():
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                called = getattr(node, "func", None)
                if attribute and isinstance(called, ast.Attribute):
                    right = ast.unparse(called.value) == "json" and called.attr in (name, "dump")
                else:
                    right = isinstance(called, ast.Name) and called.id == name
                if right:
                    found[f"{path.relative_to(PACKAGE)}: {function.name}"] += 1
    return found


def test_every_function_that_writes_json_is_tried_above_or_writes_of_no_run() -> None:
    assert callers_of("dumps", attribute=True).keys() == JSON_WRITERS.keys()
    pages = {place.split(":")[0] for place in callers_of("write_page", attribute=False)}
    # A program of the guest has a function of that name, which writes a page of RAM.
    assert {place for place in pages if place.startswith("lab/")} == PAGES.keys()
    tried = {*WRITERS, *PAGE_WRITERS, *TORTURE_WRITERS}
    assert tried == tried & {*JSON_WRITERS.values(), *PAGES.values()}


def test_every_verb_that_starts_sessions_as_it_is_told_reads_files() -> None:
    reading = set()
    for name in VERBS:
        source = Path(str(module_of(name).__file__)).read_text()  # type: ignore[attr-defined]
        if re.search(r"\badd_settings_options\(", source):
            reading.add(name)
    # A comparison has pairs with different settings; its cells override what a file says.
    assert reading == {*USUAL, "compare"}
    # The others start none, or those of their own measurements, or as their specification says.
    running = {name for name, verb in VERBS.items() if verb.runs_nodes}
    assert running - reading == {"warmup", "bench", "reproduce", "sweep", "miscompares"}
