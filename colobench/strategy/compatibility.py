"""The compatibility matrix: what a value of one axis requires of another axis, and why.

All checks of combinations of axes are lines of `REQUIREMENTS`. An axis is a setting of
`colobench.settings.checkpoint.Strategy`; its values are written here as in settings, but without
parameters: ``stream`` is any transport whose pages travel in the main stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from colobench.errors import LocalError


@dataclass(frozen=True, slots=True)
class Requirement:
    """A value of one axis that goes only with some values of another.

    Attributes
    ----------
    axis, value
        The value that requires something.
    other, accepted
        The other axis, and the values of it that go with `value`.
    reason
        Half a sentence on `accepted`, which the error ends with.
    """

    axis: str
    value: str
    other: str
    accepted: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        accepted = " or ".join(self.accepted)
        return f"{self.axis} {self.value}: expected {self.other} {accepted}, {self.reason}"


REQUIREMENTS = (
    Requirement("layout", "buffered", "transport", ("stream",), "whose pages fit into the buffer"),
    Requirement(
        "encoding", "xbzrle", "transport", ("stream",), "whose records say how a page is encoded"
    ),
    Requirement("encoding", "zstd", "transport", ("stream", "multifd"), "whose pages travel"),
    Requirement("encoding", "lz4", "transport", ("stream", "multifd"), "whose pages travel"),
    Requirement(
        *("save_order", "ram-first", "capture", ("stop-and-send",)),
        "because a copy has the devices before any RAM is sent",
    ),
    Requirement(
        *("encoding", "divergent", "variant", ("upstream",)),
        "whose secondary's guest writes pages of its own to compare",
    ),
    Requirement(
        *("encoding", "divergent", "transport", ("stream", "multifd")), "whose pages travel"
    ),
    Requirement(
        *("encoding", "divergent", "capture", ("stop-and-send",)),
        "because both guests stand still while their pages are compared",
    ),
    Requirement("output", "compare", "variant", ("upstream",), "whose secondary runs"),
    *(
        Requirement("trigger", name, "output", ("compare",), "which finds the first difference")
        for name in ("miscompare", "hybrid")
    ),
    *(
        Requirement("trigger", name, "output", ("buffer",), "which waits for checkpoints alone")
        for name in ("output", "price")
    ),
    *(
        Requirement(
            *("capture", name, "output", ("buffer",)),
            "because only guests that go on from a checkpoint at the same time can be compared",
        )
        for name in ("copy-then-send", "copy-on-write", "copy-on-write-2")
    ),
    *(
        Requirement(
            *("capture", name, "tracker", ("marked",)),
            "whose guest looks before each store; to protect pages by the kernel takes longer than "
            "the pause that it saves",
        )
        for name in ("copy-on-write", "copy-on-write-2")
    ),
    Requirement(
        *("capture", "copy-on-write-2", "transport", ("stream", "multifd")),
        "whose pages travel; a secondary maps only one memory, and two epochs have one each",
    ),
    Requirement(
        *("capture", "copy-on-write-2", "layout", ("separated",)),
        "whose pages can be sent in parts, between which the guest is cut",
    ),
    Requirement(
        *("capture", "gap-precopy", "layout", ("separated",)),
        "whose pages can travel outside of a checkpoint",
    ),
)


#: What a guest requires of a strategy, and a strategy of a guest. ``kvm`` is any of KVM's guests.
GUEST_REQUIREMENTS = (
    Requirement(
        *("guest", "kvm", "tracker", ("kvm", "userfault", "shadow")),
        "because KVM neither marks pages nor takes signals for its guest's writes",
    ),
    Requirement(
        *("guest", "kvm", "capture", ("stop-and-send", "copy-then-send", "gap-precopy")),
        "because a guest of KVM does not look before each store",
    ),
    Requirement("tracker", "kvm", "guest", ("kvm",), "whose writes KVM logs"),
)


def refusals(
    names: Mapping[str, str], requirements: Sequence[Requirement] = REQUIREMENTS
) -> Iterator[str]:
    """Give a sentence for each requirement that is not met.

    Parameters
    ----------
    names
        The value of each axis, without parameters. A requirement for an axis that is not named is
        not looked at.
    requirements
        Requirements to look at.
    """
    for each in requirements:
        found = names.get(each.other)
        if names.get(each.axis) == each.value and found is not None and found not in each.accepted:
            yield f"{each}, found {found}"


def check_compatible(names: Mapping[str, str]) -> None:
    """Refuse a combination that does not work.

    Raises
    ------
    LocalError
        If a requirement is not met; the error names both values and the reason.
    """
    for refusal in refusals(names):
        raise LocalError(refusal)


def check_guest_compatible(guest: str, names: Mapping[str, str]) -> None:
    """Refuse a guest and values of axes that do not go together.

    Parameters
    ----------
    guest
        Name of the guest's program.
    names
        Values of the axes that are looked at.

    Raises
    ------
    LocalError
        If a requirement is not met; the error names both values and the reason.
    """
    with_guest = {"guest": without_parameters(guest), **names}
    for refusal in refusals(with_guest, GUEST_REQUIREMENTS):
        raise LocalError(refusal)


def without_parameters(text: str) -> str:
    """Give the name of a value: ``degradation`` of ``degradation:target=0.1``."""
    return text.partition(":")[0].partition("+")[0]
