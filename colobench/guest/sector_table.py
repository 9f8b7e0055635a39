"""What the programs ``sectors`` write to their disks, and note in pc.ram.

A sector that they have written says which write it was. Its 64 words are the magic, the number of
the disk, that of the sector, the sequence number of the write, and the seed; each further word
follows from these and its place, so that a sector that is mixed of two writes is recognized.

A *run* is 32 consecutive sectors, which a request writes or discards with one sequence number;
numbers begin at 1. At most one request to a run is under way. pc.ram has

=========  =================================================================================
offset
=========  =================================================================================
0          the words SEQUENCE to DURABLE below
4096       for each run of each disk the words ACKNOWLEDGED to DISCARDED; the disks are one after
           another
=========  =================================================================================

So each sector of a run holds what a request between ACKNOWLEDGED and SUBMITTED has left, whatever
happened to the guest. If the host's cache is lost, too, the request is at least the last that was
flushed: ACKNOWLEDGED if PLACE is at most DURABLE, else FLUSH_COVERS. A write leaves its number. A
discard leaves zeros (`colobench.block.backend.BlockBackend.discard`), as does none at all; so zeros
are right if DISCARDED is not before the first of these requests.
"""

from __future__ import annotations

from collections.abc import Sequence

#: First word of a sector, and number of the words that name the write.
SECTOR_MAGIC, HEADER_WORDS = int.from_bytes(b"COLOSECT", "little"), 5
SECTOR_BYTES, SECTOR_WORDS = 512, 64
RUN_SECTORS = 32
RUN_BYTES = RUN_SECTORS * SECTOR_BYTES

#: Words of pc.ram, as offsets: last sequence number; numbers of writes and discards that were
#: acknowledged, of reads that were compared, of flushes, of requests that failed, and of sectors
#: that were not as they may be; disk and sector of the last one of these; number of the first
#: writes and discards, in the order in which they were acknowledged, that a flush has covered.
(
    SEQUENCE, WRITTEN, COMPARED, FLUSHED, FAILED, MISMATCHED, MISMATCH_DISK, MISMATCH_SECTOR,
    DURABLE,
) = range(0, 72, 8)  # fmt: skip
TABLE_AT = 4096
#: Words of a run's entry, as offsets: sequence numbers of the last write or discard that was
#: acknowledged, of the last that was submitted, and of the last but these that is known to be
#: flushed; the place of the acknowledged one among all that were acknowledged; and the sequence
#: number of the last discard that was submitted.
ACKNOWLEDGED, SUBMITTED, FLUSH_COVERS, PLACE, DISCARDED = range(0, 40, 8)
ENTRY_BYTES = 40


def runs_of(disk_size: int, ram_bytes: int, disks: int) -> int:
    """Return the number of runs of a disk that the table has room for."""
    return min(disk_size // RUN_BYTES, (ram_bytes - TABLE_AT) // ENTRY_BYTES // disks)


def table_begins(disk_sizes: Sequence[int], ram_bytes: int) -> list[int]:
    """Return the offset of each disk's table in pc.ram, and of the end."""
    begins = [TABLE_AT]
    for size in disk_sizes:
        runs = runs_of(size, ram_bytes, len(disk_sizes))
        begins.append(begins[-1] + runs * ENTRY_BYTES)
    return begins
