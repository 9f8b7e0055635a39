"""Device state as a versioned table of fields: how it is saved, and how it is checked.

The layout is QEMU's vmstate: fields one after another, integers big-endian, no tags and no lengths
(docs/devel/migration, "VMState"). A field whose length varies takes it from an earlier field, and
has a limit that is checked before anything of that length is read.
"""

from __future__ import annotations

import itertools
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


class _Group:
    """Neighbours of one type, encoded and decoded together: fixed lengths, or one that varies.

    Attributes
    ----------
    fields, names
        The fields, and their names.
    code, wire_type
        Type of one element, in native byte order, and as it is in the stream.
    lengths
        Elements of each field, None if there is one field whose length varies.
    ends
        For each field its name, and begin and end of its elements in the group.
    size
        Bytes of all of them, if the lengths are fixed.
    nothing
        No elements.
    """

    def __init__(self, fields: list[Field]) -> None:
        self.fields = fields
        self.names = [each.name for each in fields]
        self.code = np.dtype(fields[0].code)
        self.wire_type = self.code.newbyteorder(">")
        self.lengths: list[int] | None = None
        self.ends: list[tuple[str, int, int]] = []
        self.size = 0
        self.nothing = np.zeros(0, dtype=self.code)
        self.nothing.flags.writeable = False
        if isinstance(fields[0].count, int):
            self.lengths = [each.length({}) for each in fields]
            ends = list(itertools.accumulate(self.lengths))
            self.ends = list(zip(self.names, [0, *ends], ends, strict=False))
            self.size = ends[-1] * self.code.itemsize


@dataclass(frozen=True, slots=True)
class VMStateDescription:
    """A device's name, versions and fields, as QEMU's VMStateDescription."""

    name: str
    version_id: int
    minimum_version_id: int
    fields: tuple[Field, ...]
    _groups: tuple[_Group, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        groups: list[list[Field]] = []
        for each in self.fields:
            last = groups[-1][-1] if groups else None
            if last and last.code == each.code and {type(last.count), type(each.count)} == {int}:
                groups[-1].append(each)
            else:
                groups.append([each])
        object.__setattr__(self, "_groups", tuple(map(_Group, groups)))

    def save(self, state: Mapping[str, npt.NDArray[Any]]) -> bytes:
        """Encode a state.

        Raises
        ------
        LocalError
            If a field has another number of elements than the table says.
        """
        parts = []
        for group in self._groups:
            arrays = [state[name] for name in group.names]
            lengths = group.lengths or [each.length(state) for each in group.fields]
            if list(map(len, arrays)) != lengths:
                self._refuse_lengths(group, arrays, lengths)
            together = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
            if len(together):
                parts.append(together.astype(group.wire_type).tobytes())
        return b"".join(parts)

    def _refuse_lengths(
        self, group: _Group, arrays: list[npt.NDArray[Any]], lengths: list[int]
    ) -> None:
        for name, values, expected in zip(group.names, arrays, lengths, strict=True):
            if len(values) != expected:
                raise LocalError(
                    f"device {self.name!r}, field {name!r}: expected {expected} elements, "
                    f"found {len(values)}"
                )

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
            if group.lengths is None:
                name = group.names[0]
                size = group.fields[0].length(state) * group.code.itemsize
                state[name] = group.nothing
                if size:
                    state[name] = np.frombuffer((yield size), group.wire_type).astype(group.code)
                continue
            data = (yield group.size) if group.size else b""
            values = np.frombuffer(data, group.wire_type).astype(group.code)
            for name, begin, end in group.ends:
                state[name] = values[begin:end]
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
