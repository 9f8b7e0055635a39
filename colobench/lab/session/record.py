"""Records of checkpoints, which tables, plots and reports read and nothing else."""

from __future__ import annotations

import base64
import builtins
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.lab.percentiles import percentiles
from colobench.node.phases import Mark, durations
from colobench.protocol.colo import VARIANTS
from colobench.settings.file import KEY
from colobench.settings.settings import Settings

#: The marks of one node for one checkpoint, in their order.
Marks: TypeAlias = tuple[Mark, ...]
#: A checkpoint's phases in their order. The guest stands still from ``stop`` to ``resume``.
PHASES = (
    *("request", "stop", "collect", "hash", "copy", "ram"),
    *("devices", "received", "flush", "load", "resume"),
)


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """One committed checkpoint.

    Attributes
    ----------
    number
        1 for the first after migration.
    cause
        ``timer``, ``requested``, ``shutdown`` or ``disk``, or that of the trigger; where output is
        compared, also ``miscompare``, ``passive``, ``timeout`` (output that waited too long for its
        counterpart) or ``overflow``.
    cause_connection, cause_offset
        Connection whose output differed, and the offset of the difference; None unless the cause is
        a miscompare.
    layout
        ``separated`` or ``buffered``.
    capture
        ``stop-and-send``, ``copy-then-send``, ``gap-precopy``, ``copy-on-write`` or
        ``copy-on-write-2``.
    time
        Time of its request, in seconds since the pair entered COLO.
    pages, zero_pages, flushed_pages
        Pages sent in the checkpoint itself, those of them that were all zero, and pages copied from
        RAM cache to RAM.
    passes, pass_pages, pass_bytes, pass_ms
        Passes since the checkpoint before; pages, bytes and milliseconds of sending them. 0 unless
        the capture is ``gap-precopy``.
    encoded_pages, bytes_saved
        Pages that were sent compressed, as what had changed in them, or not at all because nothing
        had; and the bytes by which that is less than the pages as they are. 0 without an encoding.
        With ``divergent`` no page is encoded, and the bytes are those of the equal pages, less
        those of the hashes.
    compared_pages, equal_pages
        With the encoding ``divergent``, dirty pages whose hashes were compared, and those of them
        that the secondary's guest had written alike, so that they were not sent; otherwise 0.
    bytes, device_bytes
        Bytes from primary to secondary since the checkpoint before, those of passes among them; and
        those of device state.
    primary_buffer_bytes, secondary_buffer_bytes
        Memory that the checkpoint needed on each side beside RAM and the RAM cache; with
        ``copy-then-send``, the primary's includes the memory for copies, as large as RAM.
    frames
        Output frames of the guest that were held, and released by this checkpoint.
    request_ms … resume_ms
        Milliseconds of each phase: the secondary's agreement; stopping the guest; collecting dirty
        pages; hashing them and waiting for the secondary's answer; copying them; sending RAM;
        saving and sending devices; until the secondary commits (it says RECEIVED); flush and load
        on the secondary; the rest, until the guest runs. In the
        buffered layout ``ram`` is filling and sending the one buffer, ``devices`` only saving them.
        Only time counts in which the guest stands still: with ``copy-then-send`` ``ram``,
        ``received``, ``flush`` and ``load`` are 0, and ``devices`` is saving them.
    verify_ms
        Milliseconds that the digests took while the guest stood still, a part of the pause: those
        of both sides, or with ``copy-then-send`` of the primary alone.
    pause_ms
        Milliseconds that the guest stood still: from ``stop`` to ``resume``, and ``verify_ms``.
    skew_ms
        Milliseconds from the stop of the secondary's guest to that of the primary's; None with the
        variant v12, whose secondary stands still anyway.
    commit_ms, loaded_ms
        Milliseconds from the beginning of the pause until the secondary committed, and until the
        primary knew that it had loaded the checkpoint, when the next one may begin.
    guest_work
        Work counter of the guest in the checkpoint.
    verified
        Whether RAM, devices and disks were equal on both sides; None if they were not compared.
    disk_bytes
        Bytes that the guest has written to its disks since the checkpoint before, and that both
        sides have done.
    disk_requests
        Requests that the primary's disks were doing when the guest was stopped.
    disk_write_p50_ms, disk_write_p99_ms
        Median and 99th percentile of the milliseconds from a write's submission until the guest was
        told that it is done, since the checkpoint before; None without a write.
    disk_waits, disk_wait_ms
        Writes that have waited for a checkpoint since the one before, because the secondary had no
        room for what would undo them; and the milliseconds of all of them together.
    disk_hidden_bytes, disk_active_bytes, disk_buffer_bytes
        Bytes in the hidden and the active layers of the secondary's disks when the commit emptied
        them, and those of the layers' buffers that were in use. 0 without disks, as all of these.
    dirty_bitmap
        The pages sent as little-endian 64-bit words, bit i of word w for page 64 w + i; None
        unless the session reports pages.
    flushed_bitmap
        The pages copied from RAM cache to RAM, likewise.
    primary_marks, secondary_marks
        Time at which each phase ended on either side, in nanoseconds of one clock.
    settings
        Settings of the session; None if nobody knows them.
    """

    number: int
    cause: str
    layout: str
    capture: str
    time: float
    pages: int
    zero_pages: int
    flushed_pages: int
    encoded_pages: int
    bytes_saved: int
    compared_pages: int
    equal_pages: int
    bytes: int
    device_bytes: int
    primary_buffer_bytes: int
    secondary_buffer_bytes: int
    frames: int
    request_ms: float
    stop_ms: float
    collect_ms: float
    hash_ms: float
    copy_ms: float
    ram_ms: float
    devices_ms: float
    received_ms: float
    flush_ms: float
    load_ms: float
    resume_ms: float
    verify_ms: float
    pause_ms: float
    skew_ms: float | None
    commit_ms: float
    loaded_ms: float
    guest_work: int
    verified: bool | None
    passes: int = 0
    pass_pages: int = 0
    pass_bytes: int = 0
    pass_ms: float = 0.0
    disk_bytes: int = 0
    disk_requests: int = 0
    disk_write_p50_ms: float | None = None
    disk_write_p99_ms: float | None = None
    disk_waits: int = 0
    disk_wait_ms: float = 0.0
    disk_hidden_bytes: int = 0
    disk_active_bytes: int = 0
    disk_buffer_bytes: int = 0
    cause_connection: str | None = None
    cause_offset: int | None = None
    dirty_bitmap: builtins.bytes | None = field(default=None, repr=False)
    flushed_bitmap: builtins.bytes | None = field(default=None, repr=False)
    primary_marks: Marks = field(default=(), repr=False)
    secondary_marks: Marks = field(default=(), repr=False)
    settings: Settings | None = field(default=None, repr=False)


#: Columns of tables: all attributes but the bitmaps, the marks and the settings.
COLUMNS = [
    each.name
    for each in fields(CheckpointRecord)
    if not each.name.endswith(("_bitmap", "_marks")) and each.name != KEY
]


def merge(
    primary: Mapping[str, Any],
    secondary: Mapping[str, Any],
    digests: Mapping[str, Any] | None,
    settings: Settings,
) -> CheckpointRecord:
    """Make a record of what both nodes said of the same checkpoint.

    Parameters
    ----------
    primary, secondary
        The data of their events X_COLO_CHECKPOINT.
    digests
        The data of the primary's event X_COLO_DIGEST, None if the session does not verify.
    settings
        Settings of the session.
    """
    primary_marks, secondary_marks = _marks(primary), _marks(secondary)
    of_disks: dict[str, Any] = _of_disks(primary) | _of_disks(secondary)
    phases = _phases(primary_marks, secondary_marks)
    of_phases: dict[str, Any] = {f"{phase}_ms": each for phase, each in phases.items()}
    begin, loaded = dict(primary_marks)["request"], dict(primary_marks)["loaded"]
    committed = dict(secondary_marks)["commit"]
    return CheckpointRecord(
        number=primary["checkpoint"],
        cause=primary["cause"],
        layout=primary["layout"],
        capture=primary["capture"],
        time=primary["time"],
        pages=primary["pages"],
        zero_pages=primary["zero-pages"],
        flushed_pages=secondary["flushed-pages"],
        encoded_pages=primary["encoded-pages"],
        bytes_saved=primary["bytes-saved"],
        compared_pages=primary.get("compared-pages", 0),
        equal_pages=primary.get("equal-pages", 0),
        bytes=primary["bytes"],
        device_bytes=primary["device-bytes"],
        primary_buffer_bytes=primary["buffer-bytes"],
        secondary_buffer_bytes=secondary["buffer-bytes"],
        frames=primary["frames-released"],
        **of_phases,
        pause_ms=sum(phases.values()) - phases["request"],
        skew_ms=_skew(primary_marks, secondary_marks, settings),
        commit_ms=(committed - begin) / 1e6,
        loaded_ms=(loaded - begin) / 1e6,
        guest_work=primary["work"],
        verified=None if digests is None else equal_digests(digests, secondary),
        passes=primary["passes"],
        pass_pages=primary["pass-pages"],
        pass_bytes=primary["pass-bytes"],
        pass_ms=primary["pass-ms"],
        **of_disks,
        cause_connection=primary.get("cause-connection"),
        cause_offset=primary.get("cause-offset"),
        dirty_bitmap=_decode(primary.get("pages-bitmap")),
        flushed_bitmap=_decode(secondary.get("flushed-bitmap")),
        primary_marks=primary_marks,
        secondary_marks=secondary_marks,
        settings=settings,
    )


def _of_disks(node: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a node tells of the guest's disks; nothing if it has none."""
    return {
        name.replace("-", "_"): value for name, value in node.items() if name.startswith("disk-")
    }


def equal_digests(primary: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether all that the primary has digested is equal elsewhere: RAM, devices, disks."""
    digested = ((key, digest) for key, digest in primary.items() if key != "checkpoint")
    return all(_equal(digest, other.get(key)) for key, digest in digested)


def _equal(digest: Any, other: Any) -> bool:
    """Compare a digest, or those of a disk's clusters, of which None may be anything."""
    if not isinstance(digest, list) or not isinstance(other, list):
        return bool(digest == other)
    return len(digest) == len(other) and all(
        one is None or one == another for one, another in zip(digest, other, strict=True)
    )


def _phases(primary: Marks, secondary: Marks) -> dict[str, float]:
    """Give the milliseconds of each of `PHASES` and of ``verify`` in which the guest stood."""
    ends = [phase for phase, _ in primary]
    paused = primary[: ends.index("resume") + 1]
    here = dict.fromkeys((*PHASES, "verify"), 0.0) | durations(paused)
    if "received" not in ends[: len(paused)]:
        return here
    there, committed = durations(secondary), dict(secondary)["commit"]
    # The secondary may have committed before the primary saw that its last byte was taken.
    sent = primary[ends.index("received") - 1][1]
    flush, load, verify = there["flush"], there["load"], there.get("verify", 0.0)
    del here["loaded"]
    here["devices"] -= max(0, sent - committed) / 1e6
    here["received"] = max(0, committed - sent) / 1e6
    here["resume"] = (paused[-1][1] - committed) / 1e6 - flush - load - verify
    here |= {"flush": flush, "load": load, "verify": here["verify"] + verify}
    return here


def _skew(primary: Marks, secondary: Marks, settings: Settings) -> float | None:
    """Give the milliseconds from the secondary's stop to the primary's; None if it never runs."""
    if not VARIANTS[settings.checkpoint.variant].secondary_runs:
        return None
    return (dict(primary)["stop"] - dict(secondary)["reply"]) / 1e6


def _marks(record: Mapping[str, Any]) -> Marks:
    return tuple((phase, ended) for phase, ended in record["marks"])


def _decode(words: str | None) -> bytes | None:
    return None if words is None else base64.b64decode(words)


class Records(Sequence[CheckpointRecord]):
    """The records of a session, in order.

    Parameters
    ----------
    records
        First records.
    keep
        Least number of the newest that are kept, of less than twice as many; None for all.
    """

    def __init__(
        self, records: Iterable[CheckpointRecord] = (), *, keep: int | None = None
    ) -> None:
        self._records = list(records)
        self._keep = keep
        self._dropped = 0

    @property
    def total(self) -> int:
        """Number of records so far, including those that are not kept."""
        return self._dropped + len(self._records)

    def since(self, first: int) -> Records:
        """Give the kept records from the one numbered `first`, counted from the beginning."""
        return self[max(0, first - self._dropped) :]

    @overload
    def __getitem__(self, index: int) -> CheckpointRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> CheckpointRecord | Records:
        if isinstance(index, slice):
            return Records(self._records[index])
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[CheckpointRecord]:
        return iter(self._records)

    def __repr__(self) -> str:
        return f"<{len(self)} checkpoint records>"

    def append(self, record: CheckpointRecord) -> None:
        """Add the newest record."""
        self._records.append(record)
        if self._keep is not None and len(self._records) >= 2 * self._keep:
            # Half of them at a time, which costs a constant for each.
            dropped = len(self._records) - self._keep
            self._records = self._records[dropped:]
            self._dropped += dropped

    def column(self, name: str) -> npt.NDArray[Any]:
        """Give one attribute of all records, as an array."""
        return np.array([getattr(record, name) for record in self._records])

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Give all but the bitmaps as arrays, such as ``pandas.DataFrame`` takes."""
        # More may come while the columns are made.
        now = self[:]
        return {name: now.column(name) for name in COLUMNS}

    def percentile(self, name: str, percent: float) -> float:
        """Give a percentile of one attribute; 0 if there are no records."""
        return percentiles(self.column(name), [percent], without=0.0)[0]

    def to_json(self) -> str:
        """Write all records but their bitmaps as JSON, with the settings of their sessions.

        Returns
        -------
        str
            A JSON list with an object for each session, whose ``settings`` are whole (null if
            nobody knows them), and whose ``records`` are a list of objects.
        """
        return json.dumps(
            [
                {KEY: settings and settings.as_json(), "records": [_row(each) for each in of_one]}
                for settings, of_one in itertools.groupby(
                    self._records, key=lambda record: record.settings
                )
            ]
        )


def check_all_are_kept(settings: Settings) -> None:
    """Check that a session keeps all of its records, as sums and means over them need.

    Raises
    ------
    LocalError
        If it drops old ones.
    """
    kept = settings.experiment.keep_records
    if kept is not None:
        raise LocalError(
            "keep_records: expected none where figures are those of all checkpoints, "
            f"found {kept:,}"
        )


def _row(record: CheckpointRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in COLUMNS}
