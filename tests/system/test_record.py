"""Recording of real programs: exactly their written pages, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from colobench.doctor import check_recording
from colobench.errors import LocalError
from colobench.lab.traces.recorder import RecordingClock, record
from colobench.memory.dirty_curve import dirty_at
from colobench.memory.trace import Trace

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not check_recording().available, reason="programs cannot be recorded here"),
]

#: Writes 300 pages of a mapping in order, 1,000 times, and reads 3,000 others.
WRITER = """
import mmap
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
written, read = mmap.mmap(-1, 300 * 4096, flags=flags), mmap.mmap(-1, 3000 * 4096, flags=flags)
for page in range(3000):
    read[page * 4096]
for turn in range(1000):
    for page in range(300):
        written[page * 4096] = turn & 255
"""


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "colobench", "record", *arguments]


def test_doctor_finds_exactly_the_written_pages() -> None:
    assert "exactly" in check_recording().detail


def test_pages_that_a_program_writes_all_the_time_are_in_every_long_window() -> None:
    found = record([sys.executable, "-I", "-c", WRITER])
    trace = found.trace
    assert (found.status, found.end) == (0, "exit")
    # Some are the interpreter's own; those that were only read are not among them.
    assert 300 <= trace.sheet["pages_written"] < 3000
    middle = (trace.page_writes()[1] > 0.6 * trace.intervals) & (
        trace.page_writes()[1] < 0.9 * trace.intervals
    )
    assert len(set(trace.page_writes()[0][middle].tolist())) >= 300
    assert 300 <= dirty_at(trace, trace.intervals // 3) <= trace.sheet["pages_written"]
    assert sum(trace.cpu_us.tolist()) <= 1000 * (trace.intervals + 1)


def test_program_is_followed_through_exec() -> None:
    code = f"import os, sys; os.execv(sys.executable, [sys.executable, '-I', '-c', {WRITER!r}])"
    found = record([sys.executable, "-I", "-c", code], clock=RecordingClock.WALL)
    assert {each["program"] for each in found.trace.sheet["mappings"]} >= {0, 1}
    assert found.trace.sheet["pages_written"] >= 300
    assert found.status == 0


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL)],
)
def test_end_of_the_program_is_the_end_of_its_trace(code: str, status: int) -> None:
    found = record([sys.executable, "-I", "-c", code])
    assert (found.status, found.end) == (status, "exit")
    assert found.trace.writes > 0


def test_signals_of_a_recorded_program_arrive() -> None:
    code = """
import os, signal
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
os.kill(os.getpid(), signal.SIGUSR1)
raise SystemExit(len(seen))
"""
    assert record([sys.executable, "-I", "-c", code]).status == 1


def test_program_is_ended_after_the_seconds() -> None:
    found = record([sys.executable, "-I", "-c", "while True: pass"], seconds=0.5)
    assert (found.status, found.end) == (None, "seconds")


def test_program_that_does_not_exist_is_a_sentence() -> None:
    with pytest.raises(LocalError, match=r"not-there cannot be started: .*No such file"):
        record(["not-there"])


def test_trace_of_a_very_long_command_is_read_again() -> None:
    trace = record(["true", *["é" * 60_000] * 13]).trace
    assert Trace.from_bytes(trace.to_bytes()).sheet["command"].startswith("true 'é")


def test_program_of_32_bits_is_a_sentence(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(program_of_32_bits())
    program.chmod(0o755)
    try:
        assert subprocess.run([program], check=False).returncode == 0
    except OSError as error:
        pytest.skip(f"no program of 32 bits runs here: {error}")
    with pytest.raises(LocalError, match="expected a program of 64 bits, found one of 32"):
        record([str(program)])


def program_of_32_bits() -> bytes:
    """Make an ELF file for i386, which exits with 0."""
    code = bytes.fromhex("b801000000 31db cd80")
    base, head = 0x8048000, 52 + 32
    size = head + len(code)
    identity = b"\x7fELF\1\1\1" + bytes(9)
    header = struct.pack(
        *("<HHIIIIIHHHHHH", 2, 3, 1, base + head, 52, 0, 0, 52, 32, 1, 0, 0, 0),
    )
    segment = struct.pack("<8I", 1, 0, base, base, size, size, 5, 0x1000)
    return identity + header + segment + code


def test_command_line_writes_a_trace_and_prints_its_data_sheet(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    arguments = ("-o", str(path), "--baseline", "--", sys.executable, "-I", "-c", WRITER)
    done = subprocess.run(command_line(*arguments), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"distinct dirty pages: [\d,]+ in 1 ms, [\d,]+ in 10 ms", done.stdout)
    assert re.search(r"recording took [\d.]+ times as long", done.stdout)
    assert Trace.load(path).sheet["command"].startswith(sys.executable)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_the_recorder_is_ended(tmp_path: Path, number: int) -> None:
    path = tmp_path / "trace.npz"
    code = "import os; print(os.getpid(), flush=True)\nwhile True: x = bytearray(1 << 20)"
    recorder = subprocess.Popen(
        command_line("-o", str(path), "--", sys.executable, "-I", "-c", code),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert recorder.stdout is not None
    program = psutil.Process(int(recorder.stdout.readline()))
    recorder.send_signal(number)
    _, errors = recorder.communicate(timeout=60)
    program.wait(timeout=60)
    if number == signal.SIGINT:
        assert recorder.returncode == 130
        assert errors.strip().splitlines()[-1] == (
            "colobench record: interrupted: the trace ends there"
        )
        assert Trace.load(path).sheet["end"] == "interrupted"
    assert set(os.listdir(tmp_path)) <= {"trace.npz"}
