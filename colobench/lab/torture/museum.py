"""Bug museum: planted bugs, their broken promises, and kills that show them.

``docs/bug-museum.md`` tells their stories.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from colobench.fields.checks import check_choice
from colobench.guest.settings import DETERMINISTIC, NondeterminismSettings
from colobench.lab.torture.catch import Catch
from colobench.lab.torture.kill_plan import OUTPUTS, POINTS, SECONDS, SIDES
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import Capture, Output
from colobench.settings.transport import Encoding


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
    seconds
        Moments of the second kill, or None for a single one.
    nondeterminism
        Dials of the guest that it takes.
    settings
        Other settings that it takes, by name.
    catch
        Way in which it is caught.
    """

    bug: Bug
    promise: str
    story: str
    outputs: tuple[str, ...] = OUTPUTS
    victims: tuple[str, ...] = ("primary",)
    points: Mapping[str, tuple[str | None, ...]] = field(default_factory=lambda: POINTS)
    seconds: tuple[str | None, ...] = (None,)
    nondeterminism: NondeterminismSettings = DETERMINISTIC
    settings: Mapping[str, Any] = field(default_factory=dict)
    catch: Catch = Catch.KILLS

    def changes(self) -> dict[str, Any]:
        """Give the settings that plant the bug, and that it takes, by name."""
        planted = {"bug": self.bug, "experiment": True, "nondeterminism": self.nondeterminism}
        return planted | dict(self.settings)


#: A guest that writes to its disk all the time. Each pair has new images.
_SECTORS: Mapping[str, Any] = {
    "guest": "sectors",
    "hostfwd": (),
    "writes_per_tick": 8,
    "disks": (f"{tempfile.gettempdir()}/colobench-disk,size=16M",),
}
#: More milliseconds than an experiment takes: no checkpoint is the timer's.
_NO_TIMER_MS = 10**6
#: Of guests that do the same, so that each checkpoint which the comparison requests is needless.
_COMPARED_WITHOUT_A_TIMER: Mapping[str, Any] = {
    "output": Output.COMPARE,
    "compare_delay_ms": _NO_TIMER_MS,
    "compare_timeout": 1000,
}
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
            Bug.UNFROZEN_PAGES,
            "A checkpoint is the state of one moment.",
            "The guest runs on before its pages are copied, and does not copy a page before it "
            "writes to it. So a page is sent with what was written after the devices were saved.",
            outputs=("buffer",),
            points={"primary": ("received", "loaded", "request", None)},
            settings={
                "capture": Capture.COPY_ON_WRITE,
                "buffer_delay_ms": 0,
                "clients": 40,
            },
        ),
        Exhibit(
            Bug.JOINT_RELEASE,
            "What a client has been told is in the secondary.",
            "Two checkpoints are on their way, and VMSTATE_RECEIVED of the older one releases what "
            "the guest had sent before the younger one, too. If the primary dies before the "
            "younger one is committed, the client has its answer, and the write is gone.",
            outputs=("buffer",),
            points={
                "primary": ("two-open-released", "two-open-ram", "loaded", None),
                "secondary": ("flush", "load", "request", "ram-received"),
            },
            settings={
                "capture": Capture.TWO_EPOCHS,
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
            Bug.FLUSHED_GAP,
            "A checkpoint is applied whole or not at all.",
            "Pages come into the RAM cache between checkpoints. A takeover flushes them, although "
            "the checkpoint that they belong to is not complete: RAM is of no moment that there "
            "was, and the devices are of the last checkpoint.",
            outputs=("buffer",),
            points={
                "primary": ("pass", "pass-sent", "request", "stop", "ram-sent"),
                "secondary": ("pass-received",),
            },
            settings={"capture": Capture.GAP_PRECOPY},
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
            Bug.STALE_CACHE,
            "After a load the secondary's RAM is the primary's.",
            "A page that both guests wrote alike is not sent, and nothing is done about it, so the "
            "RAM cache has it as it was. The flush, which copies every page that either guest "
            "wrote, brings the old page back.",
            outputs=("compare",),
            settings={"encoding": Encoding.DIVERGENT, "output": Output.COMPARE},
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
        Exhibit(
            Bug.EARLY_EMPTIED,
            "A checkpoint is applied whole or not at all.",
            "The secondary forgets how its disk was when the primary requests a checkpoint, not "
            "when it has all of it. If the primary dies in between, RAM is of one checkpoint, and "
            "the disk of a later moment.",
            outputs=("buffer",),
            points={
                "primary": ("reply", "stop", "ram-sent", "sent"),
                "secondary": ("reply", "ram-received", "size", "buffer-received"),
            },
            settings=_SECTORS,
        ),
        Exhibit(
            Bug.EARLY_ANSWER,
            "What the guest has been told is on both disks.",
            "The guest is told that a write is done when the primary's disk has it, and it is "
            "forwarded a little later. A checkpoint may be committed in between: its RAM says "
            "that the write is done, and its disk does not have it.",
            outputs=("buffer",),
            # Digests wait for all forwarded writes, and would hide it.
            settings={**_SECTORS, "verify": False},
        ),
        Exhibit(
            Bug.OVERWRITTEN_HIDDEN,
            "A takeover finds the disk of the last checkpoint.",
            "The secondary keeps the bytes that the primary is about to overwrite, each time. So "
            "after the second write to a cluster the bytes of the checkpoint are gone.",
            outputs=("buffer",),
            points={"primary": ("request", "reply", "stop", "ram", "sent")},
            # Time for second writes.
            settings={**_SECTORS, "buffer_delay_ms": 200},
        ),
        Exhibit(
            Bug.FORGOTTEN_DISCARD,
            "A takeover finds the disk of the last checkpoint.",
            "The secondary keeps the bytes that the primary is about to overwrite, and not those "
            "that it discards. So a takeover does not undo a discard, and finds zeros.",
            outputs=("buffer",),
            points={"primary": ("request", "reply", "stop", "ram", "sent")},
            # Of 40 requests one is a discard, and most are in clusters that a write has changed.
            settings={**_SECTORS, "buffer_delay_ms": 200},
        ),
        Exhibit(
            Bug.SWAPPED_MERGE,
            "A takeover finds the disk that the survivor's guest knows.",
            "A takeover writes the active layer into the image, and then the hidden one. So the "
            "old bytes replace what the secondary's own guest has written since the checkpoint.",
            outputs=("compare",),
            settings=_SECTORS,
        ),
        Exhibit(
            Bug.EMPTY_FLUSH,
            "What the guest has flushed survives the loss of both hosts.",
            "Each host has a cache that loses what was not flushed. A flush says that it is done, "
            "and writes nothing back. If both hosts die, the disk that is left lacks what the "
            "guest was told is safe.",
            victims=SIDES,
            seconds=SECONDS,
            settings={**_SECTORS, "volatile_cache": True},
        ),
        Exhibit(
            Bug.MEMCMP_TRUTH,
            "A client gets no answer that the other guest does not give.",
            "The comparison of bytes gives 0 for equal ones, and is asked whether they are equal. "
            "So each equal answer requests a checkpoint, and different ones pass.",
            outputs=("compare",),
            settings=_COMPARED_WITHOUT_A_TIMER,
            catch=Catch.COUNTS,
        ),
        Exhibit(
            Bug.SKIPPED_ZERO_PAGES,
            "After a load the secondary's RAM is the primary's.",
            "A page that is all zero is taken for a hole, of which there is nothing to copy. RAM "
            "that was used before keeps its old bytes there.",
            outputs=("buffer",),
            catch=Catch.DIGESTS,
        ),
        Exhibit(
            Bug.PASSED_ENTRY,
            "A migration with COLO enabled ends in COLO.",
            "A new state of migration comes between 'active' and 'colo', and COLO is entered from "
            "'active' alone. The migration completes, and nothing is protected.",
            catch=Catch.ENTRY,
        ),
        Exhibit(
            Bug.FOREIGN_SEQUENCE,
            "Guests that do the same need no checkpoint.",
            "The place up to which a new connection is compared is not set, and is that of another "
            "connection. Answers wait for bytes that were sent long ago, or pass at once.",
            outputs=("compare",),
            settings=_COMPARED_WITHOUT_A_TIMER,
            catch=Catch.COUNTS,
        ),
        Exhibit(
            Bug.TWICE_SUBTRACTED,
            "Guests that do the same need no checkpoint.",
            "The length of virtio-net's header is subtracted twice, so each segment looks 12 bytes "
            "shorter than it is. Its end is not compared, and the next one seems to leave a gap.",
            outputs=("compare",),
            settings=_COMPARED_WITHOUT_A_TIMER,
            catch=Catch.COUNTS,
        ),
        Exhibit(
            Bug.KEPT_REQUEST,
            "Output that differs is released by a checkpoint.",
            "A connection requests one checkpoint for all that differs. That it has done so is not "
            "forgotten at the checkpoint, so that its second difference waits for the timer.",
            outputs=("compare",),
            settings={"compare_delay_ms": _NO_TIMER_MS},
            catch=Catch.DIFFERENCES,
        ),
        Exhibit(
            Bug.EMPTY_SYNC,
            "A stream of an older version is understood.",
            "A packet that ends a section is taken for empty. Older senders put pages into it, "
            "whose bytes are then read as the next packet.",
            catch=Catch.OLDER_SENDER,
        ),
        Exhibit(
            Bug.PAGE_AFTER_CLOSE,
            "What a survivor has is not changed by the peer that it has left.",
            "A failover ends the main connection, and not the page channels. Their threads go on, "
            "and a page that comes late is still written into a RAM cache that is being given up.",
            catch=Catch.LATE_PAGE,
        ),
        Exhibit(
            Bug.UNTOUCHED_PAGES,
            "Every page that the guest wrote is in the next checkpoint.",
            "Write protection has no effect on a page that nobody has touched yet, so that the "
            "first write to it is not seen.",
            outputs=("buffer",),
            catch=Catch.DIGESTS,
        ),
        Exhibit(
            Bug.DIRTY_LOAD,
            "After a load the secondary's devices are the primary's.",
            "Devices are not reset before they are loaded, and the load does not overwrite all of "
            "them: what the secondary's own guest has left in the timer stays.",
            outputs=("compare",),
            catch=Catch.DIGESTS,
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
