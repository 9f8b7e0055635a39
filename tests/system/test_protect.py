"""A real QEMU is protected, killed, and brought back from its last checkpoint."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from colobench.cli import protect
from colobench.cli.main import main
from colobench.errors import LocalError
from colobench.peers.protected_qemu import ProtectedQEMU, ProtectionFailed
from colobench.peers.qemu import PROGRAM, QEMUUnavailable, find_program

STARTED = re.compile(r"QEMU started.*: pid (\d+)")


@pytest.fixture
def kvm() -> None:
    try:
        find_program()
    except QEMUUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def command(kvm: None, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a running ``colobench protect --example``; nothing of it may be left behind."""
    (tmp_path / "tmp").mkdir()
    arguments = [sys.executable, "-m", "colobench", "protect", "--example", "--delay", "50"]
    with subprocess.Popen(
        [*arguments, "--save", str(tmp_path / "guest"), "--each"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
    ) as process:
        yield process
        process.kill()
    assert list((tmp_path / "tmp").iterdir()) == []


def wait_for_line(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.match(pattern, line):
            return match
    raise AssertionError(f"no line {pattern!r}: {process.communicate()[1]}")


def test_killed_qemu_comes_back_counts_on_and_is_protected_again(
    command: subprocess.Popen[str], tmp_path: Path
) -> None:
    first = int(wait_for_line(command, STARTED.pattern)[1])
    wait_for_line(command, r"protected: pc-i440fx-.*, every 50 ms in ")
    wait_for_line(command, r"checkpoint 5: ")
    os.kill(first, signal.SIGKILL)
    wait_for_line(command, r"QEMU was killed by SIGKILL")
    again = wait_for_line(
        command, r"QEMU started from checkpoint (\d+): pid (\d+); its guest has counted to (\d+)"
    )
    number, second, counter = map(int, again.groups())
    assert number >= 5
    assert counter > 0
    wait_for_line(command, r"protected: ")
    wait_for_line(command, r"checkpoint 2: ")
    os.kill(second, signal.SIGKILL)
    again = wait_for_line(
        command, r"QEMU started from checkpoint \d+: pid (\d+); its guest has counted to (\d+)"
    )
    third, counted_on = map(int, again.groups())
    assert counted_on > counter
    wait_for_line(command, r"protected: ")
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate()
    assert re.fullmatch(
        r"colobench protect: interrupted: QEMU is ended, and \S+ has checkpoint \d+\n", errors
    )
    assert command.returncode == 128 + signal.SIGINT
    assert not psutil.pid_exists(third)
    assert (tmp_path / "guest").stat().st_size > 1 << 20


class FakeVM:
    """A VM that is killed twice: protected, and brought back but not protected again."""

    process = SimpleNamespace(pid=1)

    def __init__(self, saved: bool) -> None:
        self._saved = saved
        self._protections = 0

    def protect(self) -> SimpleNamespace:
        self._protections += 1
        if self._protections == 2:
            raise ProtectionFailed("QEMU has ended")
        return SimpleNamespace(machine="pc")

    def can_come_back(self) -> bool:
        return self._saved

    def wait_for_exit(self) -> int:
        return -signal.SIGKILL

    def wait_for_end(self) -> int:
        return -signal.SIGKILL if self._protections == 1 else 0

    def bring_back(self) -> int:
        return 5


def test_qemu_that_is_killed_before_it_is_protected_again_is_brought_back_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Namespace(delay=50, save=tmp_path / "guest", example=False)
    assert protect._protect(FakeVM(saved=True), options) == 0  # type: ignore[arg-type]
    starts = [line.split(",")[0].split(":")[0] for line in capsys.readouterr().out.splitlines()]
    killed = ["QEMU was killed by SIGKILL", "QEMU started from checkpoint 5"]
    assert starts == ["protected", *killed, *killed, "protected"]
    with pytest.raises(ProtectionFailed):
        protect._protect(FakeVM(saved=False), options)  # type: ignore[arg-type]


class CrashingVM(FakeVM):
    """A VM that is ended by one signal after the other."""

    def __init__(self, signals: list[int]) -> None:
        super().__init__(saved=True)
        self.signals = signals

    def protect(self) -> SimpleNamespace:
        return SimpleNamespace(machine="pc")

    def wait_for_end(self) -> int:
        return -self.signals.pop(0) if self.signals else 0


def test_qemu_that_crashes_each_time_is_not_brought_back_for_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Namespace(delay=50, save=tmp_path / "guest", example=False)
    vm = CrashingVM([signal.SIGSEGV] * 100)
    with pytest.raises(ProtectionFailed, match=r"5 crashes in a row, .* SIGSEGV; .*guest has"):
        protect._protect(vm, options)  # type: ignore[arg-type]
    assert len(vm.signals) == 95
    assert protect._protect(CrashingVM([signal.SIGRTMIN + 1]), options) == 0  # type: ignore[arg-type]
    assert f"QEMU was killed by signal {signal.SIGRTMIN + 1}" in capsys.readouterr().out
    mixed = [*[signal.SIGABRT] * 4, signal.SIGKILL] * 3
    assert protect._protect(CrashingVM(mixed), options) == 0  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"no {PROGRAM}")
def test_emulating_qemu_is_refused_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = [PROGRAM, "-accel", "tcg", "-display", "none", "-S"]
    assert main(["protect", "--save", str(tmp_path / "guest"), "--", *machine]) == 1
    error = capsys.readouterr().err
    assert error.startswith("colobench protect: QEMU: expected one that uses KVM (-accel kvm)")
    assert len(error.splitlines()) == 1


def test_wrong_commands_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("-incoming", "--incoming"):
        with pytest.raises(LocalError, match="without -incoming"):
            ProtectedQEMU([PROGRAM, option, "defer"], tmp_path / "guest")
    for command in ([], ["--", "no-such-qemu"]):
        assert main(["protect", "--save", str(tmp_path / "guest"), *command]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
