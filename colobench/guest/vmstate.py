"""Device state as a versioned table of fields: how it is saved, and how it is checked.

The layout is QEMU's vmstate: fields one after another, integers big-endian, no tags and no lengths
(docs/devel/migration, "VMState"). A field whose length varies takes it from an earlier field, and
has a limit that is checked before anything of that length is read.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

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

    def encode(self, values: npt.NDArray[Any]) -> bytes:
        """Give the field's bytes."""
        return values.astype(f">{self.code}").tobytes()

    def decode(self, data: bytes) -> npt.NDArray[Any]:
        """Give the field's values."""
        return np.frombuffer(data, f">{self.code}").astype(self.code)

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

    def save(self, state: Mapping[str, npt.NDArray[Any]]) -> bytes:
        """Encode a state.

        Raises
        ------
        LocalError
            If a field has another number of elements than the table says.
        """
        parts = []
        for field in self.fields:
            values = state[field.name]
            if len(values) != field.length(state):
                raise LocalError(
                    f"device {self.name!r}, field {field.name!r}: expected "
                    f"{field.length(state)} elements, found {len(values)}"
                )
            parts.append(field.encode(values))
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
        for field in self.fields:
            size = field.length(state) * int(field.code[1])
            state[field.name] = field.decode((yield size) if size else b"")
        return state

    def describe(self, state: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
        """List the fields as in the vmdescription that follows a stream."""
        described = []
        for field in self.fields:
            entry: dict[str, Any] = {"name": field.name}
            count = field.length(state)
            if count != 1:
                entry["array_len"] = count
            entry |= {"type": _QEMU_TYPES[field.code], "size": int(field.code[1])}
            described.append(entry)
        return described
