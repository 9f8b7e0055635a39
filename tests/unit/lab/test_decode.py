"""A stream is decoded from a file, a pipe and a socket: its tree, blocks, devices and pages."""

from __future__ import annotations

import errno
import io
import json
import lzma
import os
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from colobench.cli.main import main
from colobench.lab.decode.decode import decode
from colobench.lab.decode.decoding import Decoding
from colobench.lab.decode.kept_pages import KeptPages
from colobench.lab.decode.page import render_fragment
from colobench.lab.decode.text import render
from colobench.peers.dataset import read_manifest, read_recording
from colobench.wire import savevm
from colobench.wire.decoded import FIRST_KEPT, LAST_KEPT, StreamPart, TreeSink
from colobench.wire.device_fields import read_fields
from colobench.wire.errors import DeviceStateError
from colobench.wire.format import (
    BE32,
    BE64,
    COMPRESSED_RECORDS,
    RAMFlag,
    SectionType,
    counted_string,
)
from colobench.wire.messages import Message, encode_message
from colobench.wire.reader import UNEXPLAINED
from colobench.wire.recorded import Item
from places import CLONE
from wire_streams import Primary, fill

DIRECTORY = CLONE / "datasets/qemu"
ENTRIES = {entry.name: entry for entry in read_manifest(DIRECTORY)}


def leaves(part: StreamPart) -> list[StreamPart]:
    return [each for each in part.walk() if not each.parts]


@pytest.mark.parametrize("name", ENTRIES)
def test_every_byte_of_a_recording_is_in_the_tree(name: str) -> None:
    entry = ENTRIES[name]
    for file in entry.files:
        found = decode(DIRECTORY / file["name"])
        assert found.length == file["bytes"]
        assert found.problems == ()
        assert sum(part.length for part in leaves(found.tree)) == found.length
        assert render(found).endswith(f"explained: {found.length:,} of {found.length:,} bytes")


@pytest.mark.parametrize("name", [name for name in ENTRIES if ENTRIES[name].way != "colo"])
def test_pages_are_those_that_qemu_counted(name: str) -> None:
    entry = ENTRIES[name]
    found = [decode(DIRECTORY / file["name"]).counts for file in entry.files]
    assert sum(each.pages for each in found) == entry.ram["normal"]
    if entry.way == "postcopy":
        # Discarded pages are sent again; QEMU does not count the zero ones of postcopy again.
        assert found[0].duplicates
    elif "compress" not in entry.capabilities:
        assert sum(each.zero for each in found) == entry.ram["duplicate"]
    if "xbzrle-pages" in entry.ram:
        assert 0 < found[0].xbzrle <= entry.ram["xbzrle-pages"]


def test_checkpoints_have_their_sizes() -> None:
    found = decode(DIRECTORY / "colo-q35-xbzrle.xz")
    assert [each.number for each in found.checkpoints] == [1, 2, 3, 4, 5, 6]
    assert all(each.complete and each.devices >= 25 for each in found.checkpoints)
    end = found.checkpoints[-1].offset + found.checkpoints[-1].length
    assert end == found.length
    assert found.checkpoints[-1].counts.xbzrle > 0


@pytest.mark.parametrize("name", ["pc", "q35", "many-devices", "pc-2.3", "dirty-bitmaps"])
def test_every_byte_of_every_device_has_a_name(name: str) -> None:
    found = decode(DIRECTORY / f"{name}.xz")
    described = [device for device in found.devices if device.description is not None]
    assert len(described) >= 25
    for device in described:
        assert sum(field.length for field in device.fields) == device.length


def test_description_that_does_not_fit_is_refused() -> None:
    for size in (3, 5, -1, float("inf")):
        with pytest.raises(DeviceStateError):
            read_fields({"fields": [{"name": "a", "type": "uint32", "size": size}]}, bytes(4))


@pytest.fixture(scope="module")
def migration() -> bytes:
    with closing(Primary()) as primary:
        fill(primary.memory, [0, 1, 2, 5, 128, 129])
        return primary.migration([0, 1, 2], [5, 128, 129])


def test_pipe_and_socket_give_what_a_file_gives(
    migration: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stream").write_bytes(migration)
    (tmp_path / "stream.xz").write_bytes(lzma.compress(migration))
    expected = decode(tmp_path / "stream").as_json(devices=True) | {"name": ""}
    assert expected["problems"] == []
    assert decode(tmp_path / "stream.xz").as_json(devices=True) | {"name": ""} == expected

    reading, writing = os.pipe()
    with open(reading, "rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        thread = threading.Thread(target=lambda: _write(writing, migration))
        thread.start()
        assert decode("-").as_json(devices=True) | {"name": ""} == expected
        thread.join()

    path = tmp_path / "socket"
    found = []
    thread = threading.Thread(target=lambda: found.append(decode(f"unix:{path}")))
    thread.start()
    with socket.socket(socket.AF_UNIX) as client:
        while client.connect_ex(str(path)):
            assert thread.is_alive()
        client.sendall(migration)
    thread.join()
    assert found[0].as_json(devices=True) | {"name": ""} == expected
    assert not path.exists()


def _write(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(data)


def test_kept_block_is_the_ram_that_was_sent(tmp_path: Path) -> None:
    with closing(Primary()) as primary:
        fill(primary.memory, [0, 1, 2, 5])
        stream = primary.migration([0, 1, 2], [5])
        block = primary.memory.blocks[0]
        begin = block.first_page * 4096
        ram = primary.memory.array[begin : begin + block.used_length].tobytes()
    (tmp_path / "stream").write_bytes(stream)
    keeper = KeptPages("pc.ram", file=tmp_path / "ram")
    decode(tmp_path / "stream", keeper=keeper)
    kept = (tmp_path / "ram").read_bytes()
    assert len(kept) == len(ram)
    for page in (0, 1, 2, 5):
        assert kept[4096 * page : 4096 * page + 4096] == ram[4096 * page : 4096 * page + 4096]


@pytest.mark.parametrize(("name", "kind"), [("xbzrle", "XBZRLE"), ("compress", "COMPRESS_PAGE")])
def test_one_page_has_each_of_its_records_and_its_last_content(name: str, kind: str) -> None:
    # The page that the guest writes last has the counter of its last round.
    keeper = KeptPages("pc.ram", page=4100)
    decode(DIRECTORY / f"{name}.xz", keeper=keeper)
    assert kind in [found for _, found in keeper.history]
    counter = int.from_bytes(keeper.content[:4], "little")
    assert counter > 0
    assert not any(keeper.content[4:])


def stream_with(tmp_path: Path, *records: bytes, blocks: bool = True) -> str:
    """Write checkpoints' sections with these records, and give the file's path."""
    length = BE64.pack(8192)
    listed = BE64.pack(8192 | RAMFlag.MEM_SIZE) + counted_string("pc.ram") + length
    body = b"".join([listed * blocks, *records])
    section = savevm.ram_section_begin(SectionType.PART, 2) + body + savevm.ram_section_finish(2)
    begin = encode_message(Message.CHECKPOINT_REQUEST) + encode_message(Message.VMSTATE_SEND)
    (tmp_path / "records").write_bytes(begin + section + savevm.EOF)
    return str(tmp_path / "records")


def page_record(page: int, kind: RAMFlag, body: bytes, *, named: bool = True) -> bytes:
    flags = kind | (0 if named else RAMFlag.CONTINUE)
    return BE64.pack(page * 4096 | flags) + counted_string("pc.ram") * named + body


ZEROS = [page_record(page, RAMFlag.ZERO, b"\0") for page in (0, 1)]
CHANGES = page_record(0, RAMFlag.XBZRLE, b"\1\0\3\0\1c")
TOGETHER = BE64.pack(COMPRESSED_RECORDS) + BE32.pack(9) + BE32.pack(2) + b"xx"


@pytest.mark.parametrize(
    ("records", "blocks", "page", "words"),
    [
        ([*ZEROS, TOGETHER], True, 0, "found COMPRESSED_RECORDS at offset 68, whose pages"),
        ([*ZEROS, TOGETHER], True, None, "found COMPRESSED_RECORDS at offset"),
        (ZEROS, True, 2, "page: expected one below 2 in block 'pc.ram', found 2"),
        (ZEROS, False, None, "block list: expected one with the length of 'pc.ram', found none"),
        (ZEROS[:1], True, None, "expected all 2 in the stream, found none of 1: with multifd"),
        ([], True, None, "expected all 2 in the stream, found none of 2"),
        ([CHANGES], True, 0, "expected the whole page before its changes, found XBZRLE at offset"),
        (
            [page_record(0, RAMFlag.ZERO, b"\0", named=False), *ZEROS],
            False,
            0,
            "expected records that name their blocks, found 1 of the block before",
        ),
    ],
)
def test_content_that_the_stream_does_not_tell_is_refused(
    records: list[bytes],
    blocks: bool,
    page: int | None,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, out = stream_with(tmp_path, *records, blocks=blocks), tmp_path / "ram"
    wanted = ["--extract", f"pc.ram={out}"] if page is None else ["--pages", f"pc.ram:{page}"]
    assert main(["decode", file, *wanted]) == 1
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_pages_on_other_connections_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channel, out = str(DIRECTORY / "multifd-channel-0.xz"), tmp_path / "ram"
    for wanted in (["--pages", "pc.ram:1"], ["--extract", f"pc.ram={out}"]):
        assert main(["decode", channel, *wanted]) == 1
        assert "expected a main connection's stream, found a multifd channel" in (
            capsys.readouterr().err
        )
        assert not out.exists()


def test_page_without_a_record_has_no_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = stream_with(tmp_path, ZEROS[0])
    assert main(["decode", file, "--pages", "pc.ram:1"]) == 0
    text = capsys.readouterr().out
    assert "page 1: no record of it is in this stream" in text
    assert "0000  00" not in text
    assert main(["decode", file, "--pages", "pc.ram:0"]) == 0
    assert "page 0: 1 records\n  ZERO at offset" in capsys.readouterr().out
    assert main(["decode", file, "--pages", "pc.ram:0", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)["page"]
    assert (page["records"], page["content"]) == (1, "00" * 4096)


def test_full_disk_is_an_error_with_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file, out = stream_with(tmp_path, *ZEROS, page_record(1, RAMFlag.PAGE, b"x" * 4096)), "ram"
    monkeypatch.setattr(os, "pwrite", full)
    assert main(["decode", file, "--extract", f"pc.ram={tmp_path / out}"]) == 1
    assert "ram: expected room for a block of 8,192 bytes, found: No space left on device" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / out).exists()


def test_all_that_is_not_explained_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colobench.wire.decoded.PROBLEMS_LIMIT", 2)
    sink = TreeSink()
    for number in range(3):
        sink.item(Item(7 * number, 7, UNEXPLAINED, f"error {number}", ""))
    sink.item(Item(21, 1, SectionType.EOF.name, "", ""))
    sink.end()
    found = Decoding("", "migration", 22, None, sink.root, problems=tuple(sink.problems))
    found = found._replace(
        unexplained_bytes=sink.unexplained_bytes, unexplained_parts=sink.unexplained_parts
    )
    text = render(found)
    assert "explained: 1 of 22 bytes" in text
    assert text.endswith("not explained, and not listed: 1 further parts")
    assert "1 further parts are not" in render_fragment(found)
    assert (found.as_json()["unexplained_bytes"], len(found.as_json()["problems"])) == (21, 2)


def test_many_sections_are_summed_up_between_the_first_and_the_last() -> None:
    with closing(Primary()) as primary:
        sections = [primary.ram_section(SectionType.PART, [1]) for _ in range(2 * FIRST_KEPT)]
    data = b"".join([*sections, savevm.EOF])
    from colobench.wire.lookahead import Driver
    from colobench.wire.reader import StreamReader
    from colobench.wire.reading import StreamBuffer

    at, sink = StreamBuffer(len(data), 1 << 24), TreeSink()
    Driver(at, io.BytesIO(data).readinto).run(StreamReader(at, sink).checkpoints())
    sink.end()
    assert len(sink.root.parts) == FIRST_KEPT + 1 + LAST_KEPT
    assert sum(part.length for part in leaves(sink.root)) == len(data)


def test_command_prints_and_tells_by_its_status(
    migration: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, page = tmp_path / "stream", tmp_path / "page.html"
    stream.write_bytes(migration)
    assert main(["decode", str(stream), "--devices", "--html", str(page)]) == 0
    text = capsys.readouterr().out
    assert f"explained: {len(migration):,} of {len(migration):,} bytes" in text
    assert "'register' instance 1 version 3" in text
    assert "http" not in page.read_text().replace("http-equiv", "")
    assert main(["decode", str(stream), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ram"]["pages"] > 0
    assert main(["decode", str(stream), "--pages", "pc.ram:1"]) == 0
    assert "page 1: 1 records" in capsys.readouterr().out
    assert main(["decode", str(stream), "--extract", f"none={tmp_path}/x"]) == 1
    assert "RAM block: expected one of ['pc.ram'" in capsys.readouterr().err
    stream.write_bytes(migration[:-500])
    assert main(["decode", str(stream)]) == 3
    assert "not explained:" in capsys.readouterr().out
    assert main(["decode", str(tmp_path / "missing")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_tree_opens_in_a_notebook_with_its_bytes(migration: bytes, tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(migration)
    found = decode(tmp_path / "stream")
    html = render_fragment(found)
    assert html == found._repr_html_()
    assert "<details" in html
    assert "51 45 56 4d 00 00 00 03" in html
    assert 'aria-label="pages of pc.ram"' in html
    assert "<script" not in html


def test_recording_is_what_its_checksum_says() -> None:
    file = ENTRIES["pc"].files[0]
    assert len(read_recording(DIRECTORY / file["name"], file["sha256"])) == file["bytes"]
