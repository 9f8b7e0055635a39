"""What an image is: the generation of its contents, its last checkpoint, and its state.

It is kept beside the image, in FILE.generation. A generation has a random identifier. Both images
of a pair get the same new one when they are equal; an image whose guest goes on without the other
one gets one of its own, and keeps the shared one as `peer`. So of two images that were a pair, the
one with a generation of its own is the newer. DRBD tells its disks apart in this way, by
*generation identifiers* (LINBIT, *The DRBD User's Guide*, "Generation Identifiers").

`changed` has the clusters in which an image may differ from what the other image of the pair last
knew of it. So two images differ at most in the clusters that either has changed.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from colobench.block.clusters import CLUSTER_SIZE, ClusterSet
from colobench.block.request import DISK_SIZE_MAX, SECTOR_SIZE
from colobench.errors import LocalError
from colobench.fields.checks import check_integer, show

#: Version of the format.
VERSION: Final = 1
_IDENTIFIER: Final = re.compile("[0-9a-f]{32}")
#: Largest text of a generation, bytes: twice what the largest disk's clusters need.
TEXT_MAX: Final = 96 << 20
#: Members that are texts, and what they look like.
_TEXTS: Final = {
    "generation": "[0-9a-f]{32}",
    "peer": "([0-9a-f]{32})?",
    "state": "clean|in-use|following|copying",
    "boot": "[0-9a-f-]{0,64}",
}


class InvalidGeneration(LocalError):
    """A text that describes no generation."""


class WrongImageState(LocalError):
    """A use of an image that its state does not allow."""


class ImageState(enum.Enum):
    """State of an image."""

    #: Its node has ended as it should: the contents are those of one moment.
    CLEAN = "clean"
    #: A guest runs on it. After a kill it is as a disk after a power failure.
    IN_USE = "in-use"
    #: A secondary's: it has the primary's writes, also those that no checkpoint has committed.
    FOLLOWING = "following"
    #: A future secondary's: some clusters are the primary's, others are older.
    COPYING = "copying"


class ImageEvent(enum.Enum):
    """Event that changes what an image is."""

    #: A guest is started on it.
    OPENED_BY_GUEST = enum.auto()
    #: It begins to receive a primary's disk.
    COPY_BEGINS = enum.auto()
    #: It is equal to the other image, and the layers begin, empty.
    PAIRED = enum.auto()
    #: A checkpoint is committed.
    COMMIT = enum.auto()
    #: A primary has lost its secondary, and its guest goes on.
    LEFT_ALONE = enum.auto()
    #: A secondary has merged its layers, and its guest goes on.
    TAKEN_OVER = enum.auto()
    #: The node ends as it should: all is flushed, and a secondary has merged its layers.
    CLEAN_END = enum.auto()
    #: The node was killed. Nobody can write that down, so nothing changes.
    KILLED = enum.auto()
    #: `colobench disk repair`: a person accepts the contents as they are.
    REPAIRED = enum.auto()


class ImageAction(enum.Enum):
    """Change of the other values."""

    #: Take the generation that both images of the pair get; no cluster has changed.
    SHARE_GENERATION = enum.auto()
    #: Begin a generation of its own, unless it has one; the shared one stays known as the peer's.
    OWN_GENERATION = enum.auto()
    #: Begin a generation that is related to no other image's.
    NEW_GENERATION = enum.auto()
    #: Note the checkpoint's number.
    NOTE_CHECKPOINT = enum.auto()


_OWN, _NEW = (ImageAction.OWN_GENERATION,), (ImageAction.NEW_GENERATION,)
#: For each state and event, the next state and what changes, in the form of the tables of
#: `colobench.protocol.table`. An event that is missing is refused.
IMAGE_TABLE: Final[
    Mapping[ImageState, Mapping[ImageEvent, tuple[ImageState, tuple[ImageAction, ...]]]]
] = {
    ImageState.CLEAN: {
        ImageEvent.OPENED_BY_GUEST: (ImageState.IN_USE, _OWN),
        ImageEvent.COPY_BEGINS: (ImageState.COPYING, _NEW),
        ImageEvent.REPAIRED: (ImageState.CLEAN, ()),
    },
    ImageState.IN_USE: {
        ImageEvent.OPENED_BY_GUEST: (ImageState.IN_USE, _OWN),
        ImageEvent.COPY_BEGINS: (ImageState.COPYING, _NEW),
        ImageEvent.PAIRED: (ImageState.IN_USE, (ImageAction.SHARE_GENERATION,)),
        ImageEvent.COMMIT: (ImageState.IN_USE, (ImageAction.NOTE_CHECKPOINT,)),
        ImageEvent.LEFT_ALONE: (ImageState.IN_USE, _OWN),
        # Its last writes may have reached no checkpoint, so it is newer than a secondary's.
        ImageEvent.CLEAN_END: (ImageState.CLEAN, _OWN),
        ImageEvent.KILLED: (ImageState.IN_USE, ()),
        ImageEvent.REPAIRED: (ImageState.CLEAN, _OWN),
    },
    ImageState.FOLLOWING: {
        ImageEvent.COPY_BEGINS: (ImageState.COPYING, _NEW),
        ImageEvent.COMMIT: (ImageState.FOLLOWING, (ImageAction.NOTE_CHECKPOINT,)),
        ImageEvent.TAKEN_OVER: (ImageState.IN_USE, _OWN),
        ImageEvent.CLEAN_END: (ImageState.CLEAN, ()),
        ImageEvent.KILLED: (ImageState.FOLLOWING, ()),
        ImageEvent.REPAIRED: (ImageState.CLEAN, _NEW),
    },
    ImageState.COPYING: {
        ImageEvent.COPY_BEGINS: (ImageState.COPYING, _NEW),
        ImageEvent.PAIRED: (ImageState.FOLLOWING, (ImageAction.SHARE_GENERATION,)),
        ImageEvent.CLEAN_END: (ImageState.COPYING, ()),
        ImageEvent.KILLED: (ImageState.COPYING, ()),
        ImageEvent.REPAIRED: (ImageState.CLEAN, _NEW),
    },
}
#: Reasons why no guest is started on an image in this state.
_NO_GUEST: Final = {
    ImageState.FOLLOWING: "its secondary has ended: it has writes that no checkpoint committed, "
    "and what would undo them was lost with the process, unless its layers were in a directory; "
    "the primary's image is current, see colobench disk repair",
    ImageState.COPYING: "the copy of a primary's disk to it was not complete; the primary's image "
    "is current, see colobench disk repair",
}


class Relation(enum.Enum):
    """What two images are to each other."""

    #: Both are of one generation and clean.
    EQUAL = "equal"
    FIRST_IS_CURRENT = "the first is current"
    SECOND_IS_CURRENT = "the second is current"
    #: A guest went on from each, after they had been a pair.
    SPLIT = "each has gone on without the other"
    UNRELATED = "they were never a pair"


@dataclass(frozen=True, slots=True)
class Generation:
    """What an image is.

    Attributes
    ----------
    identifier
        The generation of its contents: 32 hexadecimal digits.
    size
        Size of the disk in bytes.
    state
        The image's state.
    peer
        The generation that it shared with the other image of a pair, or "".
    checkpoint
        Number of the last checkpoint that was committed in this pair, or None.
    changed
        Clusters in which it may differ from what its peer last knew of it; None if in all.
    boot
        The machine's boot in which it was written, or "". After another boot, writes that were
        not flushed may be lost.
    """

    identifier: str
    size: int
    state: ImageState = ImageState.CLEAN
    peer: str = ""
    checkpoint: int | None = None
    changed: ClusterSet | None = None
    boot: str = ""

    @property
    def shared(self) -> bool:
        """Whether the other image of the pair has the same generation."""
        return self.identifier == self.peer

    def on(
        self, event: ImageEvent, *, identifier: str = "", checkpoint: int | None = None
    ) -> Generation:
        """Return what the image is after an event.

        Parameters
        ----------
        event
            The event.
        identifier
            A new generation's identifier, which is used if one begins. Of PAIRED, it is that of
            both images.
        checkpoint
            Number of the checkpoint, of COMMIT.

        Raises
        ------
        WrongImageState
            If the table has no such event in this state; the error says why.
        """
        row = IMAGE_TABLE[self.state]
        if event not in row:
            if event is ImageEvent.OPENED_BY_GUEST:
                self.check_guest()
            expected = " or ".join(known.name for known in row)
            raise WrongImageState(
                f"image that is {self.state.value}: expected {expected}, found {event.name}"
            )
        state, actions = row[event]
        after = replace(self, state=state)
        for action in actions:
            if action is ImageAction.NOTE_CHECKPOINT:
                after = replace(after, checkpoint=checkpoint)
            elif action is ImageAction.SHARE_GENERATION:
                after = replace(
                    after,
                    identifier=_checked(identifier),
                    peer=identifier,
                    checkpoint=None,
                    changed=ClusterSet(self.size),
                )
            elif action is ImageAction.NEW_GENERATION:
                after = replace(
                    after, identifier=_checked(identifier), peer="", checkpoint=None, changed=None
                )
            elif self.shared:
                after = replace(after, identifier=_checked(identifier))
        return after

    def check_guest(self) -> None:
        """Check that a guest may be started on the image.

        Raises
        ------
        WrongImageState
            If it is a secondary's that was killed, or an incomplete copy; the error says why.
        """
        if self.state in _NO_GUEST:
            raise WrongImageState(
                f"expected an image that a guest can be started on, found one that is "
                f"{self.state.value}: {_NO_GUEST[self.state]}"
            )

    def read_in(self, boot: str) -> Generation:
        """Return what it is to a node that opens it in a boot of the machine."""
        if self.state is ImageState.CLEAN or self.boot == boot:
            return self
        return replace(self, changed=None)

    def to_text(self) -> str:
        """Write it as JSON. The checkpoint's number has a fixed place: `checkpoint_text`."""
        changed = self.changed
        members = {
            "version": VERSION,
            "generation": self.identifier,
            "peer": self.peer,
            "state": self.state.value,
            "size": self.size,
            "boot": self.boot,
            "changed": None
            if changed is None
            else base64.b64encode(zlib.compress(changed.to_bytes())).decode(),
        }
        return f"{checkpoint_text(self.checkpoint)}{json.dumps(members, indent=1)[1:]}\n"


def checkpoint_text(number: int | None) -> str:
    """Write the beginning of a generation's text, always as long; it can be written alone."""
    return f'{{"checkpoint": {json.dumps(number):>20},'


def relate(first: Generation, second: Generation) -> Relation:
    """Say which of two images is current."""
    if not first.peer or first.peer != second.peer:
        return Relation.UNRELATED
    if first.shared != second.shared:
        return Relation.SECOND_IS_CURRENT if first.shared else Relation.FIRST_IS_CURRENT
    if not first.shared:
        return Relation.SPLIT
    # Nobody has gone on alone: the primary's is current, else a secondary's that ended well.
    order = (ImageState.IN_USE, ImageState.CLEAN, ImageState.FOLLOWING)
    ranks = order.index(first.state), order.index(second.state)
    if ranks[0] == ranks[1]:
        return Relation.EQUAL if first.state is ImageState.CLEAN else Relation.SPLIT
    return Relation.FIRST_IS_CURRENT if ranks[0] < ranks[1] else Relation.SECOND_IS_CURRENT


def differing(first: Generation, second: Generation) -> ClusterSet:
    """Return the clusters in which two images may differ; all, if it is not known.

    Raises
    ------
    LocalError
        If the disks have different sizes.
    """
    if first.size != second.size:
        raise LocalError(
            f"two images: expected the same size, found {first.size} and {second.size} bytes"
        )
    if relate(first, second) is Relation.UNRELATED or None in (first.changed, second.changed):
        return ClusterSet(first.size, filled=True)
    assert first.changed is not None
    assert second.changed is not None
    return first.changed.union(second.changed)


def read_generation(text: str) -> Generation:
    """Read what an image is.

    Parameters
    ----------
    text
        What `Generation.to_text` has written.

    Raises
    ------
    InvalidGeneration
        If it is anything else.
    """
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise LocalError(f"expected an object, found {show(found)}")
        return _generation(found)
    except (LocalError, ValueError, RecursionError) as error:
        raise InvalidGeneration(f"generation of an image: {error}") from error


def _generation(found: dict[str, Any]) -> Generation:
    expected = {*_TEXTS, "version", "size", "checkpoint", "changed"}
    if found.keys() != expected:
        names = ", ".join(sorted(expected))
        raise LocalError(f"expected the members {names}, found {show(sorted(found))}")
    check_integer("version", found["version"], VERSION, VERSION)
    size = check_integer("size", found["size"], SECTOR_SIZE, DISK_SIZE_MAX, unit="bytes")
    if size % SECTOR_SIZE:
        raise LocalError(f"size: expected a multiple of {SECTOR_SIZE} bytes, found {size}")
    if found["checkpoint"] is not None:
        check_integer("checkpoint", found["checkpoint"], 0, (1 << 63) - 1, or_none=True)
    for name, pattern in _TEXTS.items():
        if not isinstance(found[name], str) or not re.fullmatch(pattern, found[name]):
            raise LocalError(f"{name}: expected {pattern}, found {show(found[name])}")
    state = ImageState(found["state"])
    if state is ImageState.COPYING and found["peer"]:
        raise LocalError(f"peer: expected none of an incomplete copy, found {show(found['peer'])}")
    return Generation(
        identifier=found["generation"],
        size=size,
        state=state,
        peer=found["peer"],
        checkpoint=found["checkpoint"],
        changed=_unpacked(size, found["changed"]),
        boot=found["boot"],
    )


def _unpacked(size: int, text: object) -> ClusterSet | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise LocalError(f"changed: expected a text, found {show(text)}")
    unpacking = zlib.decompressobj()
    try:
        # No more than one byte too many, whatever it would expand to.
        packed = unpacking.decompress(
            base64.b64decode(text, validate=True), size // (8 * CLUSTER_SIZE) + 2
        )
    except (binascii.Error, zlib.error) as error:
        raise LocalError(f"changed: expected base64 of zlib's format, found: {error}") from error
    return ClusterSet.from_bytes(size, packed)


def _checked(identifier: str) -> str:
    if not _IDENTIFIER.fullmatch(identifier):
        raise LocalError(f"generation: expected 32 hexadecimal digits, found {show(identifier)}")
    return identifier
