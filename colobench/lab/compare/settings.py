"""Settings of a comparison: those of its pairs, and how long each is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from colobench.fields.kinds import Flag, Integer, Number
from colobench.fields.part import Part, part, setting
from colobench.settings.settings import Settings

#: Digests lengthen the pause, which is measured.
USUAL_PAIR = Settings().override(verify=False)


@dataclass(frozen=True, slots=True)
class ComparisonSettings(Part):
    """Settings that all measurements of a comparison have in common.

    Attributes
    ----------
    pair
        Settings of the pairs, where strategy, guest and link say nothing else.
    """

    title = "comparison"

    rounds: int = setting(Integer(1, 10_000), 5, "measurements of each strategy")
    seconds: float = setting(Number(0.1, 1e5), 1.5, "time that a protected guest is measured")
    unprotected_seconds: float = setting(
        Number(0.1, 1e5), 0.5, "time that its guest is measured before, without a secondary"
    )
    every_ms: int = setting(
        Integer(1, 60_000, "ms"), 5, "time from one request to the next, to a guest that serves"
    )
    models: bool = setting(
        Flag(), True, "predict the figures of each strategy, from a calibration in each round"
    )
    pair: Settings = part(Settings, default=USUAL_PAIR)

    def of_measurement(self) -> dict[str, Any]:
        """Give the settings, besides the pair's, that results must share to be compared."""
        others = {"rounds", "models", *self.pair.values()}
        return {name: each for name, each in self.as_json().items() if name not in others}
