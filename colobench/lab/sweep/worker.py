"""The part of a sweep that a worker of dask runs: one cell at a time, in the worker's process.

Its nodes are children of the worker, and die with it (`colobench.node.parent`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from importlib import metadata

from colobench.errors import ColobenchError
from colobench.lab.compare.measure import measure_cell
from colobench.lab.sweep.cells import SweepCell
from colobench.lab.sweep.results import SweepResult

#: Sweeps that were interrupted: their cells end.
_stopped: set[str] = set()
#: Sweeps of which this worker runs a cell.
_running: list[str] = []
#: Seconds that a cell may take to end, and between two looks whether it has.
_STOP_SECONDS, _LOOK_SECONDS = 20.0, 0.05


class CellStopped(Exception):
    """A cell whose sweep was interrupted."""


def dask_setup(worker: object) -> None:
    """Leave a terminal's Ctrl-C to the process that shows the sweep; dask calls this at the start.

    Parameters
    ----------
    worker
        The worker of dask.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def version() -> str:
    """Give the version of colobench that this worker has."""
    return metadata.version("colobench")


async def stop(sweep: str) -> None:
    """End the cell of a sweep that this worker runs, with all of its processes."""
    _stopped.add(sweep)
    for _ in range(int(_STOP_SECONDS / _LOOK_SECONDS)):
        if sweep not in _running:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def run_cell(sweep: str, text: str) -> str:
    """Measure a cell.

    Parameters
    ----------
    sweep
        Name of the run of a sweep, for `stop`.
    text
        The `SweepCell` as JSON.

    Returns
    -------
    str
        The `SweepResult` as JSON: the measurement, or the error that prevented it.

    Raises
    ------
    CellStopped
        If the sweep was stopped.
    """

    def go_on() -> None:
        if sweep in _stopped:
            raise CellStopped(sweep)

    cell = SweepCell.from_json(text)
    measurement, error = None, None
    _running.append(sweep)
    try:
        go_on()
        measurement = measure_cell(cell.cell, cell.repetition, cell.measurement, watch=go_on)
    except (ColobenchError, OSError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    finally:
        _running.remove(sweep)
    place = f"{socket.gethostname()}:{os.getpid()}"
    return SweepResult.of(cell, measurement, error, place).to_json()
