"""Description of the machine that measurements were made on."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

_COPY_BYTES = 256 * 1024 * 1024
_PROGRAM_TIMEOUT = 15.0
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")


class Cores:
    """Measure of the cores that the machine gives: two threads' memcpy against one thread's.

    A virtual core need not be there all the time, so measurements that need two are compared only
    beside this one. The buffers are touched once, at the beginning.

    Parameters
    ----------
    copy_bytes
        Bytes to copy; more than the caches hold.
    """

    def __init__(self, copy_bytes: int = _COPY_BYTES) -> None:
        self._source = np.ones(copy_bytes, dtype=np.uint8)
        self._target = np.ones(copy_bytes, dtype=np.uint8)
        self._halves = (slice(None, copy_bytes // 2), slice(copy_bytes // 2, None))
        self._threads = ThreadPoolExecutor(2)

    def _copy(self, part: slice) -> None:
        np.copyto(self._target[part], self._source[part])

    def _rate(self, work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        return self._source.nbytes / (time.perf_counter() - begin) / 1e9

    def one_thread(self) -> float:
        """Copy with one thread; the rate in GB/s (10⁹ bytes a second)."""
        return self._rate(lambda: self._copy(slice(None)))

    def two_threads(self) -> float:
        """Copy with two threads, a half each; the rate in GB/s."""
        return self._rate(lambda: list(self._threads.map(self._copy, self._halves)))

    def sample(self) -> float:
        """Measure the rate of two threads, divided by that of one thread."""
        return self.two_threads() / self.one_thread()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()


def memcpy_rates(repetitions: int = 5) -> tuple[float, float]:
    """Copy 256 MiB with one thread and with two in turn; the median rates in GB/s."""
    cores = Cores()
    try:
        rates = [(cores.one_thread(), cores.two_threads()) for _ in range(repetitions)]
    finally:
        cores.close()
    one, two = (statistics.median(each) for each in zip(*rates, strict=True))
    return one, two


def processor_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def describe_machine() -> dict[str, Any]:
    """Name processor, cores, kernel and Python, and measure the rate of memcpy."""
    return name_machine() | {"memcpy_gb_per_s": round(memcpy_rates()[0], 1)}


def name_machine() -> dict[str, Any]:
    """Name processor, cores, kernel and Python."""
    return {
        "processor": processor_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def describe_everything(*, qemu: bool = False) -> dict[str, Any]:
    """Describe everything that a measurement may depend on, `describe_machine` included.

    Parameters
    ----------
    qemu
        Whether to name QEMU's version, too.

    Returns
    -------
    dict
        Caches, memory (bytes), versions, the state of transparent huge pages, memcpy with one and
        with two threads (GB/s), their ratio, the date, and the commit of this clone; None for one
        that is not available.
    """
    import llvmlite.binding
    import numba
    import psutil

    one, two = memcpy_rates()
    return {
        **name_machine(),
        "caches": _caches(),
        "memory_bytes": psutil.virtual_memory().total,
        "numba": numba.__version__,
        "llvm": ".".join(map(str, llvmlite.binding.llvm_version_info)),
        "numpy": np.__version__,
        "compiler": _first_line(os.environ.get("CC", "cc"), "--version"),
        "qemu": _first_line("qemu-system-x86_64", "--version") if qemu else None,
        "huge_pages": _chosen(_HUGE_PAGES / "enabled"),
        "shared_memory_huge_pages": _chosen(_HUGE_PAGES / "shmem_enabled"),
        "memcpy_gb_per_s": round(one, 2),
        "memcpy_two_threads_gb_per_s": round(two, 2),
        "memcpy_two_threads_ratio": round(two / one, 2),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def _caches() -> dict[str, str]:
    """Give the sizes of the first CPU's caches, such as ``{"L1 Data": "32K", "L2 Unified": …}``."""
    return {
        f"L{(cache / 'level').read_text().strip()} {(cache / 'type').read_text().strip()}": (
            (cache / "size").read_text().strip()
        )
        for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
        if (cache / "size").is_file()
    }


def _chosen(setting: Path) -> str | None:
    """Read which of several words in a file is the one in brackets."""
    if not setting.is_file():
        return None
    return setting.read_text().partition("[")[2].partition("]")[0]


def _first_line(*command: str) -> str | None:
    """Return the first line that a program prints; None if it is missing or fails."""
    path = shutil.which(command[0])
    if path is None:
        return None
    finished = subprocess.run(
        [path, *command[1:]],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=_PROGRAM_TIMEOUT,
    )
    return None if finished.returncode else next(iter(finished.stdout.splitlines()), None)


def _commit() -> str | None:
    """Give the commit of the clone that this file is in, with ``-dirty`` if files were changed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    return _first_line("git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty")
