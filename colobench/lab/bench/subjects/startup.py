"""Time to start: the import of the package, and the first checkpoint of a new process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator

from colobench.errors import RemoteError
from colobench.lab.bench.case import Case, at_most, subject
from colobench.lab.bench.context import BenchContext
from colobench.lab.bench.measured import Measured
from colobench.settings.settings import Settings

#: Line that reports the commit of the checkpoint, at which timing ends.
FIRST_CHECKPOINT = """
import json, sys, colobench
settings = colobench.Settings.from_json(json.loads(sys.argv[1]))
with colobench.Session(settings) as session:
    session.run(1)
    print("committed", flush=True)
"""
#: Settings of the session that takes it.
SETTINGS = Settings().override(verify=False, delay=0)
#: Least imports of a node's process.
BARE = "import numpy, numba"
TIMEOUT = 120.0


def _import() -> float:
    """Import the package in a new Python; return the seconds of that."""
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
    """Take a checkpoint in a new Python; return the seconds from its start to the commit."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", FIRST_CHECKPOINT, json.dumps(SETTINGS.as_json())],
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


def _two_bare_processes() -> float:
    """Start two Pythons with a node's largest imports; return the seconds until both have ended."""
    begin = time.perf_counter()
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", BARE])) for _ in range(2)
        ]
        for process in processes:
            if process.wait(TIMEOUT):
                raise RemoteError(f"a new Python: expected 0, found {process.returncode}")
    return time.perf_counter() - begin


@subject("start", "import colobench, and a new process's first checkpoint: against two Pythons")
def start(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""

    def importing() -> Measured:
        return Measured(context.compare(_import)[0], note="beyond what Python alone takes")

    def first_checkpoint() -> Measured:
        ours, reference = context.compare(_first_checkpoint, _two_bare_processes)
        note = "64 MiB of RAM, kernels in the cache"
        return Measured(ours, reference, note=note, settings=SETTINGS.as_json())

    yield Case("import colobench", "s", importing, at_most(0.15, "s"))
    words = "first checkpoint, two Pythons that import numpy and numba"
    yield Case(words, "s", first_checkpoint, at_most(3.0))
