"""Samples of one case, and the reason where a case cannot be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colobench.errors import LocalError


class Unavailable(LocalError):
    """Something that a case needs is missing: a compiler, a package, memory, a CPU's feature."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Samples of a case, one for each round.

    Attributes
    ----------
    ours, reference
        In the case's unit; a case without a reference has none.
    two_threads
        Rate of memcpy on two threads over that on one, in the same rounds; empty where a second
        core makes no difference.
    note
        Remark about the samples.
    settings
        Settings of the session that was measured, as JSON has them; None if there was none.
    """

    ours: Sequence[float]
    reference: Sequence[float] = ()
    two_threads: Sequence[float] = ()
    note: str = ""
    settings: Mapping[str, Any] | None = None
