"""Notebook 12: disks, and the three layers of the secondary's."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from typing import Any

from colobench.block.backend import BlockBackend, BlockData
from colobench.block.clusters import CLUSTER_SIZE
from colobench.block.layers import MemoryLayerBuffer, SecondaryLayers
from colobench.block.request import SECTOR_SIZE
from colobench.fields.checks import show
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import (
    Feedback,
    UnfitAnswerError,
    as_choice,
    judge_number,
    right,
    shown,
    wrong,
)
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import ChoiceAnswer, PredictedExperiment
from colobench.lab.session.disk_layers import query_disk
from colobench.lab.session.session import Session

#: Clusters of a disk, the last of which nobody writes.
CLUSTERS = 5
TOUCHED = (CLUSTERS - 1) * CLUSTER_SIZE // SECTOR_SIZE
SECTORS = CLUSTERS * CLUSTER_SIZE // SECTOR_SIZE
#: Writes of 12.2: so many sectors, each in a cluster of its own, and one of them twice.
WRITTEN = 10

Sector = bytes | None
Rule = Callable[[Sector, Sector, bytes], bytes]


class _Image:
    """An image in memory."""

    def __init__(self, clusters: int, fill: int = 0) -> None:
        self.bytes = bytearray([fill]) * (clusters * CLUSTER_SIZE)

    @property
    def size(self) -> int:
        return len(self.bytes)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.bytes[offset : offset + length])

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        self.bytes[offset : offset + len(data)] = data

    def flush(self) -> None:
        pass

    def discard(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))

    def write_zeroes(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))


class _Disk:
    """A secondary's disk with the layers that nodes have, and what is in each of its sectors."""

    def __init__(self, clusters: int = CLUSTERS, limit: int = 1 << 20) -> None:
        self.image = _Image(clusters, fill=1)
        self.layers = SecondaryLayers(self.image, MemoryLayerBuffer(limit))

    def write_at_random(self) -> None:
        """Let both guests write sectors, some of them the same."""
        draws = random.Random(12)
        for number in range(60):
            side: BlockBackend = draws.choice((self.layers.forwarded, self.layers.guest))
            data = bytes([2 + number]) * SECTOR_SIZE
            side.write(draws.randrange(TOUCHED // 4) * SECTOR_SIZE * draws.choice((1, 4)), data)

    def in_layer(self, ranges: list[Any], sector: int) -> bool:
        at = sector * SECTOR_SIZE
        return any(offset <= at < offset + length for offset, length in ranges)


def _judge_read(answer: Any) -> Feedback:
    if not callable(answer):
        raise UnfitAnswerError(
            f"answer: expected a function of three sectors, found {shown(answer)}"
        )
    disk = _Disk()
    before = bytes(disk.image.bytes)
    disk.write_at_random()
    layers = disk.layers
    for sector in range(SECTORS):
        at = sector * SECTOR_SIZE
        seen = layers.guest.read(at, SECTOR_SIZE)
        active = seen if disk.in_layer(layers.active_ranges(), sector) else None
        kept = before[at : at + SECTOR_SIZE]
        hidden = kept if disk.in_layer(layers.hidden_ranges(), sector) else None
        try:
            found = answer(active, hidden, disk.image.read(at, SECTOR_SIZE))
        except (Exception, SystemExit) as error:
            return wrong(f"Your function ended with {show(error)}.")
        if found is not None and not isinstance(found, bytes | bytearray | memoryview):
            return wrong(f"Your function returned {shown(found)}. Return one of the three sectors.")
        if found != seen:
            return wrong(_hint(active, hidden))
    return right("It reads every sector as the layers of a node do, after writes of both guests.")


def _hint(active: Sector, hidden: Sector) -> str:
    """Say which sectors it reads as the layers do not."""
    if active is not None:
        return "A sector that the secondary's own guest has written is read otherwise."
    if hidden is not None:
        return (
            "A sector in a cluster that the primary has overwritten is read otherwise: the guest "
            "must not see what no checkpoint has committed."
        )
    return "A sector that nobody has written is read otherwise: only the image has it."


def _kept_bytes() -> int:
    disk = _Disk(clusters=WRITTEN, limit=1 << 24)
    for cluster in (*range(WRITTEN), 0):
        disk.layers.forwarded.write(cluster * CLUSTER_SIZE, bytes(SECTOR_SIZE))
    return disk.layers.hidden_bytes


def _judge_kept(answer: Any) -> Feedback:
    return judge_number(
        answer,
        _kept_bytes(),
        why="Whole clusters of 64 KiB are kept, each once, at its first write.",
        hints={
            WRITTEN * SECTOR_SIZE: "That is what was written. What is kept are whole clusters.",
            (WRITTEN + 1) * SECTOR_SIZE: "That is what was written. What is kept are clusters.",
            (WRITTEN + 1) * CLUSTER_SIZE: "The second write to a cluster finds it kept already.",
            WRITTEN * CLUSTER_SIZE / 1024: "That is in KiB. Multiply by 1,024.",
            WRITTEN: "Those are the clusters. How many bytes has each of them?",
        },
        otherwise="`cb.query_disk(session, 'secondary').hidden` lists what is kept.",
    )


def _judge_merge(answer: Any) -> Feedback:
    names = ("hidden", "active")
    if not isinstance(answer, list | tuple):
        raise UnfitAnswerError(f"answer: expected a list of two names, found {shown(answer)}")
    order = [as_choice(each, names) for each in answer]
    if sorted(order) != sorted(names):
        raise UnfitAnswerError(f"answer: expected each name once, found {shown(answer)}")
    disk = _Disk()
    disk.write_at_random()
    seen = disk.layers.guest.read(0, disk.image.size)
    base = bytearray(disk.image.bytes)
    ranges = {"hidden": disk.layers.hidden_ranges(), "active": disk.layers.active_ranges()}
    original = bytes([1]) * len(base)
    for name in order:
        source = original if name == "hidden" else seen
        for offset, length in ranges[name]:
            base[offset : offset + length] = source[offset : offset + length]
    if bytes(base) == seen:
        return right("The disk is then what the secondary's guest has seen, byte by byte.")
    return wrong(
        "A cluster of the layer that you merge last has old bytes around a sector of the other "
        "one, and replaces it."
    )


OF_THE_CHECKPOINT, BEFORE_THE_LAST, LAST = (
    "those of the checkpoint",
    "those from just before its last write",
    "those of its last write, which is the newest state",
)
#: Ticks in which a guest writes each cluster of its disk several times.
TICKS = 300


def _bytes_after_a_takeover() -> str:
    """Kill a primary whose guest has overwritten its disk, and compare the survivor's."""
    settings: dict[str, Any] = {"ram": "8M", "writes_per_tick": 4, "delay": None}
    with tempfile.TemporaryDirectory(prefix="colobench-") as directory:
        disks = [f"{directory}/disk,size=4M"]
        with Session(guest="sectors_hotcold", disks=disks, **settings) as session:
            session.run(1)
            session.wait_for_ticks(TICKS)
            disk = query_disk(session, "secondary")
            session.kill("primary")
            equal = session.failover().equal
    kept = disk is not None and disk.hidden
    return OF_THE_CHECKPOINT if kept and equal else LAST


def _judge_bytes(answer: str, outcome: str) -> Feedback:
    if answer == outcome:
        return right("The digest of its disk was the one that the primary had announced for it.")
    if answer == BEFORE_THE_LAST:
        return wrong(
            "Those are bytes of no checkpoint. The first write to a cluster since the checkpoint "
            "finds its bytes, and they are kept; later writes find bytes that are newer."
        )
    return wrong(
        "RAM and devices are those of the checkpoint. With a newer disk, the guest would read what "
        "it has not written yet."
    )


LESSON = Lesson(
    "12",
    exercises=(
        Exercise(
            "12.1",
            "Which bytes does the secondary's guest read? Write it as a function of a sector in "
            "the active layer, the hidden layer and the image. A layer that does not have it "
            "gives `None`. The check lets both guests write, and compares each sector.",
            "a function of three sectors (`bytes` or `None`) that returns one of them",
            'cb.exercise("12.1").check(lambda active, hidden, image: active or hidden or image)',
            _judge_read,
            "The guest sees its own writes; where it has none, the checkpoint; and where the "
            "primary has written nothing, either, the image is the checkpoint's.",
        ),
        Exercise(
            "12.2",
            f"Since the checkpoint the primary's guest has written {WRITTEN} sectors of 512 bytes, "
            "each in a cluster of its own, and one of them twice. How many bytes does the hidden "
            "layer have?",
            "a number of bytes",
            f'cb.exercise("12.2").check({WRITTEN} * 64 * 1024)',
            _judge_kept,
            "What is kept are clusters of 64 KiB. A second write to one changes nothing in the "
            "layer, whose bytes are those of the checkpoint.",
        ),
        Exercise(
            "12.3",
            "A takeover writes both layers into the image. In which order?",
            'a list of the names `"hidden"` and `"active"`, the first one first',
            'cb.exercise("12.3").check(["hidden", "active"])',
            _judge_merge,
            "First the primary's writes are undone, cluster by cluster, and then the guest's own "
            "sectors go over that. The bug `swapped-merge` of the museum does the reverse.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "12.1",
            "Since the last checkpoint the primary's guest has written the same sectors several "
            "times. Now the primary dies, and the secondary takes over. Which bytes does the "
            "secondary's disk have in these sectors?",
            ChoiceAnswer((LAST, BEFORE_THE_LAST, OF_THE_CHECKPOINT)),
            _bytes_after_a_takeover,
            _judge_bytes,
        ),
    ),
)
