"""A real QEMU writes a disk: it has the checkpoint that is in the file, whoever is killed."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from colobench.block.generation import ImageState
from colobench.block.nbd.uri import NBDLocation
from colobench.cli.main import main
from colobench.memory.ram import PageMemory
from colobench.node.connection import PeerLost
from colobench.node.disk.generation_file import load_generation
from colobench.node.disk.image import ImageInUse
from colobench.node.receive.disks import DiskNotFollowed, ReceivedDisks
from colobench.node.receive.receiver import Receiver
from colobench.node.receive.records import RestoredDisks, SavedCheckpoint
from colobench.peers.qemu import TIMEOUT, QEMUUnavailable, find_program
from disk_writing import DISK_BYTES, WRITE_SECTOR, disk_after, disk_options, replicate, wait_for
from qemu_primary import BLOCK, QEMUPrimary, count_in, ram_of
from share import SEED, amount

DELAY_MS = 100
RAM_MIB = 20
DRIVERS = ("raw", "replication")


@pytest.fixture(scope="module", autouse=True)
def qemu() -> None:
    try:
        find_program()
    except QEMUUnavailable as error:
        pytest.skip(str(error))


@contextmanager
def writing_primary(directory: Path) -> Iterator[QEMUPrimary]:
    """Start a QEMU whose guest writes a disk in each round."""
    own = directory / "primary.img"
    own.write_bytes(bytes(DISK_BYTES))
    options = disk_options(own)
    with QEMUPrimary(
        ram_mib=RAM_MIB, sleep_ns=2_000_000, options=options, more=WRITE_SECTOR
    ) as primary:
        primary.wait_until_it_counts(300)
        yield primary
    own.unlink()


def check_that_they_belong_together(primary: QEMUPrimary, file: Path, disk: Path) -> int:
    """Compare a disk with the RAM in a file, and let a QEMU go on; give the file's count.

    The guest counts a round before it writes a sector, so the sector of the last one may be there
    or not: then the device's state in the file says that it is to be written.
    """
    data = disk.read_bytes()
    count = count_in(np.frombuffer(ram_of(file, RAM_MIB << 20), dtype=np.uint8))
    rounds = [number for number in (count - 1, count) if data == disk_after(number)]
    assert len(rounds) == 1
    primary.options = disk_options(disk)
    first, later = primary.resumed_count(file)
    assert (first, later > first) == (count, True)
    newer = disk.read_bytes()
    assert any(newer == disk_after(number) for number in range(count, count + 100_000))
    return count


@pytest.mark.parametrize("driver", DRIVERS)
def test_disk_has_the_last_committed_checkpoint_whenever_the_primary_is_killed(
    driver: str, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    file, disk = tmp_path / "guest.migration", tmp_path / "disk.img"
    for _ in range(amount(1, 25)):
        wanted, pause = chance.randrange(2, 5), chance.uniform(0, 2 * DELAY_MS / 1000)
        counts: dict[int, int] = {}
        reached = threading.Event()
        restored: list[RestoredDisks] = []

        def note(number: int, memory: PageMemory, counts: dict[int, int] = counts) -> None:
            block = memory.block(BLOCK)
            assert block is not None
            counts[number] = count_in(memory.block_bytes(block))

        def saved(
            record: SavedCheckpoint, wanted: int = wanted, reached: threading.Event = reached
        ) -> None:
            if record.number >= wanted:
                reached.set()

        with writing_primary(tmp_path) as primary:
            address = f"unix:{primary.directory / 'colo'}"
            disks = ReceivedDisks([f"{disk},size={DISK_BYTES}"], f"{address}.nbd", restored.append)
            options = {"disks": disks, "before_loaded": note, "on_saved": saved}
            with Receiver(address, file, **options) as receiver:  # type: ignore[arg-type]
                replicate(primary.process, disks.locations[0], driver)
                primary.migrate(address, DELAY_MS)
                assert reached.wait(TIMEOUT)
                threading.Event().wait(pause)
                # What it writes from now on may be in no checkpoint.
                beyond = primary.wait_until_it_counts(primary.counter())
                primary.kill()
                receiver.wait()
            assert isinstance(receiver.error, PeerLost)
            assert receiver.saved == receiver.committed
            assert receiver.committed is not None
            assert [each.number for each in restored] == [receiver.committed]
            generation = load_generation(str(disk), DISK_BYTES)
            assert generation is not None
            assert (generation.state, generation.checkpoint) == (
                ImageState.CLEAN,
                receiver.committed,
            )
            count = check_that_they_belong_together(primary, file, disk)
            assert count == counts[receiver.committed]
            assert restored[0].bytes or beyond <= count + 1
        assert sorted(os.listdir(tmp_path)) == ["disk.img", "disk.img.generation", file.name]


RECEIVER = """
import json, os, sys
from colobench.node.parent import die_with
from colobench.node.disk.image import ImageInUse
from colobench.node.receive.disks import ReceivedDisks
from colobench.node.receive.receiver import Receiver

die_with(int(sys.argv[1]))
address, file, disk = sys.argv[2:]

def saved(record):
    # One call: whoever is killed has said all of it or nothing.
    os.write(1, json.dumps([record.number, record.error]).encode() + b"\\n")

disks = ReceivedDisks([disk], address + ".nbd")
receiver = Receiver(address, file, disks=disks, on_saved=saved)
receiver.start()
os.write(1, json.dumps("ready").encode() + b"\\n")
receiver.wait()
"""


def test_disk_can_go_back_to_the_saved_checkpoint_whenever_the_receiver_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    file, disk = tmp_path / "guest.migration", tmp_path / "disk.img"
    for _ in range(amount(1, 25)):
        wanted, pause = chance.randrange(1, 5), chance.uniform(0, 2 * DELAY_MS / 1000)
        with writing_primary(tmp_path) as primary:
            address = f"unix:{primary.directory / 'colo'}"
            arguments = [str(os.getpid()), address, str(file), f"{disk},size={DISK_BYTES}"]
            with subprocess.Popen(
                [sys.executable, "-c", RECEIVER, *arguments], stdout=subprocess.PIPE, text=True
            ) as process:
                said = lines_of(process)
                assert said.get(timeout=4 * TIMEOUT) == "ready"
                export = NBDLocation(f"{address}.nbd", "disk0")
                replicate(primary.process, export, chance.choice(DRIVERS))
                primary.migrate(address, DELAY_MS)
                last = [0, ""]
                while last[0] < wanted:
                    last = said.get(timeout=TIMEOUT)
                    assert last[1] == ""
                threading.Event().wait(pause)
                process.send_signal(signal.SIGKILL)
            primary.kill()
            generation = load_generation(str(disk), DISK_BYTES)
            assert generation is not None
            assert generation.state is ImageState.FOLLOWING
            assert main(["disk", "repair", str(disk), "--checkpoint", str(file)]) == 0
            assert "it is clean" in capsys.readouterr().out
            check_that_they_belong_together(primary, file, disk)


def lines_of(process: subprocess.Popen[str]) -> queue.SimpleQueue[object]:
    said: queue.SimpleQueue[object] = queue.SimpleQueue()
    assert process.stdout is not None
    lines = process.stdout

    def read() -> None:
        for line in lines:
            said.put(json.loads(line))

    threading.Thread(target=read, daemon=True).start()
    return said


def test_disk_that_a_qemu_has_open_is_not_served(tmp_path: Path) -> None:
    with writing_primary(tmp_path):
        disks = ReceivedDisks([str(tmp_path / "primary.img")], f"unix:{tmp_path / 'nbd'}")
        with pytest.raises(ImageInUse, match="found it locked by a QEMU"):
            disks.serve(tmp_path / "guest.migration")


def test_primary_that_writes_to_a_disk_no_more_ends_its_protection(tmp_path: Path) -> None:
    file, disk = tmp_path / "guest.migration", tmp_path / "disk.img"
    reached = threading.Event()
    with writing_primary(tmp_path) as primary:
        address = f"unix:{primary.directory / 'colo'}"
        disks = ReceivedDisks([f"{disk},size={DISK_BYTES}"], f"{address}.nbd")
        with Receiver(
            address, file, disks=disks, on_saved=lambda record: record.number and reached.set()
        ) as receiver:
            replicate(primary.process, disks.locations[0], "raw")
            primary.migrate(address, DELAY_MS)
            assert reached.wait(TIMEOUT)
            primary.process.execute("x-blockdev-change", parent="disk", child="children.1")
            primary.process.execute("blockdev-del", **{"node-name": "replica"})
            wait_for(lambda: receiver.error is not None)
            receiver.wait()
        assert isinstance(receiver.error, DiskNotFollowed)
        check_that_they_belong_together(primary, file, disk)
