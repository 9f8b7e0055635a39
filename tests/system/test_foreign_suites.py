"""Suites of others run against the guest's store: redis-py's tests and Redis's own, in Tcl.

None of their code is here. `COLOBENCH_FOREIGN` names a directory that has redis-py's sdist in
`redis-py` and Debian's source package in `redis`; `.ci/run` fills it. What of the suites is run,
and what is not and why, stands in `foreign/`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from places import SUPPORT

HERE = SUPPORT / "foreign"
MATERIAL = os.environ.get("COLOBENCH_FOREIGN", "")


def find(pattern: str, what: str) -> Path:
    """Give an archive of somebody else's suite; skip the test where it is not to be had."""
    if not MATERIAL:
        pytest.skip(f"COLOBENCH_FOREIGN is not set: no directory with {what}")
    found = sorted(Path(MATERIAL).glob(pattern))
    if not found:
        pytest.skip(f"{what} is not in {MATERIAL}: no {pattern}")
    return found[-1]


def unpack(archive: Path, directory: Path) -> Path:
    """Unpack an archive; give its one directory."""
    with tarfile.open(archive) as opened:
        opened.extractall(directory, filter="data")
    (root,) = directory.iterdir()
    return root


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Run a pair whose guest is the store; outputs are compared, so that answers are quick."""
    command = [sys.executable, "-m", "colobench", "run", "--guest", "kv", "--ram", "256M"]
    # With --json it says who is protected on stderr.
    command += ["--output", "compare", "--delay", "20", "--no-verify", "--json"]
    command += ["--hostfwd", "tcp:127.0.0.1:0-:6379"]
    # What others do on this machine is no death.
    command += ["--heartbeat-limit", "20000", "--stall-timeout", "60"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        while not (line := process.stderr.readline()).startswith("protected"):
            assert line
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        try:
            yield int(said.rpartition(":")[2])
        finally:
            process.terminate()
            process.wait(60)
            drain.join()


@pytest.mark.parametrize(
    ("unit", "least"), [("type/incr", 10), ("protocol", 14), ("type/string", 40)]
)
def test_the_suites_of_redis_pass(port: int, unit: str, least: int, tmp_path: Path) -> None:
    archive = find("redis/redis_*.orig.tar.gz", "Redis's source package")
    if shutil.which("tclsh") is None:
        pytest.skip("tclsh is not installed")
    root = unpack(archive, tmp_path / "redis")
    skipped = tmp_path / "skipped"
    lines = (HERE / "redis_tcl.txt").read_text().splitlines()
    skipped.write_text("\n".join(line for line in lines if line and not line.startswith("#")))
    command = ["./runtest", "--host", "127.0.0.1", "--port", str(port), "--singledb", "--durable"]
    command += ["--ignore-encoding", "--tags", "-slow -needs:debug", "--skipfile", str(skipped)]
    command += ["--single", f"unit/{unit}", "--timeout", "100"]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200)
    said = re.sub(r"\x1b\[[0-9;]*m", "", ended.stdout)
    assert ended.returncode == 0, said
    assert "All tests passed without errors" in said
    assert said.count("[ok]: ") >= least, said
    assert "[err]" not in said


def test_the_tests_of_redis_py_pass(port: int, tmp_path: Path) -> None:
    installed = version("redis")
    archive = find(f"redis-py/redis-{installed}.tar.gz", "redis-py's sdist")
    root = unpack(archive, tmp_path / "redis-py")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    names = (HERE / "redis_py.txt").read_text().splitlines()
    files = sorted({name.partition("::")[0] for name in names if name.startswith("tests/")})
    report = tmp_path / "report.xml"
    url = f"redis://127.0.0.1:{port}/0"
    command = [sys.executable, "-m", "pytest", "-c", str(tmp_path / "pytest.ini")]
    command += ["--rootdir", ".", "-p", "selection", "-p", "no:nbval", "-p", "no:cacheprovider"]
    # Nobody listens at port 1: there are no modules.
    command += ["--redis-url", url, "--redis-mod-url", "redis://127.0.0.1:1", "-W", "ignore"]
    command += ["-q", "--tb", "native", "--timeout", "60", "--junitxml", str(report), *files]
    environment = os.environ | {
        "COLOBENCH_SELECTION": str(HERE / "redis_py.txt"), "PYTHONPATH": str(HERE),
    }  # fmt: skip
    ended = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=280
    )
    assert ended.returncode == 0, ended.stdout
    (suite,) = ElementTree.parse(report).iter("testsuite")
    figures = {name: int(suite.attrib[name]) for name in ("tests", "skipped", "failures", "errors")}
    assert figures["failures"] == figures["errors"] == 0
    # Names may come and go with versions of redis-py, but not most of them.
    ran = figures["tests"] - figures["skipped"]
    assert ran >= 0.8 * sum(name.startswith("tests/") for name in names), figures
