"""``colobench record``: record which pages a real program writes, millisecond by millisecond."""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from colobench import __version__
from colobench.cli.options import new_file, positive_number
from colobench.errors import LocalError
from colobench.lab.output_file import check_output_file, write_output_bytes

if TYPE_CHECKING:
    from colobench.lab.traces.recorder import Recording

#: File of the trace if none is named.
DEFAULT_FILE = Path("colobench-trace.npz")
#: Exit status after an interrupt, as of a shell.
_INTERRUPTED = 130
_LEFT_OUT = """
A trace has the pages of private, writable memory that the program writes: heap, stack, data, and
private mappings of files. It leaves out what child processes and exec'd programs' children write
(an exec of the program itself is followed), shared memory, mapped devices, the kernel's writes to
pinned pages (direct I/O, io_uring), mappings that came and went between two scans, and writes of
the last moments before an exec. The program runs without huge pages. The page cache is not its
memory.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    words = f"file of the trace [{DEFAULT_FILE}]"
    add("-o", "--output", type=new_file, default=DEFAULT_FILE, metavar="FILE", help=words)
    add("--interval", type=positive_number, default=1, metavar="MS", help="between scans, ms [1]")
    words = "clock of the intervals: the program's processor time, or time [cpu]"
    add("--clock", choices=["cpu", "wall"], default="cpu", help=words)
    add("--seconds", type=positive_number, metavar="N", help="end the program after N s")
    words = "text for the data sheet, such as the program's version"
    add("--description", default="", metavar="TEXT", help=words)
    words = "run the command a second time without recording, and print how much slower it was"
    add("--baseline", action="store_true", help=words)
    add("command", nargs="+", metavar="COMMAND", help="the program and its arguments, after --")
    parser.epilog = _LEFT_OUT


def run(options: argparse.Namespace) -> int:
    """Record, write the trace, and print its data sheet."""
    from tqdm import tqdm

    from colobench.lab.traces.recorder import RecordingClock, record

    if options.baseline and options.seconds:
        raise LocalError("record: expected --baseline without --seconds, found both")
    check_output_file(options.output)
    stdin = subprocess.DEVNULL if os.isatty(0) else None
    with tqdm(unit=" pages", disable=None, leave=False, mininterval=0.5, delay=0.5) as bar:
        found = record(
            options.command,
            interval_ms=options.interval,
            clock=RecordingClock(options.clock),
            seconds=options.seconds or math.inf,
            description=options.description,
            version=__version__,
            stdin=stdin,
            progress=lambda seconds, pages: bar.update(pages - bar.n),
        )
    write_output_bytes(options.output, found.trace.to_bytes())
    print(render(found))
    if options.baseline and found.end == "exit":
        print(_slowdown(options.command, found, stdin))
    print(f"trace: {options.output}")
    if found.end == "interrupted":
        print("colobench record: interrupted: the trace ends there", file=sys.stderr)
        return _INTERRUPTED
    return 0


def render(found: Recording) -> str:
    """Write the data sheet of a recording, and what recording cost."""
    sheet = found.trace.sheet
    recorder, content = sheet["recorder"], sheet["content"]
    dirty = ", ".join(
        f"{pages:,.0f} in {ms} ms"
        for ms, pages in sheet["dirty_pages"].items()
        if pages is not None
    )
    ends = {
        "exit": f"the program ended with status {found.status}",
        "seconds": "the program was ended",
        "interrupted": "interrupted",
        "full": "the trace is full; the program was ended",
    }
    times = (
        f"{sheet['wall_seconds']:.2f} s, {sheet['cpu_seconds']:.2f} s of processor time; "
        f"{ends[found.end]}"
    )
    rates = (
        f"{sheet['writes_per_second']:,.0f} page writes a second by the {sheet['clock']} clock; "
        f"{sheet['pages_written']:,} pages in {len(sheet['mappings'])} mappings"
    )
    cost = (
        f"a scan took {recorder['scan_us_p50']:.0f} µs (p99 {recorder['scan_us_p99']:.0f}); the "
        f"recorder used {100 * recorder['cpu_share']:.0f} % of a core; "
        f"{recorder['intervals_without_scan']:,} of {sheet['intervals']:,} intervals had no scan"
    )
    lines = [times, rates, f"distinct dirty pages: {dirty}", cost]
    if content["changed_words"] is not None:
        lines.append(
            f"of {content['rewrites']:,} sampled rewrites a page, {content['changed_words']:.0f} "
            f"of 512 words changed; pages compress to {content['zlib_ratio']:.2f} (zlib 1)"
        )
    return "\n".join(lines)


def _slowdown(command: list[str], found: Recording, stdin: int | None) -> str:
    from colobench.lab.traces.recorder import run_alone

    alone, sheet = run_alone(command, stdin), found.trace.sheet
    return (
        f"without recording: {alone.seconds:.2f} s, {alone.cpu_seconds:.2f} s of processor time, "
        f"children included; recording took {sheet['wall_seconds'] / alone.seconds:.2f} times as "
        f"long, and {sheet['cpu_seconds'] / max(alone.cpu_seconds, 1e-3):.2f} times the processor "
        "time"
    )
