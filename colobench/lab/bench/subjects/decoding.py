"""Decoding of a migration stream, against QEMU's own script if that is there."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from colobench.kernels.page_records import CONTINUE, PAGE, PAGE_RECORD_BYTES
from colobench.lab.bench.case import Case, at_least, subject
from colobench.lab.bench.context import PAGE_SIZE, BenchContext, as_rates
from colobench.lab.bench.measured import Measured, Unavailable
from colobench.lab.bench.timing import timed
from colobench.lab.decode.decode import decode
from colobench.memory.ram import lay_out
from colobench.wire import savevm
from colobench.wire.format import BE64, RAMFlag, SectionType, counted_string

#: Environment variable with the path of QEMU's scripts/analyze-migration.py.
SCRIPT_VARIABLE = "COLOBENCH_ANALYZE_MIGRATION"
#: Bytes of RAM in the stream.
RAM_BYTES = 512 * 2**20
UNIT = "GB/s"


def write_migration(path: Path, pages: int) -> int:
    """Write a migration of that many pages that are not zero; give its bytes."""
    header = savevm.stream_header("pc-i440fx-7.2")
    header += savevm.ram_section_start(2, lay_out({"pc.ram": pages * PAGE_SIZE}))
    header += savevm.ram_section_begin(SectionType.END, 2)
    first = BE64.pack(RAMFlag.PAGE) + counted_string("pc.ram") + b"\x55" * PAGE_SIZE
    records = np.full((pages - 1, PAGE_RECORD_BYTES), 0x55, dtype=np.uint8)
    words = np.arange(1, pages, dtype=np.uint64) * np.uint64(PAGE_SIZE) + np.uint64(PAGE | CONTINUE)
    records[:, :8] = words.astype(">u8").view(np.uint8).reshape(-1, 8)
    end = savevm.ram_section_finish(2) + savevm.EOF + savevm.vmdescription_section([])
    with open(path, "wb") as file:
        for part in (header, first, records.data, end):
            file.write(part)
    return path.stat().st_size


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _script() -> Path:
    path = os.environ.get(SCRIPT_VARIABLE)
    if not path or not Path(path).is_file():
        raise Unavailable(f"no analyze-migration.py of QEMU: {SCRIPT_VARIABLE} is its path")
    return Path(path)


def _whole_program(arguments: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)


def _measure(context: BenchContext, against_qemu: bool) -> Measured:
    pages = context.size(RAM_BYTES) // PAGE_SIZE
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "migration"
        if not against_qemu:
            size = write_migration(path, pages)
            data = io.FileIO(path)
            place = memoryview(bytearray(1 << 20))

            def read() -> None:
                data.seek(0)
                while data.readinto(place):
                    pass

            with data:
                return as_rates(context.compare(timed(lambda: decode(path)), timed(read)), size)
        script = _script()
        size = write_migration(path, pages)
        ours = _whole_program([sys.executable, "-P", "-m", "colobench", "decode", str(path)])
        theirs = _whole_program([sys.executable, str(script), "-f", str(path)])
        samples = context.compare(timed(ours, clock=_children), timed(theirs, clock=_children))
        return as_rates(samples, size)


@subject("decode", "a migration of 512 MiB explained: against reading its file, and QEMU's script")
def decoding(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""
    yield Case(
        "512 MiB, reading the file", UNIT, partial(_measure, context, False), at_least(1.0, UNIT)
    )
    yield Case(
        "512 MiB, QEMU's analyze-migration.py",
        UNIT,
        partial(_measure, context, True),
        at_least(1.0),
    )
