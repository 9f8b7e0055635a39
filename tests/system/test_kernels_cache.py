"""A cache that is damaged, shared, full or absent costs time, and never an error."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numba.core import config

import colobench
from colobench import doctor
from colobench.kernels import bitmap, cache_directory, jit
from colobench.kernels.cache import CacheState, SealedFile
from colobench.kernels.warmup import kernels_in
from colobench.lab.session.services import start_arbiter
from colobench.node.kernels import all_kernel_modules

PACKAGE = Path(colobench.__file__).parent
#: Says where a kernel's cache is, and whether it was there.
CALL = """
import json
import numpy as np
from colobench.kernels.bitmap import popcount
assert popcount(np.ones(3, dtype=np.uint64)) == 3
stats = popcount.stats
print(json.dumps([stats.cache_path, sum(stats.cache_hits.values())]))
"""
DOCTOR = "from colobench import doctor; print(doctor.check_numba_cache())"


def python(script: str, **options: Any) -> str:
    environment = os.environ | options.pop("env", {})
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=environment,
        cwd=options.pop("cwd", "/"),
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def hits(directory: Path, **options: Any) -> int:
    """Call the kernel in a process of its own; say whether it came from the cache."""
    path, count = json.loads(python(CALL, env={"NUMBA_CACHE_DIR": str(directory)}, **options))
    assert Path(path).is_relative_to(directory)
    return int(count)


def successor(number: int) -> int:
    return number + 1


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Make the small kernel anew, call it, and say whether it came from the cache."""
    monkeypatch.setattr(jit, "REGISTRY", [])
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))

    def call() -> int:
        compiled = jit.kernel("i8(i8)")(successor)
        assert compiled(1) == 2
        assert Path(compiled.stats.cache_path).is_relative_to(tmp_path)
        return sum(compiled.stats.cache_hits.values())

    assert [call(), call()] == [0, 1]
    return call


def entry(directory: Path, suffix: str) -> Path:
    [path] = directory.glob(f"*/*.{suffix}")
    return path


def flip_a_bit(data: bytes) -> bytes:
    middle = len(data) * 2 // 3
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "halved": lambda data: data[: len(data) // 2],
    "zeroed": lambda data: bytes(len(data)),
    "one bit": flip_a_bit,
    "something else": lambda data: pickle.dumps([1, 2]),
    "two of something else": lambda data: pickle.dumps("0.1") + pickle.dumps((1, {2: "x.nbc"})),
    "a name that is not there": lambda data: pickle.dumps("unknown module")[:-1] + b"c\nnone\n.",
}


@pytest.mark.parametrize("suffix", ["nbi", "1.nbc"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entry_is_a_miss_and_is_written_anew(
    damage: str, suffix: str, call: Callable[[], int], tmp_path: Path
) -> None:
    path = entry(tmp_path, suffix)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert [call(), call()] == [0, 1]


@pytest.mark.parametrize("suffix", ["nbi", "1.nbc"])
def test_directory_in_the_place_of_an_entry_is_a_miss(
    suffix: str, call: Callable[[], int], tmp_path: Path
) -> None:
    path = entry(tmp_path, suffix)
    path.unlink()
    path.mkdir()
    assert [call(), call()] == [0, 1]
    # What is in one is not ours to remove.
    path.unlink()
    path.mkdir()
    (path / "file").touch()
    assert [call(), call()] == [0, 0]
    assert (path / "file").exists()


def test_entry_that_may_not_be_read_is_a_miss(tmp_path: Path) -> None:
    def obey_modes() -> None:
        # Linux's prctl(2): PR_CAPBSET_DROP of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
        for capability in (1, 2):
            ctypes.CDLL(None).prctl(24, capability)

    assert hits(tmp_path) == 0
    for path in tmp_path.glob("*/*.nb?"):
        path.chmod(0)
    assert [hits(tmp_path, preexec_fn=obey_modes) for _ in range(2)] == [0, 1]


def test_number_that_two_processes_gave_away_is_no_mistaken_kernel(tmp_path: Path) -> None:
    file = SealedFile(str(tmp_path), "kernel", "stamp")  # type: ignore[no-untyped-call]
    file.save("mine", [1])
    other = SealedFile(str(tmp_path), "kernel", "stamp")  # type: ignore[no-untyped-call]
    with pytest.MonkeyPatch.context() as patch:
        # As if it had looked before the first was there.
        patch.setattr(other, "_load_index", dict)
        other.save("theirs", [2])
    assert file.load("theirs") == [2]
    assert file.load("mine") is None
    assert file.state("mine")[0] is CacheState.MISSING


def test_index_names_no_file_outside(tmp_path: Path) -> None:
    file = SealedFile(str(tmp_path / "cache"), "kernel", "stamp")  # type: ignore[no-untyped-call]
    (tmp_path / "cache").mkdir()
    file.save("key", [1])
    file._save_index({"key": "../kernel.1.nbc"})  # type: ignore[no-untyped-call]
    assert file.load("key") is None
    file.save("key", [2])
    assert file.load("key") == [2]
    assert not (tmp_path / "kernel.1.nbc").exists()


def test_full_disk_in_the_middle_of_an_entry_leaves_nothing_of_it(tmp_path: Path) -> None:
    def little_space() -> None:
        # A file that grows beyond that is EFBIG, as a full disk is ENOSPC.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    assert hits(tmp_path, preexec_fn=little_space) == 0
    assert [each.name for each in tmp_path.glob("*/*") if ".tmp." in each.name] == []
    assert [hits(tmp_path), hits(tmp_path)] == [0, 1]


def test_processes_that_fill_one_cache_at_once_compile_once(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CALL], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    found = [json.loads(process.communicate(timeout=120)[0])[1] for process in processes]
    assert sorted(found) == [0, 1, 1]


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """Copy the package to where no cache can be written; give the environment to use it."""
    copy = tmp_path / "copy"
    shutil.copytree(PACKAGE, copy / "colobench", ignore=shutil.ignore_patterns("__pycache__"))
    for room in ("", "kernels", "guest"):
        # A file where a directory should be stops the superuser too.
        (copy / "colobench" / room / "__pycache__").write_text("")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    return {
        "PYTHONPATH": str(copy),
        "NUMBA_CACHE_DIR": "",
        "XDG_CACHE_HOME": "/dev/null/cache",
        "TMPDIR": str(temporary),
    }


SHARE = f"""
import os, subprocess, sys
from colobench.kernels import cache_directory
CALL = {CALL!r}
shared = os.environ | cache_directory.environment()
assert shared == os.environ | cache_directory.environment()
children = [
    subprocess.Popen([sys.executable, "-c", CALL], env=shared, stdout=subprocess.PIPE, text=True)
    for _ in range(2)
]
exec(CALL)
for child in children:
    print(child.communicate()[0].strip())
"""


def test_without_a_cache_a_process_and_its_children_share_one_and_it_is_said_once(
    nowhere: dict[str, str],
) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", SHARE],
        env=os.environ | nowhere,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    found = [json.loads(line) for line in finished.stdout.splitlines()]
    assert len({path for path, _ in found}) == 1
    assert Path(found[0][0]).parts[-2].startswith(cache_directory.PREFIX)
    assert sorted(count for _, count in found) == [0, 1, 1]
    [line] = finished.stderr.splitlines()
    assert "set NUMBA_CACHE_DIR to a directory that can be written" in line
    assert list(Path(nowhere["TMPDIR"]).iterdir()) == []


def test_fork_of_a_process_with_a_private_cache_does_not_remove_it(nowhere: dict[str, str]) -> None:
    script = """
import os, sys
from colobench.kernels import cache_directory
made = cache_directory.private_directory()
if not os.fork():
    sys.exit(0)
assert os.wait()[1] == 0
assert made.is_dir()
"""
    python(script, env=nowhere)
    assert list(Path(nowhere["TMPDIR"]).iterdir()) == []


def test_node_is_told_where_the_kernels_are(
    nothing_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_directory, "environment", lambda: {"NUMBA_CACHE_DIR": "/there"})
    node = start_arbiter(
        Path(tempfile.gettempdir()), None, lambda role, event: None, lambda process: None
    )
    try:
        node.connect(60)
        told = Path(f"/proc/{node.pid}/environ").read_bytes().split(b"\0")
        assert b"NUMBA_CACHE_DIR=/there" in told
    finally:
        node.kill()
        node.end()
        for name in ("arbiter", "arbiter.qmp", "arbiter.grants", "arbiter.stderr"):
            Path(tempfile.gettempdir(), name).unlink(missing_ok=True)


def test_doctor_counts_kernels_and_names_the_damaged(tmp_path: Path) -> None:
    assert hits(tmp_path) == 0
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    total = len(kernels_in(all_kernel_modules()))
    found = python(DOCTOR, env=environment)
    assert f"1 of {total} kernels are below {tmp_path};" in found
    assert "colobench warmup compiles the others" in found
    assert "damaged" not in found
    for suffix in ("1.nbc", "nbi"):
        path = entry(tmp_path, suffix)
        path.write_bytes(b"")
        found = python(DOCTOR, env=environment)
        assert f"0 of {total} kernels" in found
        assert f"damaged, and compiled anew when needed: {path.name}" in found
        assert path.read_bytes() == b""


def test_doctor_says_that_no_cache_can_be_written_and_the_remedy(nowhere: dict[str, str]) -> None:
    found = python(DOCTOR, env=nowhere, stdin=subprocess.DEVNULL)
    assert "available=False" in found
    assert "set NUMBA_CACHE_DIR to a directory that can be written" in found


def test_doctor_tries_whether_the_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def full(directory: Path, size: int = 0) -> bool:
        tried.append((directory, size))
        return False

    monkeypatch.setattr(cache_directory, "can_write", full)
    finding = doctor.check_numba_cache()
    assert finding.available is False
    assert "nothing can be written to" in finding.detail
    assert {directory for directory, _ in tried} >= {Path(str(bitmap.popcount.stats.cache_path))}
    assert all(size > 0 for _, size in tried)


def test_directory_that_is_full_cannot_be_written(tmp_path: Path) -> None:
    script = f"""
import resource
from pathlib import Path
from colobench.kernels.cache_directory import can_write
place = Path({str(tmp_path)!r}, "new")
assert can_write(place, 1 << 20)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
assert can_write(place)
assert not can_write(place, 1 << 20)
assert not can_write(Path("/dev/null/x"))
"""
    python(script)
