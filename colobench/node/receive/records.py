"""Records of a receiver: checkpoints that are committed, and checkpoints that are in the file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol


def saved_title(number: int | None) -> str:
    """Name the checkpoint in a file, which may also have one of an earlier session."""
    return "no checkpoint of this session" if number is None else f"checkpoint {number}"


class Record(Protocol):
    """A record: `str` gives its line for a person."""

    def as_json(self) -> dict[str, Any]:
        """Give the record as JSON values."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The address that a primary may migrate to, and URIs of the disks that it may write to."""

    address: str
    disks: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Give the record as JSON values."""
        disks = {"disks": list(self.disks)} if self.disks else {}
        return {"event": "listening", "address": self.address, **disks}

    def __str__(self) -> str:
        return ", ".join([f"listening on {self.address}", *self.disks])


@dataclass(frozen=True, slots=True)
class RestoredDisks:
    """Disks that have become those of the checkpoint in the file.

    Attributes
    ----------
    number
        Number of the checkpoint.
    file
        Path of the file.
    disks
        Paths of the disks' images.
    bytes
        Bytes of them that were undone.
    """

    number: int
    file: str
    disks: list[str]
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """Give the record as JSON values."""
        return {"event": "restored", **asdict(self)}

    def __str__(self) -> str:
        return (
            f"restored checkpoint {self.number} of {self.file} on {', '.join(self.disks)}: "
            f"{self.bytes:,} bytes undone"
        )


@dataclass(frozen=True, slots=True)
class ReceivedCheckpoint:
    """A checkpoint that is committed; number 0 is the migrated state.

    Attributes
    ----------
    number
        Number of the checkpoint.
    pages, zero_pages
        Page records, and ZERO ones among them.
    bytes
        Bytes of the stream from the request on (of the whole migration, for number 0).
    device_bytes, devices
        Bytes of the device buffer, and number of devices in it.
    milliseconds
        Time from the answer to the primary's request, after which its guest stops, to LOADED,
        after which it runs. For number 0, time from the first byte to READY.
    machine
        QEMU's machine type, whose name ends with a version of QEMU.
    """

    number: int
    pages: int
    zero_pages: int
    bytes: int
    device_bytes: int
    devices: int
    milliseconds: float
    machine: str

    def as_json(self) -> dict[str, Any]:
        """Give the record as JSON values."""
        values = asdict(self)
        return {"event": "checkpoint", **values, "milliseconds": round(self.milliseconds, 3)}

    def __str__(self) -> str:
        what = f"checkpoint {self.number}" if self.number else f"migration of {self.machine}"
        return (
            f"{what}: {self.pages:,} pages, {self.bytes:,} bytes, {self.devices} devices in "
            f"{self.device_bytes:,} bytes, {self.milliseconds:.1f} ms"
        )


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint that is in the file now, or one that could not be put there.

    Attributes
    ----------
    number
        Number of the checkpoint.
    file
        Path of the file.
    bytes
        Length of the file.
    milliseconds
        Time that writing took, beside the pause.
    error
        Why it is not in the file; "" if it is.
    kept
        Number of the checkpoint that is in the file; None if it has none of this session.
    """

    number: int
    file: str
    bytes: int
    milliseconds: float
    error: str
    kept: int | None

    def as_json(self) -> dict[str, Any]:
        """Give the record as JSON values."""
        event = "not-saved" if self.error else "saved"
        return {"event": event, **asdict(self), "milliseconds": round(self.milliseconds, 3)}

    def __str__(self) -> str:
        if self.error:
            kept = saved_title(self.kept)
            return f"checkpoint {self.number} is not saved: {self.error}; {self.file} has {kept}"
        return (
            f"saved checkpoint {self.number}: {self.file}, {self.bytes:,} bytes, "
            f"{self.milliseconds:.1f} ms"
        )
