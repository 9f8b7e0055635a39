"""Device state as a versioned table of fields: how it is saved, and how it is checked.

The layout is QEMU's vmstate: fields one after another, integers big-endian, no tags and no lengths
(docs/devel/migration, "VMState"). A field whose length varies takes it from an earlier field, and
has a limit that is checked before anything of that length is read.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError, RemoteError

#: A device's state: for each field its values, one-dimensional, in native byte order.
State = dict[str, npt.NDArray[Any]]
#: A parser asks for a number of bytes and is sent exactly so many.
StateParser = Generator[int, bytes, State]

_QEMU_TYPES = {"u1": "uint8", "u4": "uint32", "u8": "uint64"}


class VMStateError(RemoteError):
    """Device state from the peer that this device does not accept."""


class Device(Protocol):
    """What the wire needs of a device."""

    @property
    def idstr(self) -> str:
        """Its name in the stream."""

    @property
    def instance_id(self) -> int:
        """Which of several devices of that name it is."""

    @property
    def version_id(self) -> int:
        """The version that it saves."""

    @property
    def minimum_version_id(self) -> int:
        """The oldest version that it loads."""

    def save(self) -> bytes:
        """Encode its state."""

    def parse(self, version_id: int) -> StateParser:
        """Decode and check a state without taking it over."""

    def apply(self, state: State) -> None:
        """Take over a state that `parse` gave."""

    def describe(self) -> dict[str, Any]:
        """Give its entry of the vmdescription."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a device's state.

    Parameters
    ----------
    name
        As in the vmdescription.
    code
        numpy's code of one element: ``"u1"``, ``"u4"`` or ``"u8"``.
    count
        How many elements, or the name of an earlier field that says how many.
    limit
        The largest count that is accepted where `count` is a name.
    """

    name: str
    code: str
    count: int | str = 1
    limit: int = 0

    def length(self, state: Mapping[str, npt.NDArray[Any]]) -> int:
        """Say how many elements it has, given the fields before it."""
        if isinstance(self.count, int):
            return self.count
        count = int(state[self.count][0])
        if count > self.limit:
            raise VMStateError(
                f"field {self.count!r}: expected at most {self.limit}, found {count}"
            )
        return count


@dataclass(frozen=True, slots=True)
class VMStateDescription:
    """A device's name, versions and fields, as QEMU's VMStateDescription."""

    name: str
    version_id: int
    minimum_version_id: int
    fields: tuple[Field, ...]
    #: Neighbours of one type whose lengths are fixed are encoded and decoded together.
    _groups: tuple[tuple[Field, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        groups: list[list[Field]] = []
        for each in self.fields:
            last = groups[-1][-1] if groups else None
            if last and last.code == each.code and {type(last.count), type(each.count)} == {int}:
                groups[-1].append(each)
            else:
                groups.append([each])
        object.__setattr__(self, "_groups", tuple(map(tuple, groups)))

    def save(self, state: Mapping[str, npt.NDArray[Any]]) -> bytes:
        """Encode a state.

        Raises
        ------
        LocalError
            If a field has another number of elements than the table says.
        """
        parts = []
        for group in self._groups:
            for each in group:
                values = state[each.name]
                if len(values) != each.length(state):
                    raise LocalError(
                        f"device {self.name!r}, field {each.name!r}: expected "
                        f"{each.length(state)} elements, found {len(values)}"
                    )
            together = np.concatenate([state[each.name] for each in group])
            parts.append(together.astype(f">{group[0].code}").tobytes())
        return b"".join(parts)

    def parse(self, version_id: int) -> StateParser:
        """Decode a state that the peer saved with `version_id`.

        Raises
        ------
        VMStateError
            If the version is not one of ours, or a length is beyond its limit.
        """
        if not self.minimum_version_id <= version_id <= self.version_id:
            raise VMStateError(
                f"device {self.name!r}: expected version {self.minimum_version_id} to "
                f"{self.version_id}, found {version_id}"
            )
        state: State = {}
        for group in self._groups:
            counts = [each.length(state) for each in group]
            code = group[0].code
            size = sum(counts) * int(code[1])
            values = np.frombuffer((yield size) if size else b"", f">{code}").astype(code)
            end = 0
            for each, count in zip(group, counts, strict=True):
                begin, end = end, end + count
                state[each.name] = values[begin:end]
        return state

    def describe(self, state: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
        """List the fields as in the vmdescription that follows a stream."""
        described = []
        for each in self.fields:
            entry: dict[str, Any] = {"name": each.name}
            count = each.length(state)
            if count != 1:
                entry["array_len"] = count
            entry |= {"type": _QEMU_TYPES[each.code], "size": int(each.code[1])}
            described.append(entry)
        return described
