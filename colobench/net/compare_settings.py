"""Settings of colo-compare: the properties of QEMU's object of that name, and quirks."""

from __future__ import annotations

from dataclasses import dataclass

from colobench.guest.checks import check_choice, check_integer, check_texts
from colobench.net.outcome import Quirk

#: QEMU's properties are unsigned numbers of 32 bits.
LIMIT = 2**32 - 1


@dataclass(frozen=True, slots=True)
class CompareSettings:
    """Settings of `colobench.net.compare.ColoCompare`.

    Parameters
    ----------
    compare_timeout
        Milliseconds that a frame may wait before a checkpoint is requested.
    expired_scan_cycle
        Milliseconds between scans for such frames.
    max_queue_size
        Frames that may wait in one connection on one side.
    quirks
        Names of QEMU's quirks to imitate, see `colobench.net.outcome.Quirk`.

    Raises
    ------
    LocalError
        If a number is out of range, or the name of a quirk is unknown.
    """

    compare_timeout: int = 3000
    expired_scan_cycle: int = 1000
    max_queue_size: int = 1024
    quirks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("compare_timeout", "expired_scan_cycle", "max_queue_size"):
            check_integer(name, getattr(self, name), 1)
            check_integer(name, getattr(self, name), 1, LIMIT)
        object.__setattr__(self, "quirks", tuple(check_texts("quirks", self.quirks)))
        for quirk in self.quirks:
            check_choice("quirk", quirk, list(Quirk))

    def arguments(self) -> list[str]:
        """Return the settings as options of a command line."""
        arguments = ["--compare-timeout", str(self.compare_timeout)]
        arguments += ["--expired-scan-cycle", str(self.expired_scan_cycle)]
        arguments += ["--max-queue-size", str(self.max_queue_size)]
        for quirk in self.quirks:
            arguments += ["--quirk", quirk]
        return arguments
