"""Text of a decoded stream, as the command line prints it."""

from __future__ import annotations

from collections.abc import Iterator

from colobench.text_table import align
from colobench.wire.decoded import DecodedStream, DeviceState, StreamPart
from colobench.wire.page_counts import PageCounts

#: Lines of a list of which all are printed; of a longer one, the first and the last.
MOST_LINES = 40


def render(stream: DecodedStream, *, devices: bool = False) -> str:
    """Write a decoded stream as text; with `devices`, the values of their fields as well."""
    machine = f", machine type {stream.machine}" if stream.machine else ""
    parts = [f"{stream.name}: {stream.kind}{machine}, {stream.length:,} bytes"]
    parts.append(_tree(stream.tree))
    if stream.blocks:
        parts.append(_blocks(stream))
    if stream.checkpoints:
        parts.append(_checkpoints(stream))
    if devices:
        parts += [_fields(device) for device in stream.last_devices or stream.devices]
    explained = stream.length - stream.unexplained_bytes
    parts.append(f"explained: {explained:,} of {stream.length:,} bytes")
    parts += [
        f"not explained: {problem.length:,} bytes at offset {problem.offset:,}: {problem.title}"
        for problem in stream.problems
    ]
    if further := stream.unexplained_parts - len(stream.problems):
        parts.append(f"not explained, and not listed: {further:,} further parts")
    return "\n\n".join(parts)


def _tree(root: StreamPart) -> str:
    rows = [["offset", "bytes", "part"]]
    rows += _shortened([*_rows(root, 0)])
    return "\n".join(align(rows, {0, 1}))


def _rows(part: StreamPart, depth: int) -> Iterator[list[str]]:
    for each in part.parts:
        words = " ".join(filter(None, [each.kind, each.title, each.detail]))
        yield [f"{each.offset:,}", f"{each.length:,}", "  " * depth + words[:120]]
        if each.kind in ("checkpoint", "sized buffer", "package"):
            yield from _rows(each, depth + 1)
        else:
            # Of a section, what is in it besides its header and its footer.
            records = StreamPart("", "")
            records.parts = [one for one in each.parts if one.kind == "records"]
            yield from _rows(records, depth + 1)


def _shortened(rows: list[list[str]]) -> list[list[str]]:
    if len(rows) <= 2 * MOST_LINES:
        return rows
    left = len(rows) - 2 * MOST_LINES
    return [*rows[:MOST_LINES], ["", "", f"… {left:,} lines more …"], *rows[-MOST_LINES:]]


def _counted(counts: PageCounts) -> list[str]:
    numbers = (counts.pages, counts.zero, counts.xbzrle, counts.compressed, counts.duplicates)
    return [f"{number:,}" for number in numbers]


_KINDS = ["pages", "zero", "XBZRLE", "compressed", "again"]


def _blocks(stream: DecodedStream) -> str:
    rows = [["RAM block", "bytes", *_KINDS]]
    for block in stream.blocks:
        length = "?" if block.length is None else f"{block.length:,}"
        rows.append([block.name, length, *_counted(block.counts)])
    if len(stream.blocks) > 1:
        total = sum(block.length or 0 for block in stream.blocks)
        rows.append(["all", f"{total:,}", *_counted(stream.counts)])
    return "\n".join(align(rows, set(range(1, 7))))


def _checkpoints(stream: DecodedStream) -> str:
    rows = [["checkpoint", "offset", "bytes", *_KINDS, "RAM bytes", "device bytes", "devices", ""]]
    rows += (
        _shortened(
            [
                [
                    f"{each.number:,}",
                    f"{each.offset:,}",
                    f"{each.length:,}",
                    *_counted(each.counts),
                    f"{each.ram_bytes:,}",
                    f"{each.device_bytes:,}",
                    f"{each.devices}",
                    "" if each.complete else "incomplete",
                ]
                for each in stream.checkpoints
            ]
        )
        if len(stream.checkpoints) <= 2 * MOST_LINES
        else [[f"{len(stream.checkpoints):,} checkpoints", *[""] * 11]]
    )
    return "\n".join(align(rows, set(range(11))))


def _fields(device: DeviceState) -> str:
    identity = device.identity
    head = (
        f"{identity} version {identity.version_id}: {device.length:,} bytes at offset "
        f"{device.offset:,}"
    )
    fields = device.fields
    if not fields:
        return f"{head}; not described"
    rows = [[f"  {each.name}", each.type, f"{each.length}", str(each.value)] for each in fields]
    return "\n".join([head, *align(rows, {2})])
