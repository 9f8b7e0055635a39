"""How soon one can work: the import of the package, and the first checkpoint of a new process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from colobench.errors import RemoteError
from colobench.lab.bench.case import Case, Measured, at_most, subject
from colobench.lab.bench.laboratory import Laboratory

IMPORT = "import colobench"
#: It says that the checkpoint is committed; what comes after that is not timed.
FIRST_CHECKPOINT = """
import colobench
with colobench.Session(verify=False, delay=0) as session:
    session.run(1)
    print("committed", flush=True)
"""
TIMEOUT = 120.0


def _run(code: str, until: str = "") -> float:
    """Run a program in a new Python; the seconds until it says a word, or until its end."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said = process.stdout.readline().strip() if until else ""
            seconds = time.perf_counter() - begin
            process.wait(TIMEOUT)
        except BaseException:
            process.terminate()
            raise
        if not until:
            seconds = time.perf_counter() - begin
        if process.returncode or said != until:
            complaint = (process.stderr.read().strip().splitlines() or [""])[-1]
            raise RemoteError(f"a new Python ended with {process.returncode}: {complaint}")
    return seconds


@subject("start", "import colobench, and the first checkpoint of a new process")
def start(laboratory: Laboratory) -> Iterator[Case]:
    """Give the cases."""

    def importing() -> Measured:
        samples = laboratory.compare(lambda: _run(IMPORT) - _run("pass"))
        return Measured(samples[0], note="beyond what Python alone takes")

    def first_checkpoint() -> Measured:
        samples = laboratory.compare(lambda: _run(FIRST_CHECKPOINT, "committed"))
        return Measured(samples[0], note="64 MiB of RAM, kernels in the cache")

    yield Case("import colobench", "s", importing, at_most(0.15, "s"))
    yield Case("first checkpoint", "s", first_checkpoint, at_most(1.5, "s"))
