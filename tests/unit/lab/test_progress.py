"""Progress is a bar where a line can be overwritten, and a few lines elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from colobench.lab.progress import bar


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colobench.lab.progress._PATIENCE_SECONDS", 0)
    monkeypatch.setattr("colobench.lab.progress._CHANGE_SECONDS", 0)


def shown(total: int) -> str:
    """Show a work to the present standard error, and give what is there."""
    with bar("compiling", "kernels") as progress:
        for done in range(1, total + 1):
            progress(done, total)
    assert isinstance(sys.stderr, io.StringIO)
    return sys.stderr.getvalue()


@pytest.mark.parametrize("total", [1, 3, 4, 40, 1000])
def test_a_log_file_has_a_few_plain_lines(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    written = shown(total)
    assert "\r" not in written
    assert "\x1b" not in written
    lines = written.splitlines()
    assert 1 <= len(lines) <= 4
    assert lines[-1].startswith(f"compiling: {total} of {total} kernels after ")


def test_what_is_quick_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colobench.lab.progress._PATIENCE_SECONDS", 1000)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert shown(40) == ""


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    written = shown(40)
    assert "\rcompiling:" in written
    assert "\n" not in written


def test_a_notebook_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutStream(io.StringIO):
        """Standard error of a kernel, which is no terminal."""

    monkeypatch.setattr(OutStream, "__module__", "ipykernel.iostream")
    monkeypatch.setattr(sys, "stderr", OutStream())
    assert "\rcompiling:" in shown(40)
