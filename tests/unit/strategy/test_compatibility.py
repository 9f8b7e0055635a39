"""The compatibility matrix: each line names values that there are, and refuses what it says."""

from __future__ import annotations

import pytest

from colobench.errors import LocalError
from colobench.fields.kinds import Choice
from colobench.fields.part import settings_of
from colobench.settings.checkpoint import Strategy
from colobench.settings.transport import PageTransport
from colobench.strategy.compatibility import REQUIREMENTS, Requirement, check_compatible
from colobench.strategy.written import TRIGGERS

AXES = {each.name: each for each in settings_of(Strategy)}


def known_values(axis: str) -> set[str]:
    kind = AXES[axis].kind
    if isinstance(kind, Choice):
        return set(kind.choices)
    if axis == "trigger":
        return set(TRIGGERS)
    assert axis == "transport"
    return {each.value for each in PageTransport}


@pytest.mark.parametrize("each", REQUIREMENTS, ids=str)
def test_a_requirement_names_axes_and_values_that_there_are(each: Requirement) -> None:
    assert each.value in known_values(each.axis)
    assert set(each.accepted) < known_values(each.other)


@pytest.mark.parametrize("each", REQUIREMENTS, ids=str)
def test_what_does_not_meet_a_requirement_is_refused_by_both_names_and_the_reason(
    each: Requirement,
) -> None:
    for found in known_values(each.other) - set(each.accepted):
        with pytest.raises(LocalError) as caught:
            check_compatible({each.axis: each.value, each.other: found})
        words = str(caught.value)
        assert words.startswith(f"{each.axis} {each.value}: expected {each.other} ")
        assert words.endswith(f"{each.reason}, found {found}")
    for accepted in each.accepted:
        check_compatible({each.axis: each.value, each.other: accepted})
