"""How long a peer may be silent where the protocol wants a word."""

from __future__ import annotations

from colobench.guest.checks import check_number

#: Seconds. Less than a microsecond would be no limit to the kernel.
STALL_TIMEOUT_MIN, STALL_TIMEOUT_MAX = 0.001, 1e6


def check_stall_timeout(seconds: float) -> None:
    """Refuse, with LocalError, seconds that are no stall timeout."""
    check_number("stall_timeout", seconds, STALL_TIMEOUT_MIN, STALL_TIMEOUT_MAX, unit="s")
