"""The vmdescription: JSON after a migration that lists the fields of each device's state.

Source: QEMU's ``docs/devel/migration`` and the output of QEMU 7.2 and 10.0. Payloads have no length
on the wire. From this description, a reader that does not know the devices finds where each
payload ends.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from colobench.wire.errors import VMDescriptionError
from colobench.wire.format import TARGET_PAGE_SIZE

if TYPE_CHECKING:
    from colobench.wire.vmstate import Device

#: Bytes before a subsection's fields, without its name: type, length of the name, version.
_SUBSECTION_HEADER = 1 + 1 + 4


def vmdescription(devices: Iterable[Device]) -> dict[str, Any]:
    """Describe the present fields of the devices; RAM is not described."""
    return {"page_size": TARGET_PAGE_SIZE, "devices": [device.describe() for device in devices]}


def decode(text: bytes, *, offset: int = 0) -> dict[str, Any]:
    """Decode a vmdescription.

    Raises
    ------
    VMDescriptionError
        If `text` is not a JSON object with a list of devices. The error names `offset`, the
        stream's offset of `text`.
    """
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VMDescriptionError(
            "vmdescription", expected="JSON", found=str(error), offset=offset
        ) from error
    if not isinstance(description, dict) or not isinstance(description.get("devices"), list):
        raise VMDescriptionError(
            "vmdescription",
            expected="an object with a list of devices",
            found=repr(text[:40]),
            offset=offset,
        )
    return description


def payload_sizes(description: dict[str, Any], *, offset: int = 0) -> dict[tuple[str, int], int]:
    """Compute the size in bytes of each device's payload, by (idstr, instance id).

    Raises
    ------
    VMDescriptionError
        If a device lacks a name or a size. The error names `offset`, the stream's offset of the
        description.
    """
    sizes: dict[tuple[str, int], int] = {}
    for device in description["devices"]:
        try:
            sizes[str(device["name"]), int(device["instance_id"])] = _size(device)
        except (
            *(LookupError, TypeError, ValueError, AttributeError, OverflowError),
            RecursionError,
        ) as error:
            raise VMDescriptionError(
                "vmdescription",
                expected="a device's name, instance_id and sizes",
                found=f"{error!r} in {reprlib.repr(device)[:80]}",
                offset=offset,
            ) from error
    return sizes


def _size(section: dict[str, Any]) -> int:
    # A struct field's size already includes the fields nested in it.
    size = sum(int(field["size"]) * int(field.get("array_len", 1)) for field in section["fields"])
    for subsection in section.get("subsections", ()):
        size += _SUBSECTION_HEADER + len(subsection["vmsd_name"].encode()) + _size(subsection)
    if size < 0:
        raise ValueError(f"size {size}")
    return size
