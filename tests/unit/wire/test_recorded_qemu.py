"""Each recording of a real QEMU is read to its last byte, with the pages that QEMU counted."""

from __future__ import annotations

from collections import Counter

import pytest

from colobench.peers.dataset import RecordingEntry, read_manifest, read_recording
from colobench.peers.recordings import CHECKPOINTS, PLANS
from colobench.wire.dissect import UNEXPLAINED, Item, dissect
from places import CLONE

DIRECTORY = CLONE / "datasets/qemu"
ENTRIES = {entry.name: entry for entry in read_manifest(DIRECTORY)}


def items_of(entry: RecordingEntry) -> tuple[list[Item], bytes]:
    file = entry.files[0]
    data = read_recording(DIRECTORY / file["name"], file["sha256"])
    assert len(data) == file["bytes"]
    return dissect(data, conversation=entry.way == "colo"), data


def pages(items: list[Item]) -> Counter[str]:
    found: Counter[str] = Counter()
    for item in items:
        if item.kind in ("PAGE", "ZERO", "XBZRLE", "COMPRESS_PAGE"):
            found[item.kind] += (
                1 if item.detail.startswith("page ") else int(item.detail.split()[0])
            )
    return found


def test_there_is_a_recording_of_each_plan() -> None:
    assert list(ENTRIES) == [plan.name for plan in PLANS]
    files = {file["name"] for entry in ENTRIES.values() for file in entry.files}
    assert {path.name for path in DIRECTORY.iterdir()} == files | {"README.md", "manifest.json"}
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) < 1_000_000


@pytest.mark.parametrize("name", ENTRIES)
def test_recording_is_read_to_the_last_byte(name: str) -> None:
    entry = ENTRIES[name]
    items, data = items_of(entry)
    end = 0
    for item in items:
        assert item.offset == end
        end += item.length
    assert end == len(data)
    assert [item for item in items if item.kind == UNEXPLAINED] == []
    devices = sum(item.kind == "payload" for item in items)
    assert devices >= 25
    found = pages(items)
    if entry.way == "file":
        # With compression, QEMU counts pages as duplicate that it has sent otherwise.
        if "compress" not in entry.capabilities:
            assert found["ZERO"] == entry.ram["duplicate"]
        assert found["PAGE"] == entry.ram["normal"]
    if entry.way == "colo":
        requests = [item for item in items if item.title == "CHECKPOINT_REQUEST"]
        assert len(requests) == CHECKPOINTS
