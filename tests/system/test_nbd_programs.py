"""NBD with the programs of others: nbdinfo, nbdcopy, qemu-img and qemu-io as clients, qemu-nbd."""

from __future__ import annotations

import json
import queue
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from colobench.block.generation import ImageEvent, ImageState
from colobench.block.nbd.uri import NBDLocation, is_nbd_uri, parse_nbd_uri
from colobench.block.request import BlockRequest, RequestKind
from colobench.doctor import NBD_PROGRAMS
from colobench.errors import LocalError, RemoteError
from colobench.node.address import Address
from colobench.node.disk.copying import copy_disk
from colobench.node.disk.generation_file import GENERATION_SUFFIX, DiskImage
from colobench.node.disk.nbd_client import NBDClient
from colobench.node.disk.serving import serve_images

MISSING = [name for name in NBD_PROGRAMS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

SIZE = 8 << 20
TIMEOUT = 120


def run(*command: object) -> str:
    """Run a program that must end well; return what it says."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fails(*command: object) -> str:
    """Run a program that must not end well; return what it says."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr


def image(path: Path, seed: int = 1) -> Path:
    """Make an image with data, and with holes."""
    path.write_bytes(b"")
    with path.open("r+b") as file:
        file.truncate(SIZE)
        for place in random.Random(seed).sample(range(0, SIZE, 1 << 18), 12):
            file.seek(place)
            file.write(random.Random(place + seed).randbytes(100_000))
    return path


@pytest.fixture
def place(tmp_path) -> Iterator[str]:
    """Give the URI of a disk that is served."""
    path = image(tmp_path / "disk.img")
    address = Address.parse(f"unix:{tmp_path}/nbd.sock")
    with serve_images([str(path)], address) as (location,):
        yield str(location)


# -- Their clients, our server -------------------------------------------------------------------


@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_nbdinfo_describes_the_exports(tmp_path, family):
    paths = [str(image(tmp_path / name)) for name in ("a.img", "b.img")]
    socket = f"unix:{tmp_path}/s" if family == "unix" else "tcp:127.0.0.1:0"
    with serve_images(paths, Address.parse(socket), read_only=True) as locations:
        for location in locations:
            (found,) = json.loads(run("nbdinfo", "--json", location))["exports"]
            assert found["export-size"] == SIZE
            assert found["is_read_only"] is True
            assert found["can_flush"] is True
            assert found["block_size_minimum"] == 512
        whole = NBDLocation(locations[0].address)
        listed = json.loads(run("nbdinfo", "--list", "--json", whole))["exports"]
        assert sorted(each["export-name"] for each in listed) == ["a.img", "b.img"]
        assert "nothing" in fails("nbdinfo", NBDLocation(locations[0].address, "nothing"))


def test_holes_are_told_to_those_who_ask(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"d" * (1 << 20))
    with path.open("r+b") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"d" * (1 << 20))
    address = Address.parse(f"unix:{tmp_path}/nbd.sock")
    with serve_images([str(path)], address) as (location,):
        found = json.loads(run("nbdinfo", "--map", "--json", location))
        assert [(each["offset"], each["length"], each["type"]) for each in found] == [
            *((0, 1 << 20, 0), (1 << 20, (1 << 39) - (1 << 20), 3), (1 << 39, 1 << 20, 0)),
            ((1 << 39) + (1 << 20), (1 << 39) - (1 << 20), 3),
        ]
        with connect(str(location), allocation=True) as client:
            assert client.extents(0, 2 << 20) == [(1 << 20, False), (1 << 20, True)]
            assert client.extents(1 << 39, 512) == [(512, False)]
        with connect(str(location)) as client:
            assert client.extents(0, 2 << 20) == [(2 << 20, False)]


def test_nbdcopy_copies_in_both_directions(place, tmp_path):
    other, back = image(tmp_path / "other", seed=2), tmp_path / "back"
    run("nbdcopy", "--flush", other, place)
    run("nbdcopy", place, back)
    assert back.read_bytes() == other.read_bytes() == (tmp_path / "disk.img").read_bytes()


def test_qemu_img_knows_compares_and_converts(place, tmp_path):
    other = image(tmp_path / "other", seed=3)
    raw = ["-f", "raw", "-F", "raw"]
    assert json.loads(run("qemu-img", "info", "--output=json", place))["virtual-size"] == SIZE
    assert "Content mismatch" in fails("qemu-img", "compare", *raw, other, place)
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", other, place)
    run("qemu-img", "compare", *raw, other, place)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", place, tmp_path / "back.qcow2")
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", place, tmp_path / "back.qcow2")


def test_qemu_io_reads_writes_discards_and_has_requests_in_flight(place, tmp_path):
    commands = [
        *("write -P 0x5a 1M 512k", "read -P 0x5a 1M 512k", "write -f -P 7 64k 4k"),
        *("write -z 1M 64k", "read -P 0 1M 64k", "write -z -u 2M 64k", "read -P 0 2M 64k"),
        *("write -P 9 3M 1M", "discard 3M 512k", "read -P 9 3584k 512k", "flush"),
        *(f"aio_write -P {number} {4096 + 64 * number}k 64k" for number in range(1, 20)),
        "aio_flush",
        *(f"aio_read -P {number} {4096 + 64 * number}k 64k" for number in range(1, 20)),
        "aio_flush",
        # Parts of sectors: qemu reads and writes whole ones.
        *("write -P 3 1000 2000", "read -P 3 1000 2000"),
    ]
    words = [word for command in commands for word in ("-c", command)]
    said = run("qemu-io", "-f", "raw", *words, place)
    assert "failed" not in said
    memory = (tmp_path / "disk.img").read_bytes()
    assert memory[65536:69632] == bytes([7]) * 4096
    for number in range(1, 20):
        assert memory[(4096 + 64 * number) << 10 :][: 64 << 10] == bytes([number]) * (64 << 10)


def test_several_programs_copy_at_once(place, tmp_path):
    expected = (tmp_path / "disk.img").read_bytes()
    copies = [tmp_path / f"copy{number}" for number in range(4)]
    programs = [
        subprocess.Popen(["nbdcopy", place, str(copy)], stdout=subprocess.DEVNULL)
        for copy in copies
    ]
    assert [program.wait(TIMEOUT) for program in programs] == [0] * 4
    assert all(copy.read_bytes() == expected for copy in copies)


def test_what_is_served_for_reading_cannot_be_written(tmp_path):
    path = image(tmp_path / "disk.img")
    before = path.read_bytes()
    address = Address.parse(f"unix:{tmp_path}/nbd.sock")
    with serve_images([str(path)], address, read_only=True) as (location,):
        said = fails("qemu-io", "-f", "raw", "-c", "write 0 512", location)
        assert "Permission denied" in said
        run("qemu-io", "-r", "-f", "raw", "-c", "read 0 512", location)
        fails("nbdcopy", image(tmp_path / "other", seed=2), location)
    assert path.read_bytes() == before


# -- Our client, their server --------------------------------------------------------------------


@contextmanager
def qemu_nbd(path: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """Serve an image; give its URI and the server."""
    socket = path.with_name(f"{path.name}.sock")
    command = ["qemu-nbd", "--format=raw", "--persistent", "--shared=0", f"--socket={socket}"]
    with subprocess.Popen([*command, str(path)]) as server:
        try:
            while not socket.is_socket():
                assert server.poll() is None
                time.sleep(0.01)
            yield str(NBDLocation(f"unix:{socket}")), server
        finally:
            server.kill()


def connect(uri: str, **options: bool) -> NBDClient:
    location = parse_nbd_uri(uri)
    return NBDClient(Address.parse(location.address), location.export, **options)


def test_disk_of_qemu_nbd_is_read_written_flushed_and_cleared(tmp_path):
    path = image(tmp_path / "disk.img")
    expected = bytearray(path.read_bytes())
    with qemu_nbd(path) as (uri, _), connect(uri) as client:
        assert client.size == SIZE
        # With holes, which it sends as chunks without data.
        assert client.read(0, SIZE) == expected
        client.write(512, b"w" * 3000 * 512)
        client.write(5 << 20, b"f" * 512, fua=True)
        client.discard(1 << 20, 1 << 18)
        client.write_zeroes(4096, 8192)
        client.flush()
        expected[512 : 512 + 3000 * 512] = b"w" * 3000 * 512
        expected[5 << 20 : (5 << 20) + 512] = b"f" * 512
        expected[1 << 20 : (1 << 20) + (1 << 18)] = bytes(1 << 18)
        expected[4096 : 4096 + 8192] = bytes(8192)
        assert client.read(0, SIZE) == expected
        assert path.read_bytes() == expected


def test_many_requests_are_in_flight_to_qemu_nbd(tmp_path):
    path = image(tmp_path / "disk.img")
    chance = random.Random(4)
    data = chance.randbytes(SIZE)
    places = list(range(0, SIZE, 64 << 10))
    chance.shuffle(places)
    free, errors = threading.Semaphore(32), []

    def on_done(read: memoryview, error: Exception | None) -> None:
        errors.append(error)
        free.release()

    with qemu_nbd(path) as (uri, _), connect(uri) as client:
        for place in places:
            free.acquire()
            part = data[place : place + (64 << 10)]
            client.submit(BlockRequest(RequestKind.WRITE, place, len(part), part), on_done)
        for _ in range(32):
            free.acquire()
        client.flush()
    assert errors == [None] * len(places)
    assert path.read_bytes() == data


def test_requests_to_a_server_that_is_killed_all_hear_of_it(tmp_path):
    path = image(tmp_path / "disk.img")
    told: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    with qemu_nbd(path) as (uri, server), connect(uri) as client:
        # It reads no more, and so answers nothing.
        server.send_signal(signal.SIGSTOP)
        for number in range(8):
            request = BlockRequest(RequestKind.WRITE, 512 * number, 512, b"w" * 512)
            client.submit(request, lambda _, error: told.put(error))
        server.kill()
        for _ in range(8):
            assert isinstance(told.get(timeout=TIMEOUT), RemoteError)
        with pytest.raises(RemoteError):
            client.flush()


# -- Commands ------------------------------------------------------------------------------------


def colobench(*words: object) -> list[str]:
    return [sys.executable, "-m", "colobench", "disk", *map(str, words)]


def test_copy_goes_between_files_and_servers(tmp_path):
    source, other = image(tmp_path / "source"), image(tmp_path / "other", seed=2)
    theirs, back = image(tmp_path / "theirs", seed=3), tmp_path / "back"
    address = Address.parse(f"unix:{tmp_path}/nbd.sock")
    with serve_images([str(other)], address) as (location,), qemu_nbd(theirs) as (uri, _):
        seen = []
        copy_disk(str(source), str(location), lambda done, size: seen.append((done, size)))
        assert seen[-1] == (SIZE, SIZE)
        copy_disk(str(location), uri)
        said = run(*colobench("copy", uri, back))
        assert said == f"{SIZE} bytes copied to {back}\n"
        # What has zeros at its end has holes there.
        assert back.stat().st_blocks * 512 < SIZE
    assert back.read_bytes() == source.read_bytes() == theirs.read_bytes()
    copy_disk(str(image(tmp_path / "again", seed=5)), str(back))
    assert back.read_bytes() == (tmp_path / "again").read_bytes()


def test_copy_of_a_large_disk_with_little_in_it_is_made_of_holes(tmp_path):
    source, served, back = (tmp_path / name for name in ("source", "served", "back"))
    for path in (source, served):
        with path.open("wb") as file:
            file.truncate(1 << 36)
    with source.open("r+b") as file:
        file.seek((1 << 36) - 4096)
        file.write(b"d" * 4096)
    with served.open("r+b") as file:
        file.seek(1 << 35)
        file.write(b"old")
    with serve_images([str(served)], Address.parse(f"unix:{tmp_path}/nbd.sock")) as (location,):
        copy_disk(str(source), str(location))
        copy_disk(str(location), str(back))
    for path in (served, back):
        assert path.stat().st_blocks * 512 < 1 << 20
        with path.open("rb") as file:
            file.seek(1 << 35)
            assert file.read(3) == bytes(3)
            file.seek((1 << 36) - 4096)
            assert file.read() == b"d" * 4096


def test_copy_that_cannot_be_made_says_why(tmp_path):
    source = image(tmp_path / "source")
    small = tmp_path / "small"
    small.write_bytes(bytes(512))
    address = Address.parse(f"unix:{tmp_path}/nbd.sock")
    with serve_images([str(small)], address) as (location,):
        with pytest.raises(LocalError, match=f"at least {SIZE} bytes, found 512"):
            copy_disk(str(source), str(location))
        with pytest.raises(LocalError, match="in use"):
            copy_disk(str(source), str(small))
    with pytest.raises(LocalError, match="found a file of 512"):
        copy_disk(str(source), str(small))
    said = fails(*colobench("copy", tmp_path / "nothing", tmp_path / "copy"))
    assert said.startswith("colobench disk: image ")
    assert not (tmp_path / "copy").exists()


def test_images_of_guests_learn_that_they_were_written(tmp_path):
    path = image(tmp_path / "disk.img")
    disk = DiskImage(str(path))
    disk.on(ImageEvent.OPENED_BY_GUEST)
    before = disk.on(ImageEvent.CLEAN_END)
    disk.close()
    address = Address.parse(f"unix:{tmp_path}/nbd.sock")
    with serve_images([str(path)], address) as (location,), connect(str(location)) as client:
        client.write(0, b"w" * 512)
    disk = DiskImage(str(path))
    assert disk.generation.state is ImageState.CLEAN
    disk.close()
    assert before.state is ImageState.CLEAN
    with pytest.raises(LocalError, match="no guest has used"):
        copy_disk(str(image(tmp_path / "other")), str(path))
    assert Path(f"{path}{GENERATION_SUFFIX}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_where_and_ends_with_a_signal(tmp_path, number):
    path = image(tmp_path / "disk.img")
    command = colobench("serve", path, "--socket", f"unix:{tmp_path}/nbd.sock")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        said = server.stdout.readline().strip()
        file, _, uri = said.partition(": ")
        assert file == str(path)
        with connect(uri) as client:
            client.write(512, b"w" * 512)
            server.send_signal(number)
            assert server.wait(TIMEOUT) == (0 if number == signal.SIGINT else 128 + number)
    assert not (tmp_path / "nbd.sock").exists()
    assert path.read_bytes()[512:1024] == b"w" * 512


def test_serve_refuses_what_it_cannot_serve(tmp_path):
    path = image(tmp_path / "disk.img")
    uneven = tmp_path / "uneven"
    uneven.write_bytes(bytes(1000))
    (tmp_path / "more").mkdir()
    other = image(tmp_path / "more" / "disk.img")
    address = Address.parse(f"unix:{tmp_path}/nbd.sock")
    for paths, words in (
        ([str(path), str(other)], "twice"),
        ([str(uneven)], "1000"),
        ([str(tmp_path / "nothing")], "No such file"),
    ):
        with pytest.raises(LocalError, match=words), serve_images(paths, address):
            pass
    assert not (tmp_path / "nbd.sock").exists()


# -- URIs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "address", "export"),
    [
        ("nbd://127.0.0.1", "tcp:127.0.0.1:10809", ""),
        ("nbd://localhost:7/a%20disk", "tcp:localhost:7", "a disk"),
        ("nbd+unix:///?socket=/tmp/s", "unix:/tmp/s", ""),
        ("nbd+unix:///disk?socket=%2Ftmp%2Fa%26b", "unix:/tmp/a&b", "disk"),
    ],
)
def test_uris_are_those_of_nbd(uri, address, export):
    location = parse_nbd_uri(uri)
    assert (location.address, location.export) == (address, export)
    assert parse_nbd_uri(str(location)) == location
    assert is_nbd_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        *("nbd://", "nbd://host:x", "nbds://host", "nbd+unix:///", "nbd+unix://host/?socket=s"),
        *("nbd://host?tls-certificates=x", "nbd+unix:///?socket=s&more=1", "disk.img"),
    ],
)
def test_other_uris_are_refused(uri):
    with pytest.raises(LocalError, match="NBD URI"):
        parse_nbd_uri(uri)
