"""Recordings of a real QEMU as files: compressed, with a manifest that says how they were made."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
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
        _replace(directory / MANIFEST, text.encode())
        said(f"{plan.name}: {sum(file['bytes'] for file in entry.files):,} bytes, {plan.summary}")
    return list(entries.values())


def _write(directory: Path, plan: RecordingPlan, stream: RecordedStream) -> RecordingEntry:
    files = []
    for number, data in enumerate(stream.channels):
        name = plan.name if number == 0 else f"{plan.name}-channel-{number - 1}"
        _replace(directory / f"{name}.xz", lzma.compress(data, preset=9))
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


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole, or keep the old one."""
    aside = path.with_name(f".{path.name}.new")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise LocalError(f"{path}: cannot be written: {error.strerror or error}") from error


def _as_json(entry: RecordingEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in RecordingEntry.__slots__}


def read_manifest(directory: Path) -> list[RecordingEntry]:
    """Read the entries of a directory's manifest; none if there is none.

    Raises
    ------
    LocalError
        If it cannot be read, or is another program's.
    """
    path = directory / MANIFEST
    try:
        return [_entry(each) for each in json.loads(path.read_text("utf-8"))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LocalError(
            f"{path}: expected a file that can be read, found: {error.strerror or error}"
        ) from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise LocalError(
            f"{path}: expected a manifest of recordings, as colobench record-qemu writes it, "
            f"found {error!r}"
        ) from error


def _entry(values: dict[str, Any]) -> RecordingEntry:
    lists = ("arguments", "capabilities", "files")
    entry = RecordingEntry(**{**values, **{name: tuple(values[name]) for name in lists}})
    texts = [entry.name, *entry.arguments, *[file["name"] for file in entry.files]]
    if wrong := [each for each in texts if not isinstance(each, str)]:
        raise TypeError(f"expected text, found {wrong[0]!r}")
    return entry


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
