"""Values of a device's fields, by the vmdescription: the payload itself has neither tags nor names.

Source: QEMU's ``docs/devel/migration`` and the output of QEMU 7.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from colobench.wire.errors import DeviceStateError
from colobench.wire.format import SectionType

#: Types of QEMU's fields that are one number; all others are shown as bytes.
_SIGNED: Final = frozenset({"int8", "int16", "int32", "int64", "int32 equal", "int32 le"})
_NUMBERS: Final = _SIGNED | {
    *("uint8", "uint16", "uint32", "uint64", "bool", "timer", "uint64 equal", "uint32 equal"),
    *("uint16 equal", "uint8 equal", "uint32 as uint16", "cpu state"),
}
#: Bytes of a field that are shown as text.
SHOWN_BYTES: Final = 16
#: Levels of structures, and fields of one device.
_DEPTH_LIMIT: Final = 32
_FIELDS_LIMIT: Final = 1_000_000
#: Subsection type, length of the name, and version, around the name.
_SUBSECTION_BEGIN, _SUBSECTION_END = 2, 4


class FieldValue(NamedTuple):
    """A field of a device's state.

    Attributes
    ----------
    name
        Path of the field: names with dots, elements in brackets, subsections with a slash.
    type
        QEMU's type of it.
    offset, length
        Place in the payload, bytes.
    value
        The number, or the field's first bytes in hexadecimal.
    """

    name: str
    type: str
    offset: int
    length: int
    value: int | str


def read_fields(description: dict[str, Any], payload: bytes) -> list[FieldValue]:
    """Name all bytes of a device's payload.

    Parameters
    ----------
    description
        The device's entry in the vmdescription.
    payload
        The payload.

    Raises
    ------
    DeviceStateError
        If the description does not fit the payload.
    """
    walk = _Walk(payload)
    try:
        found = list(walk.section(description, "", 0))
    except (
        *(LookupError, TypeError, ValueError, AttributeError, OverflowError),
        RecursionError,
    ) as error:
        raise DeviceStateError(
            "fields of a device",
            expected="their names and sizes",
            found=repr(error),
            offset=walk.at,
        ) from error
    if walk.at != len(payload):
        raise DeviceStateError(
            "fields of a device",
            expected=f"{len(payload)} bytes",
            found=f"{walk.at} bytes in the vmdescription",
            offset=walk.at,
        )
    return found


class _Walk:
    """A place in a payload."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._fields = 0
        self.at = 0

    def section(self, description: dict[str, Any], path: str, depth: int) -> Iterator[FieldValue]:
        if depth > _DEPTH_LIMIT:
            raise ValueError(f"more than {_DEPTH_LIMIT} levels")
        for field in description["fields"]:
            yield from self._field(field, path, depth)
        for subsection in description.get("subsections", ()):
            name = str(subsection["vmsd_name"])
            head = _SUBSECTION_BEGIN + len(name.encode()) + _SUBSECTION_END
            begin = self._payload[self.at : self.at + 1]
            if begin != bytes([SectionType.SUBSECTION]):
                raise ValueError(f"no subsection {name!r}")
            inside = f"{path}{name.rpartition('/')[2]}/"
            yield self._take(f"{inside}", "subsection", head)
            yield from self.section(subsection, inside, depth + 1)

    def _field(self, field: dict[str, Any], path: str, depth: int) -> Iterator[FieldValue]:
        name, kind = f"{path}{field['name']}", str(field.get("type", ""))
        size, count = int(field["size"]), field.get("array_len")
        if "index" in field:
            name = f"{name}[{int(field['index'])}]"
        inner = field.get("struct")
        if count is None:
            yield from self._element(name, kind, size, inner, depth)
            return
        if inner is None and (kind not in _NUMBERS or (size == 1 and int(count) > SHOWN_BYTES)):
            yield self._take(name, f"{kind}[{int(count)}]", size * int(count))
            return
        for index in range(int(count)):
            yield from self._element(f"{name}[{index}]", kind, size, inner, depth)

    def _element(
        self, name: str, kind: str, size: int, inner: Any, depth: int
    ) -> Iterator[FieldValue]:
        if not isinstance(inner, dict) or not inner.get("fields"):
            yield self._take(name, kind, size)
            return
        begin = self.at
        yield from self.section(inner, f"{name}.", depth + 1)
        if self.at - begin != size:
            raise ValueError(f"{name}: {size} bytes described, {self.at - begin} named")

    def _take(self, name: str, kind: str, size: int) -> FieldValue:
        self._fields += 1
        if size < 0 or self._fields > _FIELDS_LIMIT:
            raise ValueError(f"{name}: {size} bytes")
        begin, self.at = self.at, self.at + size
        data = self._payload[begin : self.at]
        if len(data) < size:
            raise ValueError(f"{name}: {size} bytes, {len(data)} are left")
        value: int | str = data[:SHOWN_BYTES].hex(" ") + (" …" if size > SHOWN_BYTES else "")
        if kind in _NUMBERS and size in (1, 2, 4, 8):
            value = int.from_bytes(data, "big", signed=kind in _SIGNED)
        return FieldValue(name, kind, begin, size, value)
