"""Pairs whose guest writes sectors all the time, and the check of what a survivor's disk has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from colobench.lab.checker.sectors import SectorsVerdict, check_sectors
from colobench.lab.session.session import Session

DISK_BYTES = 4 << 20
RAM_BYTES = 4 << 20
SEED = 7


@contextmanager
def pair(directory: Path, **settings: Any) -> Iterator[Session]:
    """Start a pair whose guest writes sectors all the time."""
    usual: dict[str, Any] = {
        "ram": RAM_BYTES,
        "guest": "sectors",
        "seed": SEED,
        "writes_per_tick": 8,
        "delay": 20,
        "disks": [f"{directory}/disk,size={DISK_BYTES}"],
    }
    with Session(**(usual | settings)) as session:
        yield session


def image_of(directory: Path, swapped: bool) -> Path:
    """Give the image of the guest that serves; each failover of a secondary swaps them."""
    return directory / ("disk.replica" if swapped else "disk")


def judge(session: Session, role: str, image: Path) -> SectorsVerdict:
    """Stop a survivor's guest, and compare its disk with its RAM; the guest runs on."""
    node = session.nodes[role]
    ram = image.with_suffix(".ram")
    node.execute("stop")
    try:
        # It waits for the requests under way.
        node.execute("x-query-digest")
        node.execute("pmemsave", val=0, size=RAM_BYTES, filename=str(ram))
        return check_sectors([image], np.fromfile(ram, np.uint8), SEED)
    finally:
        node.execute("cont")
