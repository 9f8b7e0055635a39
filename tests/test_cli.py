"""The command line: what it prints, what it exits with, and what it says to a wrong argument."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from colobench.lab import session as session_module

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


def test_demo_prints_one_json_object_with_its_figures() -> None:
    finished = colobench("demo", *SMALL, "--json")
    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout)
    assert summary["verified"] is True
    # One more may be committed before the kill.
    assert summary["checkpoints"] == summary["checkpoints_verified"] >= 10
    assert summary["takeover_checkpoint"] == 10
    assert summary["killed"]["status"] == -9
    for figure in ("pages", "bytes", "pause_ms_p50", "pause_ms_p99", "takeover_ms"):
        assert summary[figure] > 0


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
    from colobench.cli import main

    monkeypatch.setattr(session_module.Session, "verify", lambda self: False)
    assert main(["demo", *SMALL, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verified"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--ram", "lots"], "expected a number such as 64M, found 'lots'"),
        (["demo", "--checkpoints", "0"], "expected a number from 1 up, found '0'"),
        (["demo", "--delay", "-1"], "expected 0 to 4294967295 ms or None, found -1"),
        (["demo", "--report", "/nonexistent/x.html"], "expected a directory that can be written"),
        (["demo", "--guest", "vista"], "invalid choice: 'vista'"),
        (["demo", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["dmeo"], "invalid choice: 'dmeo'"),
        ([], "the following arguments are required"),
    ],
)
def test_wrong_argument_is_one_clear_error(arguments: list[str], words: str) -> None:
    finished = colobench(*arguments)
    assert finished.returncode in (1, 2)
    assert words in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted_ends_at_once_and_says_so(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "colobench", "demo", "--ram", "4M", "--checkpoints", "100000"],
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs tests in the background may have SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env=os.environ | {"TQDM_DISABLE": "1"},
    ) as demo:
        assert demo.stderr is not None
        directory = Path(os.environ["TMPDIR"])
        while not list(directory.glob("colobench-session-*/primary.qmp")):
            assert demo.poll() is None
        demo.send_signal(how)
        assert demo.wait(60) == 128 + how
        assert "Traceback" not in demo.stderr.read()


def test_protocol_prints_every_table() -> None:
    printed = colobench("protocol").stdout
    for title in ("primary, v12", "secondary, upstream, buffered", "failover"):
        assert f"{title}\n" in printed
    assert colobench("protocol", "--mermaid").stdout.count("stateDiagram-v2") == 7


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
