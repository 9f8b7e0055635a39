"""The machine that figures were measured on, as reports state it beside them."""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

_COPY_BYTES = 256 * 1024 * 1024


def memcpy_rate(repetitions: int = 5) -> float:
    """Copy 256 MiB with one thread, and give the median rate in GB/s (10⁹ bytes a second)."""
    source = np.ones(_COPY_BYTES, dtype=np.uint8)
    target = np.ones(_COPY_BYTES, dtype=np.uint8)
    rates = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        np.copyto(target, source)
        rates.append(_COPY_BYTES / (time.perf_counter() - begin) / 1e9)
    return statistics.median(rates)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def describe_machine() -> dict[str, Any]:
    """Name processor, cores, kernel and Python, and measure the rate of memcpy."""
    return {
        "processor": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "memcpy_gb_per_s": round(memcpy_rate(), 1),
    }
