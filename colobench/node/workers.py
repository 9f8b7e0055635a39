"""Threads beside the COLO thread, for kernels that have their work divided."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

#: Fewer pages than this are not worth a thread: it would come too late.
PAGES_FOR_A_THREAD: Final = 2048


class Workers:
    """A few threads that live as long as the node.

    Parameters
    ----------
    threads
        How many at most work at once, the caller's among them.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "worker") if threads > 1 else None
        if self._pool is not None:
            # Each now, not when it is wanted: there may be no more threads to be had then.
            started = threading.Barrier(threads)
            for _ in range(threads - 1):
                self._pool.submit(started.wait)
            started.wait()

    def run(self, jobs: Sequence[Callable[[], int]]) -> list[int]:
        """Do all jobs, the first one in this thread; when it returns, none runs any more.

        Returns
        -------
        list of int
            What each returned.

        Raises
        ------
        BaseException
            What the first job that failed has raised.
        """
        pool = self._pool
        if len(jobs) == 1:
            return [jobs[0]()]
        if pool is None:
            return [job() for job in jobs]
        others: list[Future[int]] = []
        try:
            others += (pool.submit(job) for job in jobs[1:])
            first = jobs[0]()
        finally:
            wait(others)
        return [first, *(other.result() for other in others)]

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
