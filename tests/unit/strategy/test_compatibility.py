"""The compatibility matrix: each line names values that there are, and refuses what it says."""

from __future__ import annotations

import pytest

from axes import product, values_of_axis
from colobench.errors import LocalError
from colobench.settings.checkpoint import Strategy
from colobench.strategy.compatibility import REQUIREMENTS, Requirement, check_compatible, refusals
from share import some


@pytest.mark.parametrize("each", REQUIREMENTS, ids=str)
def test_a_requirement_names_axes_and_values_that_there_are(each: Requirement) -> None:
    assert each.value in values_of_axis(each.axis)
    assert set(each.accepted) < set(values_of_axis(each.other))


@pytest.mark.parametrize("each", REQUIREMENTS, ids=str)
def test_what_does_not_meet_a_requirement_is_refused_by_both_names_and_the_reason(
    each: Requirement,
) -> None:
    for found in set(values_of_axis(each.other)) - set(each.accepted):
        with pytest.raises(LocalError) as caught:
            check_compatible({each.axis: each.value, each.other: found})
        words = str(caught.value)
        assert words.startswith(f"{each.axis} {each.value}: expected {each.other} ")
        assert words.endswith(f"{each.reason}, found {found}")
    for accepted in each.accepted:
        check_compatible({each.axis: each.value, each.other: accepted})


def test_every_combination_of_axes_is_settings_or_refused_by_both_names() -> None:
    combinations = list(product())
    allowed = [values for values in combinations if not any(refusals(values))]
    refused = [values for values in combinations if any(refusals(values))]
    assert len(allowed) > 100
    assert len(refused) > len(allowed)
    for values in some(allowed, 300):
        written = Strategy().override(**values).as_json()
        assert Strategy.from_json(written).as_json() == written
    for values in some(refused, 300):
        with pytest.raises(LocalError) as caught:
            Strategy().override(**values)
        assert str(caught.value) == next(refusals(values))
