"""Records made up for tests of what reads records."""

from __future__ import annotations

import numpy as np

from colobench.lab.session.record import CheckpointRecord, Records


def make_record(number, *, pages=(), layout="separated", words=17, **values):
    """Make a record; `pages` are those that it sent, of ``64 * words``."""
    bitmap = np.zeros(words, dtype="<u8")
    for page in pages:
        bitmap[page // 64] |= np.uint64(1 << (page % 64))
    figures = {
        "number": number,
        "cause": "timer",
        "layout": layout,
        "capture": "stop-and-send",
        "time": number / 10,
        "pages": len(pages),
        "zero_pages": 0,
        "flushed_pages": len(pages),
        "bytes": 4104 * len(pages),
        "encoded_pages": 0,
        "bytes_saved": 0,
        "compared_pages": 0,
        "equal_pages": 0,
        "device_bytes": 726,
        "primary_buffer_bytes": 726,
        "secondary_buffer_bytes": 726,
        "frames": 0,
        "guest_work": 100 * number,
        "verified": None,
        "pause_ms": 8.0,
        "skew_ms": None,
        "commit_ms": 5.0,
        "loaded_ms": 8.0,
        "dirty_bitmap": bitmap.tobytes(),
    }
    phases = ("request", "stop", "collect", "ram", "devices", "received", "flush", "load", "resume")
    figures |= {f"{phase}_ms": 1.0 for phase in phases} | dict.fromkeys(
        ("verify_ms", "copy_ms", "hash_ms"), 0.0
    )
    return CheckpointRecord(**figures | values)


def make_records(count, **values):
    """Make records 1 to `count`."""
    return Records(make_record(number, **values) for number in range(1, count + 1))
