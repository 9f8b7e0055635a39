"""What colo_compare can be told: the properties of QEMU's object of that name, and its quirks."""

from __future__ import annotations

from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.net.outcome import Quirk


@dataclass(frozen=True, slots=True)
class CompareSettings:
    """How output is compared, see `colobench.net.compare.ColoCompare`.

    Parameters
    ----------
    compare_timeout, expired_scan_cycle
        Milliseconds, as in QEMU.
    max_queue_size
        Frames of a connection and side.
    quirks
        QEMU's ways, by name: `colobench.net.outcome.Quirk`.

    Raises
    ------
    LocalError
        If a number is less than 1, or a quirk has no such name.
    """

    compare_timeout: int = 3000
    expired_scan_cycle: int = 1000
    max_queue_size: int = 1024
    quirks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("compare_timeout", "expired_scan_cycle", "max_queue_size"):
            if getattr(self, name) < 1:
                raise LocalError(f"{name}: expected at least 1, found {getattr(self, name)}")
        for quirk in self.quirks:
            if quirk not in list(Quirk):
                raise LocalError(f"quirk: expected one of {', '.join(Quirk)}, found {quirk!r}")

    def arguments(self) -> list[str]:
        """Give them as options of a command line."""
        arguments = ["--compare-timeout", str(self.compare_timeout)]
        arguments += ["--expired-scan-cycle", str(self.expired_scan_cycle)]
        arguments += ["--max-queue-size", str(self.max_queue_size)]
        for quirk in self.quirks:
            arguments += ["--quirk", quirk]
        return arguments
