"""``colobench decode``: explain each byte of a QEMU migration stream or of a COLO session."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colobench.lab.decode.kept_pages import KeptPages

_EPILOG = """
A stream comes from a file (xz is unpacked), from a pipe, or from a QEMU that is told to migrate to
unix:PATH. Exit status 0: every byte is explained; 3: some are not, and are listed with their
offsets.
"""


def _new_file(text: str) -> Path:
    # The options of other verbs take longer to import than a short stream takes to read.
    from colobench.cli.options import new_file

    return new_file(text)


def _page(text: str) -> tuple[str, int]:
    block, colon, number = text.rpartition(":")
    if not colon or not block or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"expected BLOCK:N, as in pc.ram:16, found {text!r}")
    return block, int(number)


def _extraction(text: str) -> tuple[str, Path]:
    block, sign, file = text.partition("=")
    if not sign or not block or not file:
        raise argparse.ArgumentTypeError(f"expected BLOCK=FILE, found {text!r}")
    return block, _new_file(file)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    add("source", metavar="FILE|-|unix:PATH", help="the stream: a file, standard input, a socket")
    add("--json", action="store_true", help="print JSON")
    add("--html", type=_new_file, metavar="FILE", help="write a page that opens offline")
    add("--devices", action="store_true", help="the values of the devices' fields, by name")
    keep = parser.add_mutually_exclusive_group()
    words = "print one page of RAM, and its records"
    keep.add_argument("--pages", type=_page, metavar="BLOCK:N", help=words)
    words = "write a RAM block as the stream leaves it"
    keep.add_argument("--extract", type=_extraction, metavar="BLOCK=FILE", help=words)
    parser.epilog = _EPILOG


def run(options: argparse.Namespace) -> int:
    """Decode the stream, and print what it consists of."""
    from colobench.lab.decode.decode import decode
    from colobench.lab.decode.kept_pages import KeptPages
    from colobench.lab.decode.text import render
    from colobench.lab.progress import bar

    if options.html or options.extract:
        _check_files(options)
    keeper = None
    if options.pages:
        keeper = KeptPages(*options.pages)
    elif options.extract:
        keeper = KeptPages(options.extract[0], file=options.extract[1])
    with bar("decoding", "bytes") as progress:
        found = decode(options.source, keeper=keeper, progress=progress)
    if keeper is not None:
        keeper.check(found.blocks, damaged=bool(found.problems))
    if options.html:
        from colobench.lab.decode.page import write_decoded_page

        write_decoded_page(options.html, found)
    if options.json:
        values = found.as_json(devices=options.devices)
        if options.pages and keeper is not None:
            values["page"] = keeper.as_json()
        print(json.dumps(values, indent=1))
    else:
        print(render(found, devices=options.devices))
        if options.pages and keeper is not None:
            print(f"\n{_shown_page(keeper)}")
        if options.html:
            print(f"\npage: {options.html}")
    return 3 if found.problems else 0


def _check_files(options: argparse.Namespace) -> None:
    from colobench.cli.options import check_different_files

    # unix:PATH is no file that an output could replace, but standard input may be one.
    place = "/dev/stdin" if options.source == "-" else options.source
    source = Path(place) if os.path.isfile(place) else None
    extracted = options.extract[1] if options.extract else None
    check_different_files(source=source, html=options.html, extract=extracted)


def _shown_page(keeper: KeptPages) -> str:
    if not keeper.records:
        return (
            f"page {keeper.first}: no record of it is in this stream; with multifd, other "
            "connections may have some"
        )
    lines = [f"page {keeper.first}: {keeper.records} records"]
    lines += [f"  {kind} at offset {offset:,}" for offset, kind in keeper.history]
    if further := keeper.records - len(keeper.history):
        lines.append(f"  and {further:,} further ones")
    page = keeper.content
    before = b""
    for at in range(0, len(page), 16):
        line = page[at : at + 16]
        if line == before:
            if lines[-1] != "*":
                lines.append("*")
            continue
        before = line
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
        lines.append(f"{at:04x}  {line.hex(' ')}  {text}")
    return "\n".join(lines)
