"""Bug museum: planted bugs, their broken promises, and kills that show them.

``docs/bug-museum.md`` tells their stories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from colobench.fields.checks import check_choice
from colobench.guest.settings import DETERMINISTIC, NondeterminismSettings
from colobench.lab.torture.kill_plan import OUTPUTS, POINTS, SIDES
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import Capture


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A planted bug.

    Attributes
    ----------
    bug
        Bug that is planted.
    promise
        Promise of COLO that the bug breaks.
    story
        Description of the fault.
    outputs, victims, points
        Kills that are worth trying, see `colobench.lab.torture.kill_plan.plan`.
    nondeterminism
        Dials of the guest that it takes.
    settings
        Other settings that it takes, by name.
    """

    bug: Bug
    promise: str
    story: str
    outputs: tuple[str, ...] = OUTPUTS
    victims: tuple[str, ...] = ("primary",)
    points: Mapping[str, tuple[str | None, ...]] = field(default_factory=lambda: POINTS)
    nondeterminism: NondeterminismSettings = DETERMINISTIC
    settings: Mapping[str, Any] = field(default_factory=dict)

    def changes(self) -> dict[str, Any]:
        """Give the settings that plant the bug, and that it takes, by name."""
        planted = {"bug": self.bug, "experiment": True, "nondeterminism": self.nondeterminism}
        return planted | dict(self.settings)


MUSEUM = {
    exhibit.bug: exhibit
    for exhibit in (
        Exhibit(
            Bug.EARLY_RELEASE,
            "What a client has been told is in the secondary.",
            "Held output leaves when the checkpoint is sent, before the secondary says "
            "VMSTATE_RECEIVED. If the primary dies in between, the client has its answer, and the "
            "write is gone.",
            outputs=("buffer",),
            points={"primary": ("sent",), "secondary": ("ram-received", "size", "buffer-received")},
        ),
        Exhibit(
            Bug.UNSEALED_RELEASE,
            "What a client has been told is in the secondary.",
            "The guest runs while the copy of a checkpoint is sent, and VMSTATE_RECEIVED releases "
            "all held output, also what the guest has sent since the copy. If the primary dies "
            "before the next checkpoint is committed, the client has its answer, and the write is "
            "gone.",
            outputs=("buffer",),
            points={"primary": ("loaded", "request", "reply", "stop", "copied", "resumed")},
            # Few clients ask again soon after a commit, and their answers are sealed by the next.
            settings={
                "capture": Capture.COPY_THEN_SEND,
                "buffer_delay_ms": 0,
                "clients": 40,
            },
        ),
        Exhibit(
            Bug.EARLY_FLUSH,
            "A checkpoint is applied whole or not at all.",
            "The RAM cache is flushed as soon as RAM has arrived. If the device state does not "
            "come any more, RAM is of one checkpoint and the devices are of another.",
            outputs=("buffer",),
            points={"primary": ("ram-sent", "buffer"), "secondary": ("ram-received", "size")},
        ),
        Exhibit(
            Bug.MISSED_DIRTY_BIT,
            "Every page that the guest wrote is in the next checkpoint.",
            "One dirty page of each checkpoint is not sent.",
        ),
        Exhibit(
            Bug.FLUSH_PRIMARY_ONLY,
            "After a load the secondary's RAM is the primary's.",
            "Pages that only the secondary's own guest wrote since the last checkpoint stay as "
            "they are; the flush copies what the primary sent, and no more.",
            outputs=("compare",),
            # Two guests that do the same write the same pages.
            nondeterminism=NondeterminismSettings(jitter_us=8000, shuffle=500),
        ),
        Exhibit(
            Bug.LOST_RETRANSMISSION,
            "A client's connection survives, and so does what was on its way.",
            "The guest's TCP never sends anything again. An answer that died with the primary is "
            "never heard.",
            outputs=("buffer",),
            # The checkpoint is committed, with answers in it that no client has got.
            points={"primary": ("received", "loaded"), "secondary": ("received", "flush", "load")},
        ),
        Exhibit(
            Bug.DOUBLE_EXECUTION,
            "A request is executed once, whoever executes it.",
            "The survivor executes once more what each connection has asked for last.",
        ),
    )
}
assert set(MUSEUM) == set(Bug)
assert all(set(each.victims) <= set(SIDES) for each in MUSEUM.values())


def exhibit(name: str) -> Exhibit:
    """Find an exhibit by its bug's name.

    Raises
    ------
    LocalError
        If the bug is unknown.
    """
    return MUSEUM[Bug(check_choice("bug", name, [bug.value for bug in Bug]))]
