"""Metrics of a comparison: the name, the unit and the better direction of each, declared once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that each measurement has, or has not.

    Attributes
    ----------
    name
        Name among the figures of a measurement, with the unit of its value.
    heading
        Name in tables.
    unit, factor
        Unit in tables, and the factor from the value to it.
    more_is_better
        Whether a larger value is better.
    superlative
        Adjective with which a sentence names the best.
    """

    name: str
    heading: str
    unit: str
    superlative: str
    factor: float = 1.0
    more_is_better: bool = False

    def show(self, value: float | None) -> str:
        """Write a value in the unit of tables."""
        return "–" if value is None else f"{digits(value * self.factor)} {self.unit}"


def digits(value: float) -> str:
    """Write a number with three digits, or all digits in front of the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"


PAUSE = Metric("pause_p50_ms", "pause, p50", "ms", "shortest")
DEGRADATION = Metric("degradation", "degradation", "%", "smallest", factor=100)
LATENCY = Metric("latency_p50_ms", "output latency, p50", "ms", "shortest")
COMMIT_LAG = Metric("commit_lag_p50_ms", "commit lag, p50", "ms", "shortest")
COMMIT_AGE = Metric("commit_age_mean_ms", "age of the newest commit, mean", "ms", "lowest")
BYTES = Metric("bytes_per_s", "traffic", "MB/s", "smallest", factor=1e-6)
CHECKPOINTS = Metric("checkpoints_per_s", "checkpoints", "/s", "highest", more_is_better=True)
PRIMARY_MEMORY = Metric(
    "primary_memory_bytes", "extra memory, primary (PSS)", "MiB", "smallest", factor=2**-20
)
SECONDARY_MEMORY = Metric(
    "secondary_memory_bytes", "extra memory, secondary (PSS)", "MiB", "smallest", factor=2**-20
)
#: No metric of a strategy: the link's own rate, where it had enough to send.
HELD_RATE = Metric("held_rate", "link rate held", "Gbit/s", "highest", factor=1e-9)

METRICS = (
    PAUSE,
    Metric("pause_p99_ms", "pause, p99", "ms", "shortest"),
    DEGRADATION,
    LATENCY,
    Metric("latency_p99_ms", "output latency, p99", "ms", "shortest"),
    BYTES,
    CHECKPOINTS,
    COMMIT_LAG,
    COMMIT_AGE,
    Metric("commit_age_p99_ms", "age of the newest commit, p99", "ms", "lowest"),
    PRIMARY_MEMORY,
    SECONDARY_MEMORY,
    Metric("takeover_ms", "takeover", "ms", "quickest"),
    # None without a disk.
    Metric("disk_bytes_per_s", "disk writes", "MB/s", "highest", factor=1e-6, more_is_better=True),
    Metric("disk_write_p50_ms", "disk write, p50", "ms", "shortest"),
    Metric("disk_wait_ms_per_s", "wait of disk writes for a full journal", "ms/s", "shortest"),
)
