"""Check of the disks of a guest that ran the program ``sectors``: images against the guest's RAM.

The RAM says for each run of sectors which write or discard was acknowledged last, and which was
submitted last (`colobench.guest.sector_table`). Each sector of the run must be as one of those
between the two has left it: with a write, or with the zeros of a discard. If the host's cache was
lost, the last one that a flush has covered takes the place of the one that was acknowledged. A
sector is

* *torn* if it is mixed of two writes, or was written by nobody;
* *lost* if it holds an older write than it must, or zeros that no discard between the two has left;
* *resurrected* if it holds a later write than the guest has submitted: one that was undone when
  another node took over from an earlier moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.guest.sector_table import (
    ACKNOWLEDGED,
    DISCARDED,
    DURABLE,
    ENTRY_BYTES,
    FAILED,
    FLUSH_COVERS,
    HEADER_WORDS,
    MISMATCHED,
    PLACE,
    RUN_BYTES,
    RUN_SECTORS,
    SECTOR_MAGIC,
    SECTOR_WORDS,
    SUBMITTED,
    WRITTEN,
    table_begins,
)

#: Runs that are looked at together.
_CHUNK = 512
_Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class WrongSector:
    """A sector that holds another write than it may.

    Attributes
    ----------
    disk, sector
        Number of the disk, and of the sector.
    kind
        ``torn``, ``lost`` or ``resurrected``.
    least, most
        Sequence numbers of the writes or discards between which it must be.
    found
        Sequence number of the write that it holds, 0 for zeros; of a torn sector what its header
        says.
    """

    disk: int
    sector: int
    kind: str
    least: int
    most: int
    found: int

    def __str__(self) -> str:
        return (
            f"disk {self.disk}, sector {self.sector}, {self.kind}: expected write {self.least} to "
            f"{self.most}, found {self.found}"
        )


@dataclass(frozen=True, slots=True)
class SectorsVerdict:
    """Result of `check_sectors`.

    Attributes
    ----------
    written, failed
        Numbers of writes and discards that the guest was told are done, and of requests that
        failed.
    mismatched
        Number of sectors that the guest itself has found wrong.
    checked
        Number of sectors that were compared.
    torn, lost, resurrected
        Numbers of sectors.
    wrong
        The first of them, at most 100.
    """

    written: int
    failed: int
    mismatched: int
    checked: int
    torn: int
    lost: int
    resurrected: int
    wrong: tuple[WrongSector, ...]

    @property
    def right(self) -> bool:
        """Whether no sector was found wrong, by the guest or here."""
        return not (self.torn or self.lost or self.resurrected or self.mismatched)

    def __str__(self) -> str:
        first = "".join(f"\n  {each}" for each in self.wrong[:3])
        return (
            f"{self.checked} sectors after {self.written} writes: {self.torn} torn, {self.lost} "
            f"lost, {self.resurrected} resurrected; the guest found {self.mismatched} wrong{first}"
        )


def check_sectors(
    images: Sequence[str | Path],
    ram: npt.NDArray[np.uint8],
    seed: int,
    *,
    limit: int = 100,
    cache_lost: bool = False,
) -> SectorsVerdict:
    """Compare images with the RAM of the guest that has written them.

    Parameters
    ----------
    images
        Paths of the raw images, in the order of the disks. Nobody may write to them meanwhile.
    ram
        uint8[bytes], pc.ram of the stopped guest.
    seed
        Seed of the program.
    limit
        Number of wrong sectors that the result lists.
    cache_lost
        Whether writes that were not flushed may be lost.

    Raises
    ------
    LocalError
        If an image cannot be read.
    """
    sizes = [_size(path) for path in images]
    begins = table_begins(sizes, len(ram))
    wrong: list[WrongSector] = []
    numbers = dict.fromkeys(("torn", "lost", "resurrected"), 0)
    checked = 0
    durable = _word(ram, DURABLE) if cache_lost else None
    for disk, path in enumerate(images):
        table = ram[begins[disk] : begins[disk + 1]].view(np.uint64).reshape(-1, ENTRY_BYTES // 8)
        checked += len(table) * RUN_SECTORS
        with open(path, "rb") as file:
            for begin in range(0, len(table), _CHUNK):
                part = table[begin : begin + _CHUNK]
                data = file.read(len(part) * RUN_BYTES)
                if len(data) < len(part) * RUN_BYTES:
                    raise LocalError(f"{path}: expected {sizes[disk]} bytes, found fewer")
                sectors = np.frombuffer(data, np.uint64).reshape(-1, SECTOR_WORDS)
                bounds = _least(part, durable), part[:, SUBMITTED // 8], part[:, DISCARDED // 8]
                found = _find_wrong(disk, begin * RUN_SECTORS, sectors, bounds, seed, numbers)
                wrong += found[: limit - len(wrong)]
    written, failed, mismatched = (_word(ram, at) for at in (WRITTEN, FAILED, MISMATCHED))
    return SectorsVerdict(written, failed, mismatched, checked, **numbers, wrong=tuple(wrong))


def _word(ram: npt.NDArray[np.uint8], at: int) -> int:
    return int(ram[at : at + 8].view(np.uint64)[0])


def _least(table: _Words, durable: int | None) -> _Words:
    """Give the oldest change that each run may be of; the first `durable` ones are flushed."""
    acknowledged = table[:, ACKNOWLEDGED // 8]
    if durable is None:
        return acknowledged
    is_flushed = table[:, PLACE // 8] <= np.uint64(durable)
    return np.where(is_flushed, acknowledged, table[:, FLUSH_COVERS // 8])


def _size(path: str | Path) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise LocalError(f"{path}: expected an image, found {error.strerror}") from error


def _find_wrong(
    disk: int,
    first: int,
    sectors: _Words,
    bounds: tuple[_Words, _Words, _Words],
    seed: int,
    numbers: dict[str, int],
) -> list[WrongSector]:
    """List the wrong ones of some sectors, from number `first` on, and count them."""
    least, most, discarded = (np.repeat(each, RUN_SECTORS) for each in bounds)
    places = np.arange(first, first + len(sectors), dtype=np.uint64)
    found, whole = sectors[:, 3], _are_whole(disk, places, sectors, seed)
    empty = ~sectors.any(axis=1)
    kinds = {
        "torn": ~(whole | empty),
        "lost": (whole & (found < least)) | (empty & (discarded < least)),
        "resurrected": whole & (found > most),
    }
    wrong = []
    for kind, those in kinds.items():
        numbers[kind] += int(those.sum())
        wrong += [
            WrongSector(disk, first + i, kind, int(least[i]), int(most[i]), int(found[i]))
            for i in np.flatnonzero(those).tolist()
        ]
    return wrong


def _are_whole(disk: int, places: _Words, sectors: _Words, seed: int) -> npt.NDArray[np.bool_]:
    """Say of each sector whether all of it is one write to this place."""
    header: list[Any] = [SECTOR_MAGIC, disk, places, sectors[:, 3], seed]
    key = _splitmix64(np.uint64(seed ^ disk))
    key = _splitmix64(_splitmix64(key ^ places) ^ sectors[:, 3])
    whole = np.ones(len(sectors), np.bool_)
    for word, expected in enumerate(header):
        whole &= sectors[:, word] == np.asarray(expected, np.uint64)
    for word in range(HEADER_WORDS, SECTOR_WORDS):
        whole &= sectors[:, word] == _splitmix64(key + np.uint64(word))
    return whole


def _splitmix64(x: Any) -> Any:
    """Mix 64 bits, as `colobench.guest.numba.cpu.splitmix64`."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
