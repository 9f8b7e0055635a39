"""A recorded session as a file, and the QEMU whose guest is in it."""

from __future__ import annotations

import contextlib
import lzma
import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colobench.errors import LocalError
from colobench.peers.dataset import RecordingEntry, read_manifest
from colobench.peers.firmware import guest_image
from colobench.peers.qemu import PROGRAM, QEMUUnavailable, find_program
from colobench.peers.recordings import PAGES
from colobench.wire.session_places import SessionPlaces, find_places

#: First bytes of a file that is compressed with xz.
_XZ: Final = b"\xfd7zXZ\0"
_PIECE: Final = 1 << 20
#: Devices of KVM that QEMU's own emulation of a processor (TCG) does not have.
KVM_DEVICES: Final = ("kvmclock",)


@contextlib.contextmanager
def open_session(path: str | os.PathLike[str]) -> Iterator[tuple[memoryview, SessionPlaces]]:
    """Open a recorded COLO session, and find its parts.

    Parameters
    ----------
    path
        File with what the primary has sent, as ``colobench record-qemu`` writes it; it may be
        compressed with xz.

    Yields
    ------
    data, places
        The session's bytes, mapped, and the places of its parts.

    Raises
    ------
    LocalError
        If the file cannot be read, or is no COLO session with a complete checkpoint.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file, tempfile.TemporaryFile() as plain:
            is_compressed = file.read(len(_XZ)) == _XZ
            file.seek(0)
            if is_compressed:
                with lzma.open(file) as source:
                    while piece := source.read(_PIECE):
                        plain.write(piece)
                plain.flush()
            descriptor = plain.fileno() if is_compressed else file.fileno()
            if not os.fstat(descriptor).st_size:
                raise LocalError("expected a COLO session, found an empty file")
            mapped = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise LocalError(f"{name}: expected a file that can be read, found: {words}") from error
    except LocalError as error:
        raise LocalError(f"{name}: {error}") from error
    data = memoryview(mapped)
    try:
        try:
            places = find_places(data)
        except LocalError as error:
            raise LocalError(f"{name}: {error}") from error
        yield data, places
    finally:
        # A part of it that is still in use keeps the mapping.
        with contextlib.suppress(BufferError):
            data.release()
            mapped.close()


@dataclass(frozen=True, slots=True)
class RecordedGuest:
    """The QEMU to which a recording of ``colobench record-qemu`` can be sent.

    Attributes
    ----------
    command
        Its program and arguments, without firmware.
    image
        Its firmware.
    lacks
        Devices of the recording that this QEMU does not have.
    """

    command: tuple[str, ...]
    image: bytes
    lacks: tuple[str, ...] = ()


def recorded_guest(path: str | os.PathLike[str]) -> RecordedGuest:
    """Find the QEMU of a recording in the manifest beside it; without KVM, it emulates.

    Raises
    ------
    LocalError
        If no manifest beside the file names it.
    """
    entry = _entry_of(Path(path))
    arguments = list(entry.arguments)
    image = guest_image(PAGES)
    try:
        return RecordedGuest((find_program(), *arguments), image)
    except QEMUUnavailable:
        emulated = [each.replace("accel=kvm", "accel=tcg") for each in arguments]
        return RecordedGuest((PROGRAM, *emulated), image, KVM_DEVICES)


def _entry_of(path: Path) -> RecordingEntry:
    for entry in read_manifest(path.parent):
        if any(file["name"] == path.name for file in entry.files):
            return entry
    raise LocalError(
        f"{path}: expected an address, or a QEMU to start, because no manifest beside this file "
        "says which QEMU it was"
    )
