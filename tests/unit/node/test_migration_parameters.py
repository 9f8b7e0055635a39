"""Parameters of checkpoints that a monitor's client sets: what settings refuse is refused here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from colobench.errors import LocalError
from colobench.node.migration_parameters import MigrationParameters
from colobench.node.trigger import CheckpointTrigger
from colobench.settings.checkpoint import CheckpointSettings


@pytest.fixture
def trigger() -> Iterator[CheckpointTrigger]:
    with closing(CheckpointTrigger(lambda: 0, lambda: 0)) as made:
        yield made


def set_parameters(trigger: CheckpointTrigger, output: str, **parameters: str) -> None:
    settings = CheckpointSettings().override(output=output)
    table = MigrationParameters(settings, trigger, lambda: None).table()
    table["migrate-set-parameters"].call(
        {name.replace("_", "-"): value for name, value in parameters.items()}
    )


@pytest.mark.parametrize(
    ("name", "output"),
    [("miscompare", "compare"), ("hybrid", "compare"), ("output", "buffer"), ("price", "buffer")],
)
def test_a_trigger_that_does_not_go_with_the_output_is_refused(name, output, trigger):
    before = trigger.text
    other = "buffer" if output == "compare" else "compare"
    with pytest.raises(LocalError, match=f"trigger {name}: expected output {output}"):
        set_parameters(trigger, other, x_trigger=name)
    assert trigger.text == before
    set_parameters(trigger, output, x_trigger=name)
    assert trigger.text.startswith(name)


def test_a_source_without_its_trigger_is_refused(trigger):
    with pytest.raises(LocalError, match="x-trigger-source: expected an x-trigger beside it"):
        set_parameters(trigger, "buffer", x_trigger_source="/trigger.py")
