"""Workers of a sweep: a local cluster of dask, or the workers of a scheduler that runs."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from colobench.errors import LocalError, RemoteError
from colobench.lab.sweep import worker

#: Settings of dask that keep its own work off a machine that is measured, and the environment of
#: the nodes as it is.
_CONFIGURATION = {
    "distributed.worker.profile.enabled": False,
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.worker.multiprocessing-method": "spawn",
}
#: Seconds to wait for a scheduler, and for a first worker.
_TIMEOUT = 30


def require_dask() -> None:
    """Refuse, with LocalError, to sweep without dask or pyarrow."""
    for name in ("distributed", "pyarrow"):
        if find_spec(name) is None:
            raise LocalError(
                f"a sweep needs {name}, which is not installed: pip install 'colobench[sweep]'"
            )


def usual_workers() -> int:
    """Give the number of local workers: one for each two cores, as each has two nodes."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


@contextmanager
def local_client(workers: int, directory: Path) -> Iterator[Any]:
    """Start workers on this machine, which end with this process.

    Parameters
    ----------
    workers
        Number of processes, each of which runs one cell at a time.
    directory
        Directory for files of dask, which is removed.

    Yields
    ------
    distributed.Client
        The client.
    """
    import dask
    from distributed import Client, LocalCluster

    try:
        with (
            dask.config.set({**_CONFIGURATION, "temporary-directory": str(directory)}),
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=None,
                memory_limit=None,
                silence_logs=logging.CRITICAL,
                preload=[worker.__name__],
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
    finally:
        remove_workers(directory)


@contextmanager
def remote_client(scheduler: str) -> Iterator[Any]:
    """Connect to a scheduler, and check its workers.

    Parameters
    ----------
    scheduler
        Address, such as ``tcp://host:8786``.

    Yields
    ------
    distributed.Client
        The client.

    Raises
    ------
    RemoteError
        If there is no scheduler, or no worker.
    LocalError
        If a worker has another version of colobench, or runs several cells at a time.
    """
    from distributed import Client

    try:
        client = Client(scheduler, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RemoteError(f"expected a scheduler of dask at {scheduler}: {error}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_TIMEOUT)
        except TimeoutError as error:
            raise RemoteError(
                f"expected a worker at {scheduler} within {_TIMEOUT} s, found none"
            ) from error
        _check_workers(client)
        yield client


def remove_workers(directory: Path) -> None:
    """Remove the directory of local workers, which a sweep that was killed leaves, too.

    Those of this process have ended then, since one that starts late writes there.

    Parameters
    ----------
    directory
        The directory; it need not be there.
    """
    deadline = time.monotonic() + _TIMEOUT
    for started in multiprocessing.active_children():
        started.join(max(0.0, deadline - time.monotonic()))
    shutil.rmtree(directory, ignore_errors=True)
    while directory.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
        shutil.rmtree(directory, ignore_errors=True)


def _check_workers(client: Any) -> None:
    for address, threads in client.nthreads().items():
        if threads != 1:
            raise LocalError(
                f"expected workers with one thread (dask worker --nthreads 1), as pairs "
                f"side by side disturb each other, found {threads} threads at {address}"
            )
    own = worker.version()
    try:
        versions = client.run(worker.version)
    except Exception as error:
        raise LocalError(f"expected colobench {own} at each worker, found: {error}") from error
    for address, version in versions.items():
        if version != own:
            raise LocalError(
                f"expected colobench {own} at each worker, found {version} at {address}"
            )
