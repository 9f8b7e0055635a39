"""Settings of a guest's disk, written ``FILE[,size=SIZE][,replica=FILE]``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from colobench.block.request import DISK_SIZE_MAX
from colobench.errors import LocalError
from colobench.fields.checks import check_path, show
from colobench.fields.kinds import Texts
from colobench.fields.sizes import parse_size, write_size
from colobench.guest.disk_queue import DISKS_LIMIT

#: A disk's size is a multiple of this, bytes.
DISK_UNIT = 4096


@dataclass(frozen=True, slots=True)
class DiskSettings:
    """A disk of the guest.

    Attributes
    ----------
    image
        Path of the primary's raw image.
    size
        Size in bytes; None until it is known from the image.
    replica
        Path of the secondary's image.
    """

    image: str
    size: int | None
    replica: str

    @classmethod
    def parse(cls, text: str) -> DiskSettings:
        """Read ``FILE[,size=SIZE][,replica=FILE]``; the usual replica is ``FILE.replica``.

        A comma of a file's name is doubled, as in QEMU.

        Raises
        ------
        LocalError
            If it has another form, or a size that no disk has.
        """
        image, *options = _split(check_path("disk", text))
        found: dict[str, str] = {}
        for option in options:
            name, equals, value = option.partition("=")
            if not equals or name not in ("size", "replica") or name in found:
                raise LocalError(
                    f"disk {show(text)}: expected size=SIZE or replica=FILE, each at most once, "
                    f"found {show(option)}"
                )
            found[name] = value
        size = _read_size(found["size"]) if "size" in found else None
        check_path(f"disk {show(text)}", image)
        replica = check_path(f"disk {image}: replica", found.get("replica", f"{image}.replica"))
        return cls(image, size, replica)

    def absolute(self) -> DiskSettings:
        """Return the same with absolute paths, as processes may have other current directories."""
        return replace(
            self, image=os.path.abspath(self.image), replica=os.path.abspath(self.replica)
        )

    def known_size(self) -> int:
        """Return the size.

        Raises
        ------
        LocalError
            If it is not known.
        """
        if self.size is None:
            raise LocalError(f"disk {self.image}: expected a size, found none")
        return self.size

    def __str__(self) -> str:
        parts = [self.image]
        if self.size is not None:
            parts.append(f"size={write_size(self.size)}")
        if self.replica != f"{self.image}.replica":
            parts.append(f"replica={self.replica}")
        return ",".join(part.replace(",", ",,") for part in parts)


class DiskImages(Texts):
    """List of disks, each as text."""

    def __init__(self) -> None:
        super().__init__(DiskSettings.parse, "FILE[,size=SIZE][,replica=FILE]")

    def from_text(self, text: str) -> str:
        """Make the paths absolute."""
        return str(DiskSettings.parse(text).absolute())

    def to_agree(self, value: Sequence[str]) -> Any:
        """Give the sizes, in bytes: each node has images of its own."""
        return [DiskSettings.parse(each).size for each in value]


def check_size(name: str, size: int) -> None:
    """Check a disk's size in bytes, with LocalError."""
    if not 0 < size <= DISK_SIZE_MAX or size % DISK_UNIT:
        raise LocalError(
            f"{name}: expected a size that is a positive multiple of {DISK_UNIT} bytes, at most "
            f"{write_size(DISK_SIZE_MAX)}, found {size}"
        )


def check_disks(disks: Sequence[DiskSettings]) -> None:
    """Check that there are not too many disks, and that each has files of its own.

    Raises
    ------
    LocalError
        If that is not so.
    """
    if len(disks) > DISKS_LIMIT:
        raise LocalError(f"disks: expected at most {DISKS_LIMIT}, found {len(disks)}")
    seen: set[str] = set()
    for path in (path for disk in disks for path in (disk.image, disk.replica)):
        real = os.path.realpath(path)
        if real in seen:
            raise LocalError(f"disks: expected each file once, found {path} twice")
        seen.add(real)


def _split(text: str) -> list[str]:
    """Split at single commas; two stand for one of a name."""
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


def _read_size(text: str) -> int:
    size = parse_size(text)
    check_size("disk", size)
    return size
