"""Time to start: the import of the package, and the first checkpoint of a new process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from colobench.errors import RemoteError
from colobench.lab.bench.case import Case, at_most, subject
from colobench.lab.bench.context import BenchContext
from colobench.lab.bench.measured import Measured

#: It says that the checkpoint is committed; what comes after that is not timed.
FIRST_CHECKPOINT = """
import colobench
with colobench.Session(verify=False, delay=0) as session:
    session.run(1)
    print("committed", flush=True)
"""
TIMEOUT = 120.0


def _import() -> float:
    """Import the package in a new Python; the seconds that this takes of its start."""
    command = [sys.executable, "-X", "importtime", "-c", "import colobench"]
    finished = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, check=False, timeout=TIMEOUT
    )
    # Lines are "import time: own [us] | with all that it imports | name".
    for line in finished.stderr.splitlines():
        _, with_all, name = ["", "", *line.split("|")][-3:]
        if name.strip() == "colobench":
            return int(with_all) / 1e6
    raise RemoteError(f"a new Python: expected the time of an import, found {finished.returncode}")


def _first_checkpoint() -> float:
    """Take a checkpoint in a new Python; the seconds from its start until that is committed."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", FIRST_CHECKPOINT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline().strip()
            seconds = time.perf_counter() - begin
            _, complaints = process.communicate(timeout=TIMEOUT)
        except BaseException:
            process.terminate()
            raise
    if process.returncode or said != "committed":
        complaint = (complaints.strip().splitlines() or [f"it ended with {process.returncode}"])[-1]
        raise RemoteError(f"a new Python: expected a checkpoint, found {complaint}")
    return seconds


@subject("start", "import colobench, and the first checkpoint of a new process")
def start(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""

    def importing() -> Measured:
        return Measured(context.compare(_import)[0], note="beyond what Python alone takes")

    def first_checkpoint() -> Measured:
        samples = context.compare(_first_checkpoint)[0]
        return Measured(samples, note="64 MiB of RAM, kernels in the cache")

    yield Case("import colobench", "s", importing, at_most(0.15, "s"))
    yield Case("first checkpoint", "s", first_checkpoint, at_most(1.5, "s"))
