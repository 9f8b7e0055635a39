"""The command line: what it prints, what it exits with, and what it says to a wrong argument."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from colobench.cli.main import main
from colobench.lab.bench import context as context_module
from colobench.lab.bench import run as run_module
from colobench.lab.session import session as session_module
from colobench.lab.studies.protocol_tables import protocol_tables

pytestmark = pytest.mark.usefixtures("nothing_left")

SMALL = ["--ram", "4M", "--checkpoints", "10", "--delay", "5"]


def colobench(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "colobench", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        **options,
    )


def test_demo_prints_one_json_object_and_is_repeated_from_it(tmp_path: Path) -> None:
    finished = colobench("demo", *SMALL, "--guest", "hotcold", "--report-pages", "--json")
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert summary["verified"] is True
    # On a busy machine some more are committed before the kill.
    assert summary["checkpoints"] == summary["checkpoints_verified"] >= 10
    assert summary["takeover_checkpoint"] == summary["checkpoints"]
    assert summary["killed"]["status"] == -9
    for figure in ("pages", "bytes", "pause_ms_p50", "pause_ms_p99", "takeover_ms"):
        assert summary[figure] > 0
    file = tmp_path / "demo.json"
    file.write_text(finished.stdout)
    again = colobench("demo", "--checkpoints", "3", "--settings", str(file), "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["settings"] == summary["settings"]
    assert summary["settings"]["guest"] == "hotcold"


@pytest.mark.parametrize("extra", [["--layout", "buffered"], ["--variant", "upstream"]])
def test_demo_prints_a_table_and_writes_a_report(tmp_path: Path, extra: list[str]) -> None:
    finished = colobench("demo", *SMALL, *extra, "--report", str(tmp_path / "run.html"))
    assert finished.returncode == 0, finished.stderr
    for row in ("verified", "checkpoints", "pages", "pause", "takeover"):
        assert row in finished.stdout
    assert (tmp_path / "run.html").stat().st_size > 100_000


def test_demo_fails_if_the_survivor_is_not_what_it_should_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session_module.Session, "verify", lambda self: False)
    assert main(["demo", *SMALL, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verified"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--ram", "lots"], "expected a number such as 64M, found 'lots'"),
        (["demo", "--checkpoints", "0"], "expected a number from 1 up, found '0'"),
        (["demo", "--delay", "-1"], "expected 0 to 4294967295 ms or None, found -1"),
        (["demo", "--report", "/nonexistent/x.html"], "expected a file that can be written"),
        (["demo", "--guest", "vista"], "guest: expected one of uniform, hotcold,"),
        (["demo", "--guest", "kv"], "demo: expected a guest that can be run again, found kv"),
        (["demo", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["bench", "bitmap", "speed"], "expected one of bitmap, runs, flush,"),
        (["bench", "--json", "/nonexistent/x.json"], "expected a file that can be written"),
        (["dmeo"], "invalid choice: 'dmeo'"),
        ([], "the following arguments are required"),
    ],
)
def test_wrong_argument_is_one_clear_error(arguments: list[str], words: str) -> None:
    finished = colobench(*arguments)
    assert finished.returncode in (1, 2)
    assert words in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_demo_that_is_interrupted_ends_at_once_and_says_so(how: signal.Signals) -> None:
    def as_in_background() -> None:
        """Ignore SIGINT, as a script's background jobs do; not SIGHUP, although nohup may be on."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    with subprocess.Popen(
        [sys.executable, "-m", "colobench", "demo", "--ram", "4M", "--checkpoints", "100000"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_background,
        env=os.environ | {"TQDM_DISABLE": "1"},
    ) as demo:
        assert demo.stderr is not None
        directory = Path(os.environ["TMPDIR"])
        while not list(directory.glob("colobench-session-*/node-0.qmp")):
            assert demo.poll() is None
        demo.send_signal(how)
        assert demo.wait(60) == 128 + how
        assert "Traceback" not in demo.stderr.read()


@pytest.fixture
def small_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make whatever is measured tiny."""
    small = partial(context_module.BenchContext, rounds=2, shrink=4096)
    monkeypatch.setattr(context_module, "BenchContext", small)


@pytest.mark.usefixtures("small_bench")
def test_bench_prints_a_table_and_writes_both_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "bench.json", tmp_path / "bench.html"]
    names = ["runs", "peers"]
    assert main(["bench", *names, "--json", str(files[0]), "--html", str(files[1])]) == 0
    printed = capsys.readouterr().out
    found = json.loads(files[0].read_text())
    assert [each["name"] for each in found["results"]] == ["runs"] * 10 + ["peers"] * 9
    assert found["machine"]["memcpy_two_threads_ratio"] > 0
    assert all(each["case"] in printed for each in found["results"])
    assert files[1].stat().st_size > 100_000


@pytest.mark.usefixtures("small_bench")
def test_bench_that_is_interrupted_shows_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = run_module.run

    def interrupted(*arguments: Any) -> Iterator[Any]:
        yield from islice(measured(*arguments), 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run", interrupted)
    assert main(["bench", "--json", str(tmp_path / "bench.json")]) == 130
    captured = capsys.readouterr()
    assert "2 rows" in captured.out
    assert "interrupted" in captured.err
    assert len(json.loads((tmp_path / "bench.json").read_text())["results"]) == 2


@pytest.mark.usefixtures("small_bench")
def test_bench_fails_if_something_that_should_run_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Any, *samplers: Any) -> Any:
        raise OSError("the clock has stopped")

    monkeypatch.setattr(context_module.BenchContext.func, "compare", broken)  # type: ignore[attr-defined]
    assert main(["bench", "digest"]) == 1
    captured = capsys.readouterr()
    assert "failed: the clock has stopped" in captured.out
    assert "failed: digest, " in captured.err


def test_bench_that_gets_a_sigint_leaves_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "colobench", "bench", "bitmap"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as bench:
        assert bench.stderr is not None
        directory = Path(os.environ["TMPDIR"])
        # The first reference is compiled: the first of many rows is being measured.
        while not list(directory.glob("colobench-bench-*/*.so")):
            assert bench.poll() is None
        bench.send_signal(signal.SIGINT)
        assert bench.wait(60) == 130
        assert "Traceback" not in bench.stderr.read()


def test_bench_lists_what_there_is() -> None:
    finished = colobench("bench", "--list")
    assert finished.returncode == 0
    listed = dict(line.split(maxsplit=1) for line in finished.stdout.splitlines())
    assert listed.keys() == {*run_module.subjects(), "pause"}
    assert "C with vectors" in listed["bitmap"]


def test_protocol_prints_every_table() -> None:
    printed = colobench("protocol").stdout
    for title in ("primary, v12, copy-then-send", "secondary, upstream, buffered", "failover"):
        assert f"{title}\n" in printed
    assert colobench("protocol", "--mermaid").stdout.count("stateDiagram-v2") == len(
        protocol_tables()
    )


def test_output_that_nobody_reads_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "colobench", "protocol"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as protocol:
        assert protocol.stdout is not None
        assert protocol.stderr is not None
        protocol.stdout.close()
        assert protocol.stderr.read() == ""
