"""Settings of the buffer in which a secondary keeps what a takeover has to undo on its disks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from colobench.fields.kinds import Directory, Size
from colobench.fields.part import Part, setting

#: A guest's largest requests fit many times.
LIMIT_MIN: Final = 4 << 20
LIMIT_MAX: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class DiskBufferSettings(Part):
    """Buffer of each of a secondary's disks."""

    title = "disks"

    limit: int = setting(
        Size(LIMIT_MIN, LIMIT_MAX),
        64 << 20,
        "most bytes of each disk that the secondary keeps between two checkpoints; at a "
        "quarter of it a checkpoint is taken, at half of it the guest's writes wait",
        name="disk_buffer_limit",
    )
    directory: str | None = setting(
        Directory(),
        None,
        "directory for files with what is kept, from which `colobench disk repair` can undo the "
        "image of a secondary that was killed; else it is kept in RAM",
        name="disk_buffer",
    )
