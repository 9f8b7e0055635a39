"""Dirty-page traces: the pages that a program wrote in each interval, and the file that keeps them.

A file is a NumPy archive (.npz). `numpy.load` reads it without colobench; docs/traces.md describes
its arrays. `Trace.load` trusts nothing in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.memory.trace_file import read_trace_file

Numbers = npt.NDArray[np.uint32]

#: Version of the format; a reader refuses any other.
FORMAT = "colobench-trace-1"
#: Limits of a trace that is read: intervals, runs of pages, writes of pages, pages
#: of all mappings. A trace at each limit fits in 1 GiB.
INTERVAL_LIMIT = 10_000_000
RUN_LIMIT = 20_000_000
WRITE_LIMIT = 100_000_000
PAGE_LIMIT = 2**32 - 1
#: Limits of the data sheet: bytes of its JSON, and mappings.
SHEET_LIMIT = 4 << 20
MAPPING_LIMIT = 100_000
#: Limits of an interval, in milliseconds.
INTERVAL_MS_LIMIT = 10_000
#: Arrays of the archive: their names, and the limits of their lengths.
_ARRAYS = {
    "runs_per_interval": INTERVAL_LIMIT,
    "cpu_us": INTERVAL_LIMIT,
    "wall_us": INTERVAL_LIMIT,
    "first_pages": RUN_LIMIT,
    "lengths": RUN_LIMIT,
}
#: Bytes of the header of an array's file.
_HEADER_BYTES = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """The pages that a program wrote, interval by interval.

    Attributes
    ----------
    sheet
        The data sheet, JSON values by name: at least ``interval_ms``, ``page_size`` and
        ``mappings``, see docs/traces.md.
    runs_per_interval
        uint32[intervals]: number of runs of consecutive pages that were written in each interval.
    cpu_us, wall_us
        uint32[intervals]: processor time of the program, and time, in each interval, microseconds.
    first_pages, lengths
        uint32[runs]: first page and number of pages of each run, interval after interval. Pages
        are numbered from 0 through all mappings.

    Raises
    ------
    LocalError
        If the parts do not fit together, or a limit is exceeded.
    """

    sheet: Mapping[str, Any]
    runs_per_interval: Numbers
    cpu_us: Numbers
    wall_us: Numbers
    first_pages: Numbers
    lengths: Numbers

    def __post_init__(self) -> None:
        _check(self)

    @property
    def intervals(self) -> int:
        """Number of intervals."""
        return len(self.runs_per_interval)

    @property
    def interval_ms(self) -> int:
        """Length of an interval, milliseconds."""
        return int(self.sheet["interval_ms"])

    @property
    def pages(self) -> int:
        """Number of pages of all mappings, written or not."""
        return sum(int(mapping["pages"]) for mapping in self.sheet["mappings"])

    @property
    def writes(self) -> int:
        """Number of pages written, each once for each interval in which it was."""
        return int(self.lengths.sum(dtype=np.uint64))

    @property
    def milliseconds(self) -> int:
        """Length of the recording, of which each interval has the same part."""
        return self.intervals * self.interval_ms

    def digest(self) -> str:
        """Compute the SHA-256 of the arrays, which does not depend on their compression."""
        summed = hashlib.sha256(FORMAT.encode())
        for name in _ARRAYS:
            array = getattr(self, name)
            summed.update(len(array).to_bytes(8, "little"))
            summed.update(array.astype("<u4", copy=False).tobytes())
        return summed.hexdigest()

    def interval_of_runs(self) -> npt.NDArray[np.int64]:
        """Give the number of the interval of each run: int64[runs]."""
        return np.repeat(np.arange(self.intervals, dtype=np.int64), self.runs_per_interval)

    def page_writes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Expand the runs to single pages.

        Returns
        -------
        pages, intervals
            int64[writes] each: a page, and the interval in which it was written, in the order of
            the intervals.
        """
        lengths = self.lengths.astype(np.int64)
        begins = np.cumsum(lengths) - lengths
        shift = np.repeat(self.first_pages.astype(np.int64) - begins, lengths)
        pages = shift + np.arange(len(shift), dtype=np.int64)
        return pages, np.repeat(self.interval_of_runs(), lengths)

    def to_bytes(self) -> bytes:
        """Encode the trace as a file."""
        sheet = json.dumps(dict(self.sheet) | {"format": FORMAT, "digest": self.digest()}, indent=1)
        arrays: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in _ARRAYS}
        arrays["sheet"] = np.frombuffer(sheet.encode(), np.uint8)
        written = io.BytesIO()
        # As numpy.savez_compressed does it, but with LZMA, which halves the file.
        with zipfile.ZipFile(written, "w", zipfile.ZIP_LZMA) as archive:
            for name, array in arrays.items():
                member = zipfile.ZipInfo(f"{name}.npy")
                member.compress_type = zipfile.ZIP_LZMA
                with archive.open(member, "w") as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        return written.getvalue()

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file.

        Raises
        ------
        LocalError
            If it cannot be read, is not a trace, exceeds a limit, or does not have its digest.
        """
        data = read_trace_file(path)
        try:
            return cls.from_bytes(data)
        except LocalError as error:
            raise LocalError(f"trace {path}: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode a file; see `load`."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                sheet = _read_sheet(archive)
                found = cls(sheet, **{name: _read_array(archive, name) for name in _ARRAYS})
        except LocalError:
            raise
        # zipfile and NumPy raise errors of many types for a damaged archive.
        except Exception as error:
            raise LocalError(f"expected a NumPy archive with a trace, found: {error}") from error
        if sheet.get("digest") != found.digest():
            raise LocalError(
                f"digest: expected {sheet.get('digest')!s:.64}, found {found.digest()}"
            )
        return found


def _read_sheet(archive: zipfile.ZipFile) -> dict[str, Any]:
    text = bytes(_read_member(archive, "sheet", SHEET_LIMIT, np.dtype("u1")))
    sheet = json.loads(text)
    if not isinstance(sheet, dict) or sheet.get("format") != FORMAT:
        raise LocalError(f"data sheet: expected the format {FORMAT}, found another")
    return sheet


def _read_array(archive: zipfile.ZipFile, name: str) -> Numbers:
    found: Numbers = _read_member(archive, name, _ARRAYS[name], np.dtype("<u4"))
    return found


def _read_member(
    archive: zipfile.ZipFile, name: str, limit: int, dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Read an array of a known type; its length in memory is bounded before it is unpacked."""
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError as error:
        raise LocalError(f"expected the array {name}, found none") from error
    if member.file_size > limit * dtype.itemsize + _HEADER_BYTES:
        raise LocalError(f"{name}: expected at most {limit} values, found {member.file_size} bytes")
    with archive.open(member) as file:
        # The size in the directory may be a lie: what is read is bounded, too.
        data = file.read(member.file_size + 1)
    found = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if found.dtype != dtype or found.ndim != 1 or len(found) > limit:
        raise LocalError(
            f"{name}: expected at most {limit} values of type {dtype.str} in a row, "
            f"found {found.dtype.str}{list(found.shape)}"
        )
    return np.ascontiguousarray(found)


def _check(trace: Trace) -> None:
    """Check that the parts of a trace fit together, with LocalError."""
    pages = _check_sheet(trace.sheet)
    for name, limit in _ARRAYS.items():
        array = getattr(trace, name)
        if array.dtype != np.uint32 or array.ndim != 1 or len(array) > limit:
            raise LocalError(f"{name}: expected uint32[at most {limit}], found {array.dtype}")
    if len(trace.runs_per_interval) == 0:
        raise LocalError("runs_per_interval: expected at least one interval, found none")
    for name in ("cpu_us", "wall_us"):
        found = len(getattr(trace, name))
        if found != trace.intervals:
            raise LocalError(f"{name}: expected {trace.intervals} intervals, found {found}")
    runs = int(trace.runs_per_interval.sum(dtype=np.uint64))
    if not runs == len(trace.first_pages) == len(trace.lengths):
        raise LocalError(
            f"runs: expected {runs} first pages and lengths, found {len(trace.first_pages)} and "
            f"{len(trace.lengths)}"
        )
    if trace.writes > WRITE_LIMIT:
        raise LocalError(f"lengths: expected at most {WRITE_LIMIT} pages, found {trace.writes}")
    if runs:
        ends = trace.first_pages.astype(np.uint64) + trace.lengths
        if int(ends.max()) > pages or int(trace.lengths.min()) == 0:
            raise LocalError(
                f"runs: expected at least one page each, below page {pages}, found a run of "
                f"{int(trace.lengths.min())} pages or up to page {int(ends.max())}"
            )


def _check_sheet(sheet: Mapping[str, Any]) -> int:
    """Check the entries that a trace is read with; return the number of pages."""
    for name, limit in (("interval_ms", INTERVAL_MS_LIMIT), ("page_size", 1 << 30)):
        if not _is_count(sheet.get(name), 1, limit):
            raise LocalError(
                f"data sheet: {name}: expected 1 to {limit}, found {sheet.get(name)!r:.80}"
            )
    mappings = sheet.get("mappings")
    if not isinstance(mappings, list) or len(mappings) > MAPPING_LIMIT:
        raise LocalError(f"data sheet: mappings: expected a list of at most {MAPPING_LIMIT}")
    pages = 0
    for mapping in mappings:
        if not isinstance(mapping, dict) or not _is_count(mapping.get("pages"), 1, PAGE_LIMIT):
            raise LocalError(
                f"data sheet: mappings: expected a number of pages, found {mapping!r:.80}"
            )
        pages += mapping["pages"]
    if pages > PAGE_LIMIT:
        raise LocalError(f"data sheet: expected at most {PAGE_LIMIT} pages, found {pages}")
    return pages


def _is_count(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
