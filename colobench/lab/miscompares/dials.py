"""Dials of chance: the settings of the store's nondeterminism, each varied alone."""

from __future__ import annotations

from dataclasses import dataclass

from colobench.fields.checks import check_choice
from colobench.guest.settings import DETERMINISTIC, NondeterminismSettings


@dataclass(frozen=True, slots=True)
class Dial:
    """One setting of the guest's nondeterminism, while the others are 0.

    Attributes
    ----------
    name
        Setting and value.
    nondeterminism
        Settings of the guest.
    asks_time
        Whether some requests are TIME, whose answer is the guest's clock.
    """

    name: str
    nondeterminism: NondeterminismSettings = DETERMINISTIC
    asks_time: bool = False


def _dials(setting: str, unit: str, values: tuple[int, ...], asks_time: bool = False) -> list[Dial]:
    return [
        Dial(
            f"{setting} {value:,} {unit}",
            NondeterminismSettings(**{setting: value}),
            asks_time,
        )
        for value in values
    ]


#: ``pure`` has no source of chance: all settings are 0, and nobody asks for the time.
DIALS = (
    Dial("pure"),
    Dial("clock_us 0: the host's", asks_time=True),
    *_dials("clock_us", "µs", (1_000, 100_000), asks_time=True),
    *_dials("jitter_us", "µs", (100, 1_000, 10_000)),
    *_dials("shuffle", "‰", (1, 10, 100, 1_000)),
)


def dial_of(found: Dial | str) -> Dial:
    """Give a dial itself, or the one of `DIALS` with this name.

    Raises
    ------
    LocalError
        If there is none.
    """
    if isinstance(found, Dial):
        return found
    known = {each.name: each for each in DIALS}
    return known[check_choice("dial", found, list(known))]
