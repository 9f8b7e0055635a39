"""Settings of a count of miscompares, and of its pairs."""

from __future__ import annotations

from dataclasses import dataclass

from colobench.fields.kinds import Integer, Number
from colobench.fields.part import Part, setting
from colobench.guest.settings import NondeterminismSettings
from colobench.lab.session.serving import serving_settings
from colobench.settings.settings import Settings

#: Checkpoints by the timer are rare, so that nearly all have a miscompare as their cause.
TIMER_MS = 10_000


@dataclass(frozen=True, slots=True)
class MiscompareSettings(Part):
    """Settings of a count of miscompares."""

    title = "count of miscompares"

    rounds: int = setting(Integer(1, 10_000), 3, "runs of each dial, each with a pair of its own")
    seconds: float = setting(Number(0.1, 1e5), 3.0, "time that clients ask in each run")
    every_ms: int = setting(
        Integer(1, 60_000, "ms"), 10, "time from one set of requests to the next"
    )
    at_once: int = setting(
        Integer(1, 32), 4, "requests at the same moment, on different connections"
    )
    time_every: int = setting(
        Integer(2, 10**6), 25, "requests from one TIME to the next, where clients ask for the time"
    )
    seed: int = setting(Integer(0, 2**63), 1, "seed of the requests")


def pair_settings(nondeterminism: NondeterminismSettings) -> Settings:
    """Give the settings of a pair: the store, output compared, QEMU's present variant."""
    return serving_settings(
        output="compare", delay=TIMER_MS, verify=False, nondeterminism=nondeterminism
    )
