"""Pause of a checkpoint, against that of two QEMUs on the same machine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from colobench.lab.bench.case import Case, at_most, subject
from colobench.lab.bench.context import BenchContext, thousands
from colobench.lab.bench.measured import Measured, Unavailable
from colobench.lab.bench.subjects.checkpoints import MILLISECONDS, Pair, default_ram
from colobench.peers.qemu_pair import QEMUPair

#: Bounds of the pause divided by QEMU's, with multifd and memfd, by the number of pages.
BOUNDS = {1_000: (0.35, 0.25), 10_000: (0.4, 0.25), 50_000: (0.5, 0.25)}
#: Checkpoints of each half of a measurement.
CHECKPOINTS = 8


def _measure(context: BenchContext, pages: int, transport: str) -> Measured:
    if not context.peers:
        raise Unavailable("other systems are measured with --peers")
    ram_mib = default_ram(context)
    checkpoints = context.size(CHECKPOINTS)
    settings: dict[str, Any] = {}
    ours: list[float] = []
    theirs: list[float] = []
    # One pair at a time, as a running guest disturbs the other: in turn, in two halves.
    for mine_first in (False, True):
        for mine in (mine_first, not mine_first):
            if mine:
                with Pair(context, pages, transport, ram_mib) as pair:
                    settings = pair.session.settings.as_json()
                    ours += [MILLISECONDS * pair.sample() for _ in range(checkpoints)]
            else:
                with QEMUPair(pages=pages, ram_mib=ram_mib) as qemu:
                    theirs += qemu.stop_times(checkpoints=checkpoints)
    return Measured(ours, theirs, settings=settings)


def _measure_received(context: BenchContext, pages: int) -> Measured:
    """Measure a real primary's stop time, by its secondary: ours without a guest, or a QEMU."""
    if not context.peers:
        raise Unavailable("other systems are measured with --peers")
    times: dict[bool, list[float]] = {True: [], False: []}
    for received_first in (False, True):
        for receives in (received_first, not received_first):
            with QEMUPair(pages, default_ram(context), receives=receives) as pair:
                times[receives] += pair.stop_times(context.size(CHECKPOINTS))
    return Measured(times[True], times[False])


@subject("peers", "the pause of a checkpoint: against the stop time of two QEMUs in COLO")
def peers(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""
    for full, bounds in BOUNDS.items():
        pages = context.size(full)
        for transport, bound in zip(("multifd", "memfd"), bounds, strict=True):
            yield Case(
                f"{thousands(pages)} pages, {transport}, QEMU",
                "ms",
                partial(_measure, context, pages, transport),
                at_most(bound),
            )
        yield Case(
            f"{thousands(pages)} pages, QEMU to receive, QEMU",
            "ms",
            partial(_measure_received, context, pages),
            at_most(1.0),
        )
