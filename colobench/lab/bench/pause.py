"""Profile of a checkpoint's pause: its steps on both sides, in microseconds, and their floors.

Both nodes mark the ends of their phases on one clock. In their order the marks are one line of
time, and the pause is cut at them: each step is the time between two neighbours, so that the steps
of a checkpoint add up to its pause. A message counts from before it is sent until it is parsed,
with the wake-up of the node that waits for it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from colobench.lab.bench.context import PAGE_SIZE, BenchContext, thousands
from colobench.lab.bench.subjects.checkpoints import Pair
from colobench.lab.percentiles import percentiles
from colobench.lab.session.record import CheckpointRecord
from colobench.text_table import align

TRANSPORTS = ("stream", "multifd", "memfd")
PAGES = (0, 1_000, 10_000)
CHECKPOINTS = 200
PINGS = 2_000
COPIES = 21
PRIMARY, SECONDARY, BOTH = "primary", "secondary", "both"
WORK, MESSAGE, HANDOVER = "work", "message", "hand-over"
#: Program that answers each byte with a byte, like a node that is blocked in recv.
_ECHO = """
import socket, sys
peer = socket.socket(fileno=int(sys.argv[1]))
while data := peer.recv(64):
    peer.send(data)
"""


@dataclass(frozen=True, slots=True)
class PauseStep:
    """A step of a checkpoint, and its duration.

    Attributes
    ----------
    name
        Name of the step.
    side
        ``primary``, ``secondary``, or ``both`` for a message.
    kind
        ``work``; ``message``, which is sending, the wake-up of the other process, and parsing; or
        ``hand-over``, which is work and the wake-up of another thread.
    paused
        Whether the guest stands still meanwhile.
    mean, median, p90
        Microseconds. The means of the steps of the pause add up to the mean pause.
    floor
        Microseconds that the same work takes without a node, measured in the same run; or None.
    """

    name: str
    side: str
    kind: str
    paused: bool
    mean: float
    median: float
    p90: float
    floor: float | None


@dataclass(frozen=True, slots=True)
class Profile:
    """Steps of checkpoints with the same transport and the same number of pages.

    Attributes
    ----------
    transport, pages, checkpoints
        Transport, pages of each checkpoint, and number of checkpoints.
    steps
        Steps in their order.
    pause
        Whole pause, as a step.
    settings
        Settings of the session, whole, as JSON has them.
    """

    transport: str
    pages: int
    checkpoints: int
    steps: tuple[PauseStep, ...]
    pause: PauseStep
    settings: Mapping[str, Any]


#: Name, side and kind of each step, whether the guest stands still, and which floor it has.
_STEPS = (
    ("request", BOTH, MESSAGE, False, "message"),
    ("agree", SECONDARY, WORK, False, None),
    ("reply", BOTH, MESSAGE, False, "message"),
    ("disks come to rest", BOTH, WORK, False, None),
    ("guest stops", PRIMARY, HANDOVER, True, None),
    ("list of dirty pages", PRIMARY, WORK, True, None),
    ("pages sent", PRIMARY, WORK, True, "copy"),
    ("devices saved", PRIMARY, WORK, True, None),
    ("size and devices sent", PRIMARY, WORK, True, None),
    ("pages received", SECONDARY, MESSAGE, True, None),
    ("size and devices received", SECONDARY, WORK, True, None),
    ("commit, RECEIVED sent", SECONDARY, WORK, True, None),
    ("flush", SECONDARY, WORK, True, "copy"),
    ("load", SECONDARY, WORK, True, None),
    ("loaded, bookkeeping", SECONDARY, WORK, True, None),
    ("LOADED", BOTH, MESSAGE, True, "message"),
    ("guest runs", PRIMARY, HANDOVER, True, None),
)


def steps_of(record: CheckpointRecord) -> dict[str, float]:
    """Cut a checkpoint into the steps of `_STEPS`; return the microseconds of each.

    Work of the secondary before the primary had sent everything overlaps with the primary's
    steps, and is counted there.
    """
    here, there = record.primary_marks, dict(record.secondary_marks)
    found = dict.fromkeys((step[0] for step in _STEPS), 0.0)
    names = {
        "stop": "guest stops",
        "collect": "list of dirty pages",
        "ram": "pages sent",
        "verify": "devices saved",
    }
    sent = here[0][1]
    saved = False
    for (_, begun), (phase, ended) in itertools.pairwise(here):
        if phase == "received":
            break
        if phase == "request" and begun > here[0][1]:
            found["disks come to rest"] = (ended - begun) / 1e3
        elif phase == "request":
            found["request"] = (there["begin"] - begun) / 1e3
            found["agree"] = (there["reply"] - there["begin"]) / 1e3
            found["reply"] = (ended - there["reply"]) / 1e3
        elif phase == "devices":
            found["size and devices sent" if saved else "devices saved"] += (ended - begun) / 1e3
            saved = True
        else:
            found[names[phase]] += (ended - begun) / 1e3
        sent = ended
    ends = dict(here)
    last = sent
    for name, end in (
        ("pages received", there.get("ram", sent)),
        ("size and devices received", there["commit"]),
        ("commit, RECEIVED sent", there["received"]),
        ("flush", there["flush"]),
        ("load", there["load"]),
        ("loaded, bookkeeping", there["loaded"]),
        ("LOADED", ends["loaded"]),
        ("guest runs", ends["resume"]),
    ):
        now = max(last, end)
        found[name] += (now - last) / 1e3
        last = now
    return found


def profile(
    context: BenchContext,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    transports: Sequence[str] = TRANSPORTS,
) -> Iterator[Profile]:
    """Take checkpoints with each transport, of `PAGES` each, and give their profiles.

    Parameters
    ----------
    context
        Memory and references for the floors.
    progress
        Function that is called before each profile with its name, the number done, and the total.
    transports
        Transports to measure.
    """
    plan = [(transport, full) for transport in transports for full in PAGES]
    for done, (transport, full) in enumerate(plan):
        pages = context.size(full) if full else 0
        progress(f"pause: {thousands(pages)} pages, {transport}", done, len(plan))
        floors = {"message": _one_way(context), "copy": _copy(context, pages)}
        yield _profile(context, transport, pages, floors)
        context.release()


def _profile(
    context: BenchContext, transport: str, pages: int, floors: Mapping[str, float | None]
) -> Profile:
    count = context.size(CHECKPOINTS, 5)
    with Pair(context, pages, transport) as pair:
        records = [pair.record() for _ in range(count)]
        settings = pair.session.settings.as_json()
    cut = [steps_of(record) for record in records]
    steps = tuple(
        _step(name, side, kind, paused, [each[name] for each in cut], floors.get(str(floor)))
        for name, side, kind, paused, floor in _STEPS
    )
    pauses = [sum(each[step.name] for step in steps if step.paused) for each in cut]
    pause = _step("pause", BOTH, "", True, pauses, None)
    return Profile(transport, pages, count, steps, pause, settings)


def _step(
    name: str, side: str, kind: str, paused: bool, samples: Sequence[float], floor: float | None
) -> PauseStep:
    median, p90 = percentiles(samples, (50, 90), without=math.nan)
    return PauseStep(name, side, kind, paused, statistics.fmean(samples), median, p90, floor)


def _one_way(context: BenchContext) -> float:
    """Measure half a ping between two processes over a UNIX socket: microseconds, median."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        number = theirs.fileno()
        command = [sys.executable, "-S", "-c", _ECHO, str(number)]
        with subprocess.Popen(command, pass_fds=[number]):
            theirs.close()
            try:
                samples = []
                for _ in range(context.size(PINGS, 20)):
                    begin = time.perf_counter_ns()
                    ours.send(b"\0")
                    if not ours.recv(64):
                        break
                    samples.append(time.perf_counter_ns() - begin)
            finally:
                ours.close()
    return statistics.median(samples) / 2e3


def _copy(context: BenchContext, pages: int) -> float | None:
    """Measure NumPy's copy of pages: microseconds, median; None without pages."""
    if not pages:
        return None
    source, target = (context.memory(name, pages * PAGE_SIZE).array for name in ("pages", "copies"))
    samples = []
    for _ in range(context.size(COPIES, 3)):
        begin = time.perf_counter_ns()
        np.copyto(target, source)
        samples.append(time.perf_counter_ns() - begin)
    return statistics.median(samples) / 1e3


def as_json(machine: Mapping[str, Any], profiles: Sequence[Profile]) -> dict[str, Any]:
    """Put the profiles into one JSON object: ``machine``, and ``profiles``."""
    return {"machine": dict(machine), "profiles": [asdict(each) for each in profiles]}


_HEADINGS = ("step", "side", "kind", "median", "p90", "mean", "floor")


def render(profiles: Sequence[Profile]) -> str:
    """Write the profiles as aligned tables of plain text."""
    return "\n\n".join("\n".join(_lines(each)) for each in profiles)


def _lines(profile: Profile) -> Iterator[str]:
    yield (
        f"{profile.transport}, {thousands(profile.pages)} pages, "
        f"{profile.checkpoints} checkpoints: microseconds"
    )
    rows: list[tuple[str, ...]] = [_HEADINGS]
    rows += [_cells(step) for step in profile.steps if not step.paused]
    before = len(rows)
    rows += [_cells(step) for step in profile.steps if step.paused]
    rows.append(_cells(profile.pause))
    for kind in (WORK, MESSAGE, HANDOVER):
        mean = sum(step.mean for step in profile.steps if step.paused and step.kind == kind)
        rows.append((f"of that {kind}", "", "", "", "", f"{mean:.1f}", ""))
    lines = align(rows, right=range(3, len(_HEADINGS)))
    lines.insert(before, "the guest stands still:")
    yield from (f"  {line}" for line in lines)


def _cells(step: PauseStep) -> tuple[str, ...]:
    floor = "" if step.floor is None else f"{step.floor:.1f}"
    numbers = (f"{value:.1f}" for value in (step.median, step.p90, step.mean))
    return (step.name, step.side, step.kind, *numbers, floor)
