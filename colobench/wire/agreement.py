"""Settings that both nodes must have, as the first thing that the primary says of itself.

They are a subsection of CONFIGURATION, written as QEMU writes those of its own (such as
``configuration/capabilities``)::

    05 SUBSECTION | u8 length, name | be32 version 1 | be32 length, JSON object

Only streams of our own machine types have it; a stream for a real QEMU has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from colobench.wire.errors import HeaderError, SettingsDiffer
from colobench.wire.format import BE32, SectionType, counted_string
from colobench.wire.reading import Parser, StreamBuffer

NAME: Final = "configuration/colobench-settings"
VERSION: Final = 1
#: The longest JSON that we read, in bytes. Ours has some hundreds.
LENGTH_LIMIT: Final = 16 * 1024
_HEAD: Final = bytes([SectionType.SUBSECTION]) + counted_string(NAME) + BE32.pack(VERSION)


def encode_agreement(settings: Mapping[str, Any]) -> bytes:
    """Write the subsection; `settings` are values by name, as JSON has them."""
    text = json.dumps(settings).encode()
    return _HEAD + BE32.pack(len(text)) + text


def parse_agreement(at: StreamBuffer, ours: Mapping[str, Any]) -> Parser[None]:
    """Parse the subsection, and compare it with our own settings.

    Raises
    ------
    HeaderError
        If something else comes.
    SettingsDiffer
        If a setting is another than ours; the error names each with both values.
    """
    offset = at.offset
    head = yield len(_HEAD)
    if head != _HEAD:
        raise HeaderError(
            f"subsection {NAME}", expected=_HEAD.hex(" "), found=head.hex(" "), offset=offset
        )
    (length,) = BE32.unpack((yield BE32.size))
    if length > LENGTH_LIMIT:
        raise HeaderError(
            f"subsection {NAME}",
            expected=f"at most {LENGTH_LIMIT} bytes",
            found=length,
            offset=at.offset,
        )
    offset = at.offset
    text = yield length
    try:
        theirs = json.loads(text)
    except (ValueError, RecursionError):
        theirs = None
    if not isinstance(theirs, dict):
        raise HeaderError(
            f"subsection {NAME}", expected="a JSON object", found=repr(text[:80]), offset=offset
        )
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if names:
        raise SettingsDiffer(
            "settings of the primary",
            expected=_shown(ours, names),
            found=_shown(theirs, names),
            offset=offset,
        )


def _shown(settings: Mapping[str, Any], names: list[str]) -> str:
    """Write settings by name, those of a peer no longer than is of use."""
    return ", ".join(f"{name} {json.dumps(settings.get(name))}"[:80] for name in names[:20])
