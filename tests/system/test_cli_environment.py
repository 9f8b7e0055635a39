"""The command line where something is missing: an encoding, a stream, space, memory, patience."""

from __future__ import annotations

import io
import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from colobench import doctor
from colobench.cli.main import main
from colobench.errors import LocalError
from colobench.fields.sizes import parse_size
from colobench.kernels.warmup import Step
from colobench.lab.bench import context as context_module
from colobench.lab.output_file import check_output_file, write_output_file
from colobench.lab.result_lines import ResultLines
from colobench.lab.session.session import Session
from colobench.lab.torture.kill_results import Results
from colobench.node import kernels
from share import each_with_some

pytestmark = pytest.mark.usefixtures("nothing_left")

COLOBENCH = [sys.executable, "-m", "colobench"]
SMALL = ["demo", "--ram", "4M", "--checkpoints", "3", "--delay", "5"]


def shell(words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a shell's command, in which `$colobench` is the program."""
    environment = os.environ | {"colobench": " ".join(COLOBENCH)} | options.pop("env", {})
    return subprocess.run(
        ["bash", "-c", words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        **options,
    )


def limited(which: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (value, value))


# -- Output ------------------------------------------------------------------------------------


class Unwritable(io.TextIOBase):
    """A stream that fails at the first character."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.fixture
def small_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make whatever is measured tiny."""
    small = partial(context_module.BenchContext, rounds=2, shrink=4096)
    monkeypatch.setattr(context_module, "BenchContext", small)


@pytest.mark.usefixtures("small_bench")
def test_what_cannot_be_encoded_is_replaced_after_the_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="latin-1"))
    files = [tmp_path / "bench.json", tmp_path / "bench.html"]
    assert main(["bench", "runs", "--json", str(files[0]), "--html", str(files[1])]) == 0
    assert len(json.loads(files[0].read_text())["results"]) == 10
    assert files[1].stat().st_size > 100_000
    assert b"?" in printed.getvalue()


@pytest.mark.usefixtures("small_bench")
def test_files_are_there_when_printing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Unwritable())
    assert main(["bench", "runs", "--json", str(tmp_path / "bench.json")]) == 1
    assert len(json.loads((tmp_path / "bench.json").read_text())["results"]) == 10
    assert capsys.readouterr().err == "colobench bench: [Errno 28] No space left on device\n"


def test_demo_has_its_report_whatever_becomes_of_its_output(tmp_path: Path) -> None:
    words = f"$colobench {' '.join(SMALL)} --report {tmp_path}/report.html >&- 2>&- <&-"
    assert shell(words, env={"PYTHONIOENCODING": "ascii"}).returncode == 0
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("verb", ["protocol", "demo -h"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_stream_is_no_error(verb: str, closed: str) -> None:
    finished = shell(f"$colobench {verb} {closed}")
    assert (finished.returncode, finished.stderr) == (0, "")
    if ">&-" not in closed.split():
        assert finished.stdout


@pytest.mark.parametrize("verb", ["protocol", "--help"])
def test_reader_that_leaves_is_no_error(verb: str) -> None:
    finished = shell(f"$colobench {verb} | true; $colobench {verb} | head -1")
    assert finished.stderr == ""
    assert len(finished.stdout.splitlines()) == 1


def test_output_on_a_full_disk_is_one_sentence() -> None:
    finished = shell("$colobench protocol >/dev/full")
    words = "colobench protocol: [Errno 28] No space left on device\n"
    assert (finished.returncode, finished.stderr) == (1, words)


OPTIONS = [
    ["demo", "--report"],
    ["bench", "--json"],
    ["bench", "--html"],
    ["torture", "--results"],
]


@pytest.mark.parametrize("option", OPTIONS, ids=" ".join)
@pytest.mark.parametrize(
    ("place", "found"),
    [
        (".", "found a directory"),
        ("missing/file", "No such file or directory"),
        ("a file/inside", "Not a directory"),
        ("/proc/new", "found: "),
        ("x" * 300, "File name too long"),
    ],
)
def test_file_that_cannot_be_written_is_refused_before_anything_starts(
    option: list[str],
    place: str,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a file").touch()
    monkeypatch.setattr(Session, "__init__", lambda *_, **__: pytest.fail("it began"))
    with pytest.raises(SystemExit) as end:
        main([*option, place])
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{place}: expected a file that can be written" in said
    assert found in said
    assert [each.name for each in tmp_path.iterdir()] == ["a file"]


# -- Files that are written whole --------------------------------------------------------------


@pytest.mark.parametrize("old", [None, "old\n"])
def test_full_disk_names_the_file_and_keeps_the_old_one(old: str | None, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    if old is not None:
        path.write_text(old)
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
from colobench.lab.output_file import write_output_file
from colobench.errors import LocalError
try:
    write_output_file({str(path)!r}, "x" * 10_000)
except LocalError as error:
    print(error)
"""
    found = subprocess.check_output([sys.executable, "-c", script], text=True)
    kept = "; the old file is kept" if old else ""
    assert found == f"{path}: cannot be written: File too large{kept}\n"
    assert [each.read_text() for each in tmp_path.iterdir()] == ([old] if old else [])


def test_file_is_replaced_with_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o604)
    link.symlink_to("file")
    assert write_output_file(check_output_file(link), "new é\n") == link
    assert link.is_symlink()
    assert path.read_text("utf-8") == "new é\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    fresh = write_output_file(tmp_path / "fresh", "")
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o666 & ~mask
    assert {each.name for each in tmp_path.iterdir()} == {"file", "link", "fresh"}


def test_device_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_output_file(check_output_file(pipe), "words")
        assert os.read(reader, 100) == b"words"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    write_output_file(check_output_file("/dev/null"), "words")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(LocalError, match="/dev/full: cannot be written: No space left"):
        write_output_file(check_output_file("/dev/full"), "words")


def test_standard_output_that_is_a_pipe_is_a_file_that_can_be_written() -> None:
    program = """
from colobench.lab.output_file import check_output_file, write_output_file
write_output_file(check_output_file("/dev/stdout"), "words")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("words", "")


def test_results_that_a_full_disk_takes_no_more_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results"
    path.symlink_to("/dev/full")
    results = Results(path)
    monkeypatch.setattr(ResultLines, "_whole", lambda self: 0)

    class Kill:
        def to_json(self) -> str:
            return "{}"

    with pytest.raises(LocalError, match=f"{path}: cannot be written: .*; the results before"):
        results.append(Kill())  # type: ignore[arg-type]


# -- Limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "value", "words"),
    [
        (resource.RLIMIT_AS, 400 << 20, "address space (ulimit -v): expected at least 1600 MiB"),
        (resource.RLIMIT_AS, 1610 << 20, "ram: expected at most 2 MiB where a process may have"),
        (resource.RLIMIT_FSIZE, 1 << 20, "file size (ulimit -f): expected at least 4."),
        (resource.RLIMIT_NOFILE, 20, "open files (ulimit -n): expected at least 32, found 20"),
    ],
)
def test_limit_that_is_too_low_is_one_sentence_before_anything_starts(
    which: int, value: int, words: str
) -> None:
    finished = subprocess.run(
        [*COLOBENCH, *SMALL],
        preexec_fn=limited(which, value),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    [line] = finished.stderr.splitlines()
    assert line.startswith(f"colobench demo: {words}")


def test_limits_under_which_a_guest_fits_are_enough(tmp_path: Path) -> None:
    def limits() -> None:
        # `describe_machine` measures memcpy with 256 MiB twice.
        limited(resource.RLIMIT_AS, 2000 << 20)()
        limited(resource.RLIMIT_FSIZE, 6 << 20)()
        limited(resource.RLIMIT_NOFILE, 44)()

    finished = subprocess.run(
        [*COLOBENCH, *SMALL, "--json"],
        preexec_fn=limits,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["verified"] is True


@pytest.mark.parametrize(
    ("which", "value", "words"),
    [
        (resource.RLIMIT_AS, 1000 << 20, "0.98 GiB of addresses a process (ulimit -v)"),
        (resource.RLIMIT_FSIZE, 3 << 20, "3.0 MiB of RAM at most (ulimit -f)"),
    ],
)
def test_doctor_counts_limits_of_processes(which: int, value: int, words: str) -> None:
    script = "from colobench import doctor; print(doctor.check_memory())"
    found = subprocess.check_output(
        [sys.executable, "-c", script], text=True, preexec_fn=limited(which, value)
    )
    assert "available=False" in found
    assert words in found


def test_doctor_runs_no_kernel_where_llvm_would_end_it() -> None:
    script = "from colobench import doctor; print(doctor.CHECKS['tracker shadow']())"
    found = subprocess.check_output(
        [sys.executable, "-c", script],
        text=True,
        preexec_fn=limited(resource.RLIMIT_AS, 700 << 20),
    )
    assert "available=False" in found
    assert "address space (ulimit -v)" in found


@pytest.mark.parametrize("missing", ["cgroup", "mountinfo", "both"])
def test_without_cgroup_files_there_is_no_limit(missing: str, tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    for name in {"cgroup", "mountinfo"} - {missing}:
        if missing != "both":
            (tmp_path / "proc/self" / name).touch()
    assert doctor.cpu_quota(tmp_path) == float("inf")
    assert doctor.memory_limit(tmp_path) == float("inf")


# -- Words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64M", 64 << 20),
        ("64m", 64 << 20),
        ("64MB", 64 << 20),
        ("64 MB", 64 << 20),
        ("64MiB", 64 << 20),
        ("64 mib", 64 << 20),
        (" 1GB ", 1 << 30),
        ("1GiB", 1 << 30),
        ("512 KiB", 512 << 10),
        ("4096", 4096),
        ("4096B", 4096),
    ],
)
def test_size_is_read_as_people_write_it(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "lots", "-1M", "1.5G", "64MBB", "64MM", "64 M B", "²M", "٣M", "64iB", "1e3"]
)
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(LocalError, match="size: expected a number such as 64M, found"):
        parse_size(text)
    with pytest.raises(LocalError, match="size: expected"):
        Session(ram=text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--checkpoints", "²"], "--checkpoints: expected a number from 1 up, found '²'"),
        (["demo", "--checkpoints", "٣"], "--checkpoints: expected a number from 1 up, found '٣'"),
        (["demo", "--checkpoints", "1" * 5000], "expected a number from 1 up, found '111"),
        (["demo", "--seed", "1_0"], "--seed: expected a whole number, found '1_0'"),
        (["demo", "--delay", "x"], "--delay: expected a whole number, found 'x'"),
        (["demo", "--stall-timeout", "x"], "--stall-timeout: expected a number of seconds"),
        (["torture", "--seed", ""], "--seed: expected a whole number, found ''"),
    ],
)
def test_word_that_is_no_number_is_said_in_the_users_words(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    said = capsys.readouterr().err.splitlines()[-1]
    assert words in said
    assert "_" not in said.replace("'1_0'", "")


# -- Patience ----------------------------------------------------------------------------------


def test_warmup_says_what_it_does_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compile_kernels(modules: Sequence[str], progress: Callable[[Step], None]) -> None:
        assert modules == kernels.all_kernel_modules()
        progress(Step("quick", 1, 3, 0.01))
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("colobench.lab.progress._PATIENCE_SECONDS", 0)
        progress(Step("slow", 2, 3, 5.0))
        assert capsys.readouterr().err == "compiling: 2 of 3 kernels after 0 s\n"
        progress(Step("slower", 3, 3, 70.0))

    monkeypatch.setattr("colobench.lab.compilation.compile_kernels", compile_kernels)
    monkeypatch.setattr("colobench.kernels.warmup.kernels_in", lambda modules: [1, 2, 3])
    assert main(["warmup"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "compiling: 3 of 3 kernels after 0 s\n"
    assert captured.out == "3 kernels are ready\n"


#: Interrupts this process at its nth import since the command line began.
INTERRUPTER = """
import os, signal, sys
left, begun = int(os.environ.get("INTERRUPT_AT", "0")), False
def hook(event, arguments):
    global left, begun
    if event == "import":
        begun = begun or arguments[0] == "colobench.cli"
        if begun and left:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(hook)
"""


@pytest.mark.parametrize("moment", [1, 2, 5, 20, 50, 100])
@pytest.mark.parametrize("verb", ["protocol", "--help"])
def test_interrupt_at_any_import_is_one_sentence(verb: str, moment: int, tmp_path: Path) -> None:
    check_interrupt([*COLOBENCH, *verb.split()], moment, tmp_path)


@pytest.mark.parametrize(
    ("verb", "moment"),
    each_with_some(
        ("demo", "run --seconds 1 --hostfwd tcp:127.0.0.1:0-:6379", "torture --clean 2", "warmup"),
        (100, 400),
    ),
)
def test_interrupt_while_a_verb_imports_is_one_sentence(
    verb: str, moment: int, tmp_path: Path
) -> None:
    check_interrupt([*COLOBENCH, *verb.split()], moment, tmp_path)


def check_interrupt(command: list[str], moment: int, directory: Path) -> None:
    (directory / "sitecustomize.py").write_text(INTERRUPTER)
    finished = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(directory), "INTERRUPT_AT": str(moment)},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    if finished.returncode == 0:
        # There were not so many.
        return
    assert finished.returncode == 130
    [line] = finished.stderr.splitlines()
    assert line.startswith("colobench")
    assert line.endswith(": interrupted")
