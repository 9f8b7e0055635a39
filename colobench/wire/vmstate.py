"""Device state as a versioned table of fields, which saves, parses and checks it.

The format is QEMU's vmstate: fields one after another, integers big-endian, no tags and no lengths
(docs/devel/migration, "VMState"). A field of variable length takes its length from an earlier
field, and has a limit that is checked before that length is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError, RemoteError

#: A device's state: for each field its values, a one-dimensional array in native byte order.
State = dict[str, npt.NDArray[Any]]
#: A parser yields a number of bytes and is sent exactly these.
StateParser = Generator[int, bytes, State]

_QEMU_TYPES = {"u1": "uint8", "u4": "uint32", "u8": "uint64"}


class VMStateError(RemoteError):
    """A device state from the peer that the device does not accept."""


class Device(Protocol):
    """Interface of a device for the stream."""

    @property
    def idstr(self) -> str:
        """Name of the device in the stream."""

    @property
    def instance_id(self) -> int:
        """Number among devices of the same name."""

    @property
    def version_id(self) -> int:
        """Version of the state that it saves."""

    @property
    def minimum_version_id(self) -> int:
        """Oldest version of a state that it loads."""

    def save(self) -> bytes:
        """Encode its state."""

    def parse(self, version_id: int) -> StateParser:
        """Decode and check a state without applying it."""

    def apply(self, state: State) -> None:
        """Apply a state that `parse` returned."""

    def describe(self) -> dict[str, Any]:
        """Return its entry in the vmdescription."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a device's state.

    Parameters
    ----------
    name
        Name of the field in the vmdescription.
    code
        numpy's code of an element: ``"u1"``, ``"u4"`` or ``"u8"``.
    count
        Number of elements, or the name of an earlier field with that number.
    limit
        Largest accepted number if `count` is a name.
    """

    name: str
    code: str
    count: int | str = 1
    limit: int = 0

    def length(self, state: Mapping[str, npt.NDArray[Any]]) -> int:
        """Return its number of elements, given the earlier fields."""
        if isinstance(self.count, int):
            return self.count
        count = int(state[self.count][0])
        if count > self.limit:
            raise VMStateError(
                f"field {self.count!r}: expected at most {self.limit}, found {count}"
            )
        return count


class _Group:
    """Fields that are encoded and decoded together.

    They are adjacent fields of one type and fixed lengths, or a single field of variable length.

    Attributes
    ----------
    fields, names
        The fields, and their names.
    code, wire_type
        Type of an element, in native byte order and in the stream.
    lengths
        Number of elements of each field; None for a field of variable length.
    ends
        For each field its name, and the beginning and end of its elements in the group.
    size
        Bytes of all elements, if the lengths are fixed.
    nothing
        Array without elements.
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
    """A device's name, versions and fields, like QEMU's VMStateDescription."""

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
            If a field has a number of elements other than the table's.
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
            If the version is not supported, or a length is beyond its limit.
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
