"""Receiver of a QEMU primary, fed with recordings of one, whole and wrong."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from colobench.errors import ColobenchError, LocalError, RemoteError
from colobench.lab.decode.decode import decode
from colobench.lab.decode.kept_pages import KeptPages
from colobench.memory.ram import PageMemory
from colobench.node.connection import PeerLost, PeerStalled
from colobench.node.receive.receiver import MoreConnections, Receiver
from colobench.node.receive.records import SavedCheckpoint
from colobench.peers.recordings import CHECKPOINTS
from colobench.wire.dissect import dissect
from colobench.wire.errors import (
    BadFooter,
    CommandError,
    HeaderError,
    InvalidMessage,
    RAMError,
    StreamEnded,
    StreamError,
    UnexpectedSection,
)
from recorded_primary import ENTRIES, recording, send
from share import SEED, amount

SESSIONS = [name for name, entry in ENTRIES.items() if entry.way == "colo"]


def migration_end(data: bytes) -> int:
    """Give the offset behind a recorded session's vmdescription."""
    items = dissect(data, conversation=True)
    return next(item.offset + item.length for item in items if item.kind == "VMDESCRIPTION")


@contextmanager
def receiver(path: Path, file: Path | None = None, **options: object) -> Iterator[Receiver]:
    made = Receiver(f"unix:{path / 'colo'}", file, **options)  # type: ignore[arg-type]
    with made:
        yield made
    assert not (path / "colo").exists()


def receive(path: Path, data: bytes, file: Path | None = None, **options: object) -> Receiver:
    """Receive a stream to its end."""
    with receiver(path, file, **options) as made:
        send(f"unix:{path / 'colo'}", data)
        made.wait()
    return made


def ram_of(file: Path, block: str) -> bytes:
    out = file.with_suffix(".ram")
    found = decode(str(file), keeper=KeptPages(block, file=out))
    assert not found.problems
    data = out.read_bytes()
    out.unlink()
    return data


@pytest.mark.parametrize("name", SESSIONS)
def test_session_of_a_real_qemu_is_received_to_its_end(name: str, tmp_path: Path) -> None:
    digests: list[np.ndarray] = []

    def keep(number: int, memory: PageMemory) -> None:
        digests.append(memory.array.copy())

    file = tmp_path / "guest"
    saved: list[SavedCheckpoint] = []
    found = receive(tmp_path, recording(name), file, before_loaded=keep, on_saved=saved.append)
    assert isinstance(found.error, PeerLost)
    assert found.committed == found.saved == CHECKPOINTS
    assert [each.number for each in saved] == list(range(CHECKPOINTS + 1))
    assert not any(each.error for each in saved)
    records = list(found.checkpoints)
    assert sum(record.bytes for record in records) == len(recording(name))
    assert len({record.device_bytes for record in records}) == 1
    assert len({record.machine for record in records}) == 1
    # The file is a stream that the reader explains, with the RAM of the last checkpoint.
    out = KeptPages("pc.ram", file=tmp_path / "ram")
    tree = decode(str(file), keeper=out)
    assert not tree.problems
    ram = np.frombuffer((tmp_path / "ram").read_bytes(), dtype=np.uint8)
    assert np.array_equal(ram, digests[-1][: len(ram)])
    assert (digests[0] != digests[-1]).any()
    assert sorted(os.listdir(tmp_path)) == ["guest", "ram"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_devices_are_kept_byte_for_byte(tmp_path: Path) -> None:
    data, file = recording("colo-many-devices"), tmp_path / "guest"
    receive(tmp_path, data, file)
    buffers = [
        (item.offset + item.length, int(item.detail.split()[0]))
        for item in dissect(data, conversation=True)
        if item.title == "VMSTATE_SIZE"
    ]
    begin, size = buffers[-1]
    assert file.read_bytes().endswith(data[begin : begin + size])


def test_torn_checkpoint_is_not_saved(tmp_path: Path) -> None:
    data, file = recording("colo-pc"), tmp_path / "guest"
    items = dissect(data, conversation=True)
    requests = [item.offset for item in items if item.title == "CHECKPOINT_REQUEST"]
    receive(tmp_path, data[: requests[-1]], file)
    whole = file.read_bytes()
    chance = random.Random(SEED)
    for _ in range(amount(3, 100)):
        cut = chance.randrange(requests[-1], len(data))
        found = receive(tmp_path, data[:cut], file)
        assert isinstance(found.error, PeerLost)
        assert found.saved == found.committed == CHECKPOINTS - 1
        assert file.read_bytes() == whole


def test_migration_that_is_cut_leaves_an_old_file(tmp_path: Path) -> None:
    data, file = recording("colo-pc"), tmp_path / "guest"
    file.write_bytes(b"old")
    chance = random.Random(SEED)
    for _ in range(amount(3, 100)):
        found = receive(tmp_path, data[: chance.randrange(migration_end(data))], file)
        assert isinstance(found.error, PeerLost)
        assert found.committed is None
        assert file.read_bytes() == b"old"


def test_reader_of_the_file_reads_on_in_the_checkpoint_that_it_has_opened(tmp_path: Path) -> None:
    data, file = recording("colo-pc"), tmp_path / "guest"
    held: list[tuple[int, bytes]] = []

    def hold(record: SavedCheckpoint) -> None:
        if record.number == 1:
            held.append((os.open(file, os.O_RDONLY), file.read_bytes()))

    receive(tmp_path, data, file, on_saved=hold)
    ((opened, content),) = held
    with os.fdopen(opened, "rb") as reading:
        assert reading.read() == content
    assert file.read_bytes() != content
    assert os.listdir(tmp_path) == ["guest"]


def test_file_aside_of_a_killed_receiver_is_removed_by_the_next(tmp_path: Path) -> None:
    file = tmp_path / "guest"
    (tmp_path / ".guest.receiving-left").write_bytes(b"left")
    receive(tmp_path, recording("colo-pc"), file)
    assert os.listdir(tmp_path) == ["guest"]


def test_full_disk_leaves_the_old_file_is_said_and_is_got_over(tmp_path: Path) -> None:
    # A limit of the size of files is what a full disk is to a file; its signal is ignored.
    file = tmp_path / "guest"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    said: list[SavedCheckpoint] = []
    contents: list[bytes] = []
    last: list[bytes] = []

    def fill_and_empty(record: SavedCheckpoint) -> None:
        said.append(record)
        contents.append(file.read_bytes())
        if record.number == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        elif record.number == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def keep(number: int, memory: PageMemory) -> None:
        block = memory.block("pc.ram")
        assert block is not None
        last[:] = [memory.block_bytes(block).tobytes()]

    try:
        found = receive(
            tmp_path, recording("colo-pc"), file, on_saved=fill_and_empty, before_loaded=keep
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found.saved == found.committed == CHECKPOINTS
    errors = {record.number: (record.error, record.kept) for record in said if record.error}
    assert errors == {2: ("File too large", 1), 3: ("File too large", 1)}
    assert contents[1] == contents[2] == contents[3] != contents[4]
    assert ram_of(file, "pc.ram") == last[0]
    assert os.listdir(tmp_path) == ["guest"]


def test_receiver_ends_after_the_checkpoints_that_were_asked_for(tmp_path: Path) -> None:
    found = receive(tmp_path, recording("colo-pc"), checkpoints=3)
    assert found.error is None
    assert found.committed == 3


def test_stop_ends_a_receiver_in_any_state(tmp_path: Path) -> None:
    data = recording("colo-pc")
    end = migration_end(data)
    for part in (None, data[:0], data[: end // 2], data[:end], data):
        with socket.socket(socket.AF_UNIX) as peer:
            with receiver(tmp_path) as found:
                if part is not None:
                    peer.connect(str(tmp_path / "colo"))
                    peer.sendall(part)
            assert found.error is None


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in SESSIONS])
def test_stream_without_colo_is_refused(name: str, tmp_path: Path) -> None:
    found = receive(tmp_path, recording(name))
    assert isinstance(found.error, (StreamError, PeerLost))
    assert found.committed is None


def test_primary_with_more_connections_is_refused(tmp_path: Path) -> None:
    data = recording("colo-pc")
    with receiver(tmp_path) as found, socket.socket(socket.AF_UNIX) as main:
        main.connect(str(tmp_path / "colo"))
        main.sendall(data[:1000])
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(tmp_path / "colo"))
            main.sendall(data[1000 : migration_end(data)])
            found.wait()
    assert isinstance(found.error, MoreConnections)
    assert "multifd" in str(found.error)


def test_peer_that_stops_inside_a_page_is_lost_after_the_timeout(tmp_path: Path) -> None:
    data = recording("colo-pc")
    for cut in (3, 60_000, migration_end(data) - 40, len(data) - 60_000):
        with receiver(tmp_path, stall_timeout=0.5) as found, socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(tmp_path / "colo"))
            peer.sendall(data[:cut])
            found.wait()
        assert isinstance(found.error, PeerStalled), found.error
        assert "found silence" in str(found.error)


def test_peer_that_sends_a_byte_now_and_then_is_lost_after_the_timeout(tmp_path: Path) -> None:
    data = recording("colo-pc")
    ended = threading.Event()
    with receiver(tmp_path, stall_timeout=0.5) as found:

        def trickle(peer: socket.socket) -> None:
            for byte in data[60_000:]:
                if ended.wait(0.05):
                    return
                peer.sendall(bytes([byte]))

        thread = threading.Thread(
            target=send, args=(f"unix:{tmp_path / 'colo'}", data[:60_000], trickle)
        )
        thread.start()
        found.wait()
        ended.set()
        thread.join()
    assert isinstance(found.error, PeerStalled)


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def test_each_fault_is_named_with_what_was_expected_and_found_and_its_offset(
    tmp_path: Path,
) -> None:
    data = recording("colo-pc")
    items = dissect(data, conversation=True)
    place = {}
    for item in items:
        place.setdefault((item.kind, item.title), item)
        place.setdefault((item.kind, ""), item)
    start = place["START", "ram"].offset + place["START", "ram"].length
    size = place["message", "VMSTATE_SIZE"].offset
    send_at = place["message", "VMSTATE_SEND"].offset
    command = place["COMMAND", ""].offset
    buffer = size + 12
    faults: list[tuple[bytes, type[ColobenchError], int]] = [
        (changed(data, 0, b"QEMM"), HeaderError, 0),
        (changed(data, 4, b"\0\0\0\2"), HeaderError, 4),
        (changed(data, 8, b"\1"), HeaderError, 8),
        (changed(data, command + 2, b"\1"), CommandError, command + 1),
        (changed(data, start, b"\xff" * 7), RAMError, start),
        (changed(data, size, b"\0\0\0\x63"), InvalidMessage, size),
        (changed(data, size + 4, b"\xff" * 8), InvalidMessage, size + 4),
        (changed(data, size + 4, (1).to_bytes(8, "big")), StreamEnded, buffer + 1),
        (changed(data, send_at + 4, b"\1"), UnexpectedSection, send_at + 4),
        (data[:buffer] + data[buffer + 1 :], UnexpectedSection, buffer),
        (changed(data, buffer + 1, b"\0\0\xff\xff"), BadFooter, -1),
    ]
    for stream, kind, offset in faults:
        found = receive(tmp_path, stream)
        assert isinstance(found.error, kind), (kind, found.error)
        assert isinstance(found.error, StreamError)
        assert found.error.expected
        assert found.error.found
        assert offset in (-1, found.error.offset), (kind, found.error)


def test_message_out_of_order_is_refused(tmp_path: Path) -> None:
    data = recording("colo-pc")
    end = migration_end(data)
    found = receive(tmp_path, data[:end] + data[end + 4 :])
    assert isinstance(found.error, RemoteError)
    assert "expected CHECKPOINT_REQUEST" in str(found.error)


def test_more_ram_than_is_allowed_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    found = receive(tmp_path, recording("colo-pc"), ram_limit=16 << 20)
    assert isinstance(found.error, RAMError)
    assert "16777216" in str(found.error)


def test_changed_streams_end_with_an_error_and_leave_a_whole_file(tmp_path: Path) -> None:
    data, file = recording("colo-q35-xbzrle"), tmp_path / "guest"
    chance = random.Random(SEED)
    for _ in range(amount(8, 300)):
        wrong = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(wrong))
            wrong[at : at + 4] = chance.randbytes(chance.choice((0, 1, 4)))
        found = receive(tmp_path, bytes(wrong), file, stall_timeout=2.0)
        assert isinstance(found.error, RemoteError), found.error
        assert found.saved == found.committed
        if found.saved is not None:
            ram_of(file, "pc.ram")
            file.unlink()
        assert os.listdir(tmp_path) == []


def test_memory_stays_below_ram_and_64_mib(tmp_path: Path) -> None:
    data = recording("colo-many-devices")
    receive(tmp_path, data)  # All that is imported, is.
    before = psutil.Process().memory_info().rss
    peak = [0]

    def look(number: int, memory: PageMemory) -> None:
        peak[0] = max(peak[0], psutil.Process().memory_info().rss)

    receive(tmp_path, data, tmp_path / "guest", before_loaded=look)
    assert before < peak[0] < before + (33 << 20) + (64 << 20)


def test_address_in_use_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "colo").write_bytes(b"")
    with pytest.raises(LocalError, match="listen on unix:"):
        Receiver(f"unix:{tmp_path / 'colo'}").start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_command_with_one_sentence(number: int, tmp_path: Path) -> None:
    address, file = f"unix:{tmp_path / 'colo'}", tmp_path / "guest"
    data = recording("colo-pc")
    command = [sys.executable, "-m", "colobench", "receive", address, "--save", str(file), "--json"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        socket.socket(socket.AF_UNIX) as peer,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline()) == {"event": "listening", "address": address}
        peer.connect(str(tmp_path / "colo"))
        peer.sendall(data[: migration_end(data)])
        events = [json.loads(process.stdout.readline())["event"] for _ in range(2)]
        assert sorted(events) == ["checkpoint", "saved"]
        process.send_signal(number)
        words = process.stderr.read().decode()
    assert process.returncode == 128 + number
    left = f"the last committed checkpoint is 0, and {file} has checkpoint 0"
    assert words.splitlines() == [f"colobench receive: interrupted; {left}"]
    assert os.listdir(tmp_path) == ["guest"]
