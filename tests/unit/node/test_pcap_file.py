"""pcap files: others read what we write, and a file that was torn goes on behind what is whole."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import dpkt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.net.frame import (
    ACK,
    GUEST_IP,
    GUEST_MAC,
    HOST_IP,
    HOST_MAC,
    SYN,
    ConnectionKey,
    Segment,
    build_tcp,
)
from colobench.node.pcap_file import PcapWriter

times = st.integers(0, 2**32 * 10**9 - 1)
records = st.lists(st.tuples(st.binary(max_size=80), times), max_size=12)


def read(path: Path) -> list[tuple[bytes, int]]:
    """Read a file with dpkt; times in nanoseconds."""
    with path.open("rb") as file:
        return [(data, round(moment * 10**9)) for moment, data in dpkt.pcap.Reader(file)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records, st.booleans())
def test_others_read_what_was_written(
    tmp_path: Path, kept: list[tuple[bytes, int]], nanoseconds: bool
) -> None:
    path = tmp_path / "file.pcap"
    path.unlink(missing_ok=True)
    with PcapWriter(path, nanoseconds=nanoseconds) as pcap:
        for frame, time_ns in kept:
            pcap.write(frame, time_ns)
    unit = 1 if nanoseconds else 1000
    # dpkt makes a float of nanoseconds, and a decimal number of microseconds.
    found = read(path)
    assert [frame for frame, _ in found] == [frame for frame, _ in kept]
    for (_, moment), (_, time_ns) in zip(found, kept, strict=True):
        assert abs(moment - time_ns) <= unit + 1000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records, st.integers(0, 2000), st.booleans())
def test_torn_file_goes_on_behind_its_last_whole_record(
    tmp_path: Path, kept: list[tuple[bytes, int]], torn_at: int, nanoseconds: bool
) -> None:
    path = tmp_path / "file.pcap"
    path.unlink(missing_ok=True)
    with PcapWriter(path, nanoseconds=nanoseconds) as pcap:
        for frame, time_ns in kept:
            pcap.write(frame, time_ns)
    size = path.stat().st_size
    os.truncate(path, torn_at % (size + 1))
    with PcapWriter(path, nanoseconds=nanoseconds) as pcap:
        pcap.write(b"the next one", 1)
    found = [frame for frame, _ in read(path)]
    frames = [frame for frame, _ in kept]
    assert found[-1] == b"the next one"
    whole, position = 0, 24
    for frame in frames:
        position += 16 + len(frame)
        whole += position <= torn_at % (size + 1)
    assert found[:-1] == frames[:whole]


def test_what_was_flushed_is_there_for_others_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file.pcap"
    with PcapWriter(path) as pcap:
        assert read(path) == []
        pcap.write(b"one", 0)
        pcap.flush()
        assert [frame for frame, _ in read(path)] == [b"one"]


def test_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_bytes(b"Dear reader, this is no capture")
    with pytest.raises(LocalError, match="expected one that colobench began"):
        PcapWriter(path)
    assert path.read_bytes().startswith(b"Dear reader")
    with pytest.raises(LocalError, match="No such file"):
        PcapWriter(tmp_path / "nowhere" / "file.pcap")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_an_error_with_the_files_name(tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "file.pcap") as pcap:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, pcap._file)
        os.close(full)
        pcap.write(b"frame", 0)
        with pytest.raises(LocalError, match=r"file\.pcap: No space left"):
            pcap.flush()


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_tshark_reads_frames_lengths_and_times(tmp_path: Path) -> None:
    path = tmp_path / "file.pcap"
    connection = ConnectionKey(HOST_IP, 50000, GUEST_IP, 6379)
    frames = [
        build_tcp(GUEST_MAC, HOST_MAC, Segment(connection, 1, 0, SYN, 65535, b"", 1460)),
        build_tcp(GUEST_MAC, HOST_MAC, Segment(connection, 2, 9, ACK, 65535, b"GET key\r\n")),
    ]
    with PcapWriter(path) as pcap:
        for number, frame in enumerate(frames):
            pcap.write(frame, 1_700_000_000_123_456_789 + number)
    command = ["tshark", "-r", str(path), "-T", "fields"]
    command += ["-e", "frame.time_epoch", "-e", "frame.len", "-e", "tcp.dstport"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = [line.split() for line in found.stdout.splitlines()]
    assert [row[1:] for row in rows] == [[str(len(frame)), "6379"] for frame in frames]
    assert [row[0] for row in rows] == ["1700000000.123456789", "1700000000.123456790"]
