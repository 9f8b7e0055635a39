"""Mark of a migration file: the disks, by their generation, and the checkpoint that it belongs to.

It is the stream's last part, a description of devices (VMDESCRIPTION) that describes none. QEMU
reads it and ignores it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from colobench.errors import LocalError
from colobench.wire.format import SECTION, SectionType

_FORM: Final = re.compile(
    rb'\{"page_size": 4096, "devices": \[\], "colobench-disks": '
    rb'\{"generation": "([0-9a-f]{32})", "checkpoint": ([0-9]{1,18})\}\}\Z'
)
#: More bytes than a mark has.
_MOST_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class DiskMark:
    """Disks that a file belongs to.

    Attributes
    ----------
    generation
        Generation that their images have since the migration.
    checkpoint
        Number of the checkpoint.
    """

    generation: str
    checkpoint: int

    def to_bytes(self) -> bytes:
        """Encode it, for behind the stream's EOF."""
        members = {"page_size": 4096, "devices": [], "colobench-disks": asdict(self)}
        text = json.dumps(members).encode()
        return SECTION.pack(SectionType.VMDESCRIPTION, len(text)) + text


def read_mark(file: Path) -> DiskMark | None:
    """Read a file's mark; None if it has none, or there is no file.

    Raises
    ------
    LocalError
        If the file cannot be read.
    """
    try:
        with open(file, "rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - _MOST_BYTES))
            end = opened.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocalError(f"{file}: cannot be read: {error.strerror}") from error
    found = _FORM.search(end)
    return None if found is None else DiskMark(found[1].decode(), int(found[2]))
