"""A sweep from its first cell to its last: what is missing goes to workers, and comes back."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from colobench.errors import RemoteError
from colobench.lab.compilation import compile_with_bar
from colobench.lab.sweep import worker
from colobench.lab.sweep.cells import SweepCell
from colobench.lab.sweep.results import SweepDirectory, SweepResult
from colobench.node.kernels import modules_for


def missing_cells(
    cells: Sequence[SweepCell], results: dict[str, SweepResult], *, retry_failed: bool
) -> list[SweepCell]:
    """Give the cells that have no result, or with `retry_failed` no measurement."""
    return [
        cell
        for cell in cells
        if cell.identity not in results
        or (retry_failed and results[cell.identity].measurement is None)
    ]


def compile_for(cells: Sequence[SweepCell]) -> None:
    """Compile the kernels of all cells, so that no worker compiles while another measures."""
    modules = (each for cell in cells for each in modules_for(cell.cell.settings))
    compile_with_bar(tuple(dict.fromkeys(modules)))


def run_cells(
    client: Any,
    cells: Sequence[SweepCell],
    directory: SweepDirectory,
    done: Callable[[SweepResult], None],
) -> None:
    """Have workers run cells; each result is written as soon as it is there.

    A cell whose worker is lost goes to another worker. After several lost workers it has failed.

    Parameters
    ----------
    client
        Client of dask.
    cells
        Cells without a result.
    directory
        Where results are kept.
    done
        Function that is called with each result.

    Raises
    ------
    RemoteError
        If the scheduler is lost.
    """
    from distributed import as_completed

    sweep = uuid.uuid4().hex
    by_key = {f"colobench-{sweep}-{cell.identity}": cell for cell in cells}
    texts = [cell.to_json() for cell in cells]
    futures = client.map(worker.run_cell, [sweep] * len(cells), texts, key=list(by_key), pure=False)
    try:
        for future in as_completed(futures, loop=client.loop, raise_errors=False):
            result = result_of(future, by_key[future.key])
            directory.append(result)
            done(result)
            future.release()
    except BaseException:
        _stop(client, futures, sweep)
        raise


def result_of(future: Any, cell: SweepCell) -> SweepResult:
    """Give the result that a worker sent; or the error, if the cell has lost several workers.

    Raises
    ------
    RemoteError
        If the scheduler is lost.
    """
    if future.status == "finished":
        return SweepResult.from_json(future.result())
    if future.status != "error":
        raise RemoteError(
            f"expected a result of {cell}, found that the scheduler is gone; the same "
            "command goes on"
        )
    failure = future.exception()
    return SweepResult.of(cell, None, f"{type(failure).__name__}: {failure}", "")


def _stop(client: Any, futures: Sequence[Any], sweep: str) -> None:
    """Take back the cells that wait, and end those that run."""
    try:
        client.cancel(list(futures), force=True)
        client.run(worker.stop, sweep, on_error="ignore")
    except Exception:
        # The scheduler is gone, or goes: local workers end with this process.
        return
