"""Monitor's commands for the parameters of a primary's checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import check_integer
from colobench.node.monitor import MonitorCommand
from colobench.node.own_trigger import OwnTriggerRunner, run_own_trigger
from colobench.node.trigger import CheckpointTrigger
from colobench.settings.checkpoint import CheckpointSettings, Output, check_lead
from colobench.strategy.compatibility import check_compatible
from colobench.strategy.trigger import NEVER_MS, Trigger
from colobench.strategy.triggers import usual_trigger
from colobench.strategy.written import parse_trigger


class MigrationParameters:
    """Commands that set and return the parameters of checkpoints.

    Parameters
    ----------
    settings, trigger
        Settings of checkpoints, and the trigger that the commands replace.
    changed
        Function that is called when the trigger is another one.

    Attributes
    ----------
    report_pages
        Whether records have the pages that were sent.
    """

    def __init__(
        self,
        settings: CheckpointSettings,
        trigger: CheckpointTrigger,
        changed: Callable[[], None],
    ) -> None:
        self._settings, self._trigger, self._changed = settings, trigger, changed
        self.report_pages = False

    def table(self) -> dict[str, MonitorCommand]:
        """Give the commands by name."""
        return {
            "migrate-set-parameters": MonitorCommand(
                self._set,
                optional={
                    "x-checkpoint-delay": int,
                    "x-trigger": str,
                    "x-trigger-source": str,
                    "x-report-pages": bool,
                },
            ),
            "query-migrate-parameters": MonitorCommand(self._query),
        }

    def _query(self) -> dict[str, Any]:
        return {
            "x-checkpoint-delay": self._trigger.delay_ms,
            "x-trigger": self._trigger.text,
            "x-report-pages": self.report_pages,
        }

    def _set(
        self,
        x_checkpoint_delay: int | None = None,
        x_trigger: str | None = None,
        x_trigger_source: str | None = None,
        x_report_pages: bool | None = None,
    ) -> None:
        if x_checkpoint_delay is not None and x_trigger is not None:
            raise LocalError("x-trigger: expected no x-checkpoint-delay beside it, found both")
        if x_trigger is None and x_trigger_source is not None:
            raise LocalError("x-trigger-source: expected an x-trigger beside it, found none")
        if x_trigger is not None and x_trigger_source is not None:
            self._set_trigger(run_own_trigger(x_trigger, x_trigger_source))
        elif x_trigger is not None:
            trigger = parse_trigger(x_trigger)
            output, variant = self._settings.output.value, self._settings.variant
            check_compatible({"trigger": trigger.kind, "output": output, "variant": variant})
            check_lead(trigger, self._settings.stall_timeout)
            self._set_trigger(trigger)
        if x_checkpoint_delay is not None:
            check_integer("x-checkpoint-delay", x_checkpoint_delay, 0, NEVER_MS, unit="ms")
            compares = self._settings.output is Output.COMPARE
            self._set_trigger(usual_trigger(x_checkpoint_delay, compares))
        if x_report_pages is not None:
            self.report_pages = x_report_pages

    def _set_trigger(self, trigger: Trigger | OwnTriggerRunner) -> None:
        self._trigger.set(trigger)
        self._changed()
