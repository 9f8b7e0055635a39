"""Samples of one case, and the reason where a case cannot be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from colobench.errors import LocalError


class Unavailable(LocalError):
    """Something that a case needs is not there: a compiler, a package, memory, a CPU's feature."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a case found, a sample for each round.

    Attributes
    ----------
    ours, reference
        In the case's unit; a case without a reference has none.
    two_threads
        How many times as fast as one thread two of them copied memory, in the same rounds; empty
        where a second core makes no difference.
    note
        What else one should know.
    """

    ours: Sequence[float]
    reference: Sequence[float] = ()
    two_threads: Sequence[float] = ()
    note: str = ""
