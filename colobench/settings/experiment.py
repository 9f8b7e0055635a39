"""Settings of an experiment: kept bytes and records, a spare secondary, planted bugs."""

from __future__ import annotations

from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.fields.kinds import Choice, File, Flag, Integer
from colobench.fields.part import Part, setting
from colobench.settings.bug import Bug

#: More records than any memory holds.
KEEP_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class ExperimentSettings(Part):
    """Kept bytes and records, a spare secondary, planted bugs."""

    title = "experiment"

    keep_stream: bool = setting(
        Flag(),
        False,
        "keep the bytes of the main connection, which then passes through a relay",
    )
    keep_records: int | None = setting(
        Integer(1, KEEP_LIMIT, or_none=True),
        None,
        "least number of newest records to keep; none: keep all",
    )
    spare: bool = setting(
        Flag(), False, "have another secondary ready, so that it joins sooner after a takeover"
    )
    arbiter_state: str | None = setting(
        File(),
        None,
        "file that keeps the arbiter's grants from one session to the next",
        option="--state",
    )
    bug: Bug | None = setting(
        Choice.of_members(Bug, or_none=True),
        None,
        "planted bug, see docs/bug-museum.md; only in an experiment",
    )
    volatile_cache: bool = setting(
        Flag(),
        False,
        "keep what the guest writes to its disks in the node's memory until it is flushed, so that "
        "a kill loses it as a loss of power would; only in an experiment",
    )
    experiment: bool = setting(Flag(), False, "permit settings that lose the guest's data")

    def complete(self) -> None:
        """Check that data are lost only in an experiment."""
        if self.bug is not None and not self.experiment:
            raise LocalError(
                f"bug {self.bug.value}: expected an experiment, which loses data, found none"
            )
        if self.volatile_cache and not self.experiment:
            raise LocalError("volatile_cache: expected an experiment, which loses data, found none")
