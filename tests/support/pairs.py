"""What tests do with pairs, whichever way their pages travel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from colobench.lab.session.record import Records
from colobench.lab.session.session import Session
from colobench.lab.session.takeover import TakeoverRecord
from colobench.lab.torture.kill_plan import Kill
from colobench.lab.torture.kill_results import summarize
from colobench.lab.torture.run import torture
from colobench.lab.torture.settings import TortureSettings
from colobench.node.kernels import compile_kernels, modules_for


def compile_before(session: Session) -> None:
    """Have a session's kernels in the cache, so that it says nothing of them on standard error."""
    compile_kernels(modules_for(session.settings), lambda step: None)


def run_and_write(pair: Session, checkpoints: int) -> None:
    """Take checkpoints, and let the guest write, so that the next one has pages."""
    pair.run(checkpoints)
    pair.wait_for_ticks(2)


def run_in_a_row(pair: Session, checkpoints: int) -> Records:
    """Take so many checkpoints, and more until the guest has worked before half as many.

    Between two checkpoints that follow each other at once, a guest on a busy machine may not have
    had a tick.
    """
    before = pair.records.total
    pair.run(checkpoints)
    while len({record.guest_work for record in pair.records.since(before)}) <= checkpoints // 2:
        pair.run(1)
    records = pair.records.since(before)
    first = records[0].number
    assert [record.number for record in records] == list(range(first, first + len(records)))
    return records


def assert_survived(pair: Session, takeover: TakeoverRecord, role: str) -> None:
    """Hold a takeover to everything that can be known of it."""
    assert takeover.role == role
    assert takeover.work_after > takeover.work_at_takeover
    if role == "secondary" and pair.settings.checkpoint.variant == "v12":
        assert takeover.equal is True
    assert pair.verify(role)


def copies(pid: int) -> int:
    """Count a process's descriptors of memories for copies."""
    count = 0
    for each in os.listdir(f"/proc/{pid}/fd"):
        # Another descriptor may be closed between the two looks.
        with suppress(FileNotFoundError):
            count += "colobench-ram-copy" in os.readlink(f"/proc/{pid}/fd/{each}")
    return count


def assert_kills_lose_nothing(kills: Sequence[Kill], **changes: Any) -> None:
    """Kill nodes while clients write, and hold the survivors to every answer."""
    summary = summarize(list(torture(kills, TortureSettings(clients=6).override(**changes))))
    assert summary.violations == ()
    assert summary.clean
    assert summary.operations > 0
