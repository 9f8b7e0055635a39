"""Threads beside the COLO thread, for kernels whose work is divided."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

#: Least number of pages for a thread: the hand-over of fewer would take longer than the work.
PAGES_FOR_A_THREAD: Final = 2048


class Workers:
    """Threads that live as long as the node.

    Parameters
    ----------
    threads
        Most threads that work at once, including the caller's.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "worker") if threads > 1 else None
        if self._pool is not None:
            # Start all threads now: later there may be no more threads.
            started = threading.Barrier(threads)
            for _ in range(threads - 1):
                self._pool.submit(started.wait)
            started.wait()

    def run(self, jobs: Sequence[Callable[[], int]]) -> list[int]:
        """Run all jobs, the first one in this thread, and wait for their end.

        Returns
        -------
        list of int
            Result of each job.

        Raises
        ------
        BaseException
            Exception of the first job that failed.
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
