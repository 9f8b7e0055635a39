"""The axes of strategies, and the product of all of their values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from colobench.fields.kinds import Choice, Integer
from colobench.fields.part import settings_of
from colobench.settings.checkpoint import Strategy
from colobench.settings.transport import PageTransport
from colobench.strategy.written import TRIGGERS

#: The settings of a strategy that are numbers follow from the others.
AXES = {each.name: each for each in settings_of(Strategy) if not isinstance(each.kind, Integer)}


def values_of_axis(axis: str) -> Sequence[str]:
    """Give the values of an axis, without parameters."""
    if axis == "trigger":
        return list(TRIGGERS)
    if axis == "transport":
        return [each.value for each in PageTransport]
    kind = AXES[axis].kind
    assert isinstance(kind, Choice), axis
    return list(kind.choices)


def product() -> Iterator[dict[str, str]]:
    """Give every combination of values, allowed or not."""
    for values in itertools.product(*map(values_of_axis, AXES)):
        combination = dict(zip(AXES, values, strict=True))
        # That tracker is for other guests than those of these tests.
        if combination["tracker"] != "kvm":
            yield combination
