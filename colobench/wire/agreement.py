"""Settings that both nodes must share, in the first part of the primary's stream.

They are a subsection of CONFIGURATION, in the format of QEMU's own ones (such as
``configuration/capabilities``)::

    05 SUBSECTION | u8 length, name | be32 version 1 | be32 length, JSON object

Only streams of our own machine types have it; a stream for a real QEMU has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from colobench.wire.buffer import StreamBuffer
from colobench.wire.errors import HeaderError, SettingsDiffer
from colobench.wire.format import BE32, SectionType, counted_string
from colobench.wire.steps import BytesParser

NAME: Final = "configuration/colobench-settings"
VERSION: Final = 1
#: Limit of the JSON, bytes. Ours has some hundreds.
LENGTH_LIMIT: Final = 16 * 1024
_HEAD: Final = bytes([SectionType.SUBSECTION]) + counted_string(NAME) + BE32.pack(VERSION)


def encode_agreement(settings: Mapping[str, Any]) -> bytes:
    """Encode the subsection; `settings` has JSON values by name."""
    text = json.dumps(settings).encode()
    return _HEAD + BE32.pack(len(text)) + text


def parse_agreement(at: StreamBuffer, ours: Mapping[str, Any]) -> BytesParser[None]:
    """Parse the subsection, and compare it with our own settings.

    Raises
    ------
    HeaderError
        If it is not such a subsection.
    SettingsDiffer
        If settings differ from ours; the error names each with both values.
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
    """Format settings for an error, with limits for a peer's: 20 settings, 80 characters each."""
    return ", ".join(f"{name} {json.dumps(settings.get(name))}"[:80] for name in names[:20])
