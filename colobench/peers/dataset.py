"""Recordings of a real QEMU as files: compressed, with a manifest that says how they were made."""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.peers.recorder import RecordedStream, record
from colobench.peers.recordings import RecordingPlan

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class RecordingEntry:
    """An entry of the manifest.

    Attributes
    ----------
    name, summary, way
        As in `RecordingPlan`.
    qemu
        QEMU's version.
    arguments
        QEMU's arguments, besides those of the firmware, the monitor and the migration.
    capabilities
        Migration capabilities.
    ram
        Numbers of ``query-migrate`` at the end: pages sent as ``normal`` and as ``duplicate``.
    files
        The files, that of the main connection first: name, bytes, SHA-256 of the stream.
    """

    name: str
    summary: str
    way: str
    qemu: str
    arguments: tuple[str, ...]
    capabilities: tuple[str, ...]
    ram: dict[str, int]
    files: tuple[dict[str, Any], ...]


def write_recordings(
    directory: Path,
    plans: Sequence[RecordingPlan],
    said: Callable[[str], object] = lambda line: None,
) -> list[RecordingEntry]:
    """Record each plan into a directory, and bring its manifest up to date.

    Parameters
    ----------
    directory
        Directory of the files; made if there is none.
    plans
        The recordings to make. Entries of others stay.
    said
        Function that is called with a line after each recording.
    """
    directory.mkdir(parents=True, exist_ok=True)
    entries = {entry.name: entry for entry in read_manifest(directory)}
    for plan in plans:
        entry = _write(directory, plan, record(plan))
        entries[plan.name] = entry
        text = json.dumps([_as_json(each) for each in entries.values()], indent=1) + "\n"
        (directory / MANIFEST).write_text(text)
        said(f"{plan.name}: {sum(file['bytes'] for file in entry.files):,} bytes, {plan.summary}")
    return list(entries.values())


def _write(directory: Path, plan: RecordingPlan, stream: RecordedStream) -> RecordingEntry:
    files = []
    for number, data in enumerate(stream.channels):
        name = plan.name if number == 0 else f"{plan.name}-channel-{number - 1}"
        (directory / f"{name}.xz").write_bytes(lzma.compress(data, preset=9))
        digest = hashlib.sha256(data).hexdigest()
        files.append({"name": f"{name}.xz", "bytes": len(data), "sha256": digest})
    return RecordingEntry(
        plan.name,
        plan.summary,
        plan.way,
        stream.version,
        stream.arguments,
        plan.capabilities,
        stream.ram,
        tuple(files),
    )


def _as_json(entry: RecordingEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in RecordingEntry.__slots__}


def read_manifest(directory: Path) -> list[RecordingEntry]:
    """Read the entries of a directory's manifest; none if there is none."""
    try:
        text = (directory / MANIFEST).read_text()
    except FileNotFoundError:
        return []
    return [_entry(each) for each in json.loads(text)]


def _entry(values: dict[str, Any]) -> RecordingEntry:
    lists = ("arguments", "capabilities", "files")
    return RecordingEntry(**values | {name: tuple(values[name]) for name in lists})


def read_recording(path: Path, sha256: str | None = None) -> bytes:
    """Read a recorded stream.

    Raises
    ------
    LocalError
        If it differs from that with this SHA-256.
    """
    data = lzma.decompress(path.read_bytes())
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise LocalError(f"{path}: expected SHA-256 {sha256}, found {found}")
    return data
