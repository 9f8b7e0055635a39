"""Disks of a receiver: they have the checkpoint that is in the file, whenever it is killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import killed_receiver
from colobench.block.clusters import CLUSTER_SIZE
from colobench.block.generation import ImageState
from colobench.cli.main import main
from colobench.errors import LocalError
from colobench.node.address import Address
from colobench.node.connection import PeerLost
from colobench.node.disk.generation_file import DiskImage, load_generation
from colobench.node.disk.image import ImageInUse
from colobench.node.disk.nbd_client import NBDClient
from colobench.node.receive.disks import (
    DiskNotFollowed,
    NotSaved,
    OtherCheckpoint,
    ReceivedDisks,
    bring_image_together,
)
from colobench.node.receive.mark import DiskMark, read_mark
from colobench.node.receive.receiver import Receiver
from colobench.peers.recordings import CHECKPOINTS
from killed_receiver import NAMES, SIZE, contents
from recorded_primary import recording, send
from share import SEED, amount


def run_and_kill(directory: Path, calls: list[int]) -> None:
    arguments = [str(directory), str(SEED), *map(str, calls)]
    subprocess.run([sys.executable, killed_receiver.__file__, *arguments], check=True)


def test_disks_go_back_to_the_checkpoint_in_the_file_wherever_the_receiver_is_killed(
    tmp_path: Path,
) -> None:
    run_and_kill(tmp_path, [1_000_000])
    all_calls = int((tmp_path / "1000000/calls").read_text())
    count = min(amount(12, all_calls), all_calls)
    calls = sorted(random.Random(SEED).sample(range(1, all_calls + 1), count))
    run_and_kill(tmp_path, calls)
    checkpoints = set()
    for call in [1_000_000, *calls]:
        directory = tmp_path / str(call)
        mark = read_mark(directory / "guest")
        for name, expected in zip(
            NAMES, contents(SEED, mark.checkpoint) if mark else (), strict=False
        ):
            image = directory / name
            generation = load_generation(str(image), SIZE)
            assert generation is not None
            if generation.state is ImageState.FOLLOWING:
                bring_image_together(str(image), directory / "guest")
            assert image.read_bytes() == expected
            generation = load_generation(str(image), SIZE)
            assert generation is not None
            assert mark == DiskMark(generation.identifier, generation.checkpoint or 0)
            assert generation.state is ImageState.CLEAN
        checkpoints.add(mark and mark.checkpoint)
    assert len(checkpoints) > 2


class Served:
    """Disks that are served, and a client of each."""

    def __init__(self, directory: Path, *sizes: int) -> None:
        self.file = directory / "guest"
        self.paths = [directory / f"{number}.img" for number in range(len(sizes))]
        texts = [f"{path},size={size}" for path, size in zip(self.paths, sizes, strict=True)]
        self.disks = ReceivedDisks(texts, f"unix:{directory / 'nbd'}")
        self.disks.serve(self.file)
        self.clients = [
            NBDClient(Address.parse(where.address), where.export) for where in self.disks.locations
        ]

    def save(self, number: int) -> None:
        self.file.write_bytes(b"state" + self.disks.mark(number))

    def leave(self) -> None:
        """End as by a kill, but for the server."""
        self.disks.end(self.file, is_saved=False)
        for client in self.clients:
            client.close()


def test_disk_of_another_file_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    served = Served(tmp_path, SIZE)
    served.clients[0].write(0, b"a" * 4096)
    served.disks.begin()
    served.save(0)
    served.clients[0].write(0, b"b" * 4096)
    served.leave()
    (path,) = served.paths
    other = tmp_path / "other"
    for written, found in (
        (None, "found none"),
        (b"a migration file", "found none"),
        (DiskMark("f" * 32, 0).to_bytes(), f"found generation {'f' * 32}"),
    ):
        if written is not None:
            other.write_bytes(written)
        disks = ReceivedDisks([str(path)], f"unix:{tmp_path / 'nbd'}")
        with pytest.raises(OtherCheckpoint, match=f"other: expected a checkpoint of .*{found}"):
            disks.serve(other)
    generation = load_generation(str(path), SIZE)
    assert generation is not None
    other.write_bytes(DiskMark(generation.identifier, 7).to_bytes())
    with pytest.raises(LocalError, match="go back to checkpoint 7, found the undo of 0, 1, 2"):
        bring_image_together(str(path), other)
    assert path.read_bytes()[:4096] == b"b" * 4096
    # The right file undoes it still, and a second time there is nothing to undo.
    assert main(["disk", "repair", str(path), "--checkpoint", str(served.file)]) == 0
    assert path.read_bytes()[:4096] == b"a" * 4096
    with pytest.raises(LocalError, match="expected an image that a receiver has left"):
        bring_image_together(str(path), served.file)
    assert sorted(os.listdir(tmp_path)) == ["0.img", "0.img.generation", "guest", "other"]


def test_start_alone_leaves_disk_and_file_together(tmp_path: Path) -> None:
    served = Served(tmp_path, SIZE)
    served.disks.begin()
    served.save(0)
    served.disks.end(served.file, is_saved=True)
    before = load_generation(str(served.paths[0]), SIZE)
    assert before is not None
    for client in served.clients:
        client.close()
    again = Served(tmp_path, SIZE)
    assert again.clients[0].read(0, 512) == bytes(512)
    assert load_generation(str(again.paths[0]), SIZE) == before
    again.clients[0].write(0, b"c" * 512)
    after = load_generation(str(again.paths[0]), SIZE)
    assert after is not None
    assert after.state is ImageState.COPYING
    again.leave()


def test_checkpoint_that_the_disks_could_not_go_back_to_is_not_forgotten(tmp_path: Path) -> None:
    served = Served(tmp_path, SIZE)
    served.disks.begin()
    served.save(0)
    for number in (1, 2):
        served.clients[0].write(0, bytes([number]) * 512)
        served.disks.check(number, 0)
        served.disks.commit()
    with pytest.raises(NotSaved, match=r"expected checkpoint 1 or a later one .* found 0"):
        served.disks.check(3, 0)
    with pytest.raises(NotSaved, match=r"expected checkpoint 0 or a later one .* found none"):
        served.disks.check(2, None)
    served.disks.check(3, 1)
    served.disks.end(served.file, is_saved=True)
    assert served.paths[0].read_bytes()[:512] == bytes(512)
    for client in served.clients:
        client.close()


def test_disk_without_its_primary_is_noticed_at_once(tmp_path: Path) -> None:
    served = Served(tmp_path, SIZE, SIZE)
    served.clients.append(NBDClient(Address.parse(served.disks.locations[1].address), "disk1"))
    with pytest.raises(DiskNotFollowed, match=r"disk1: expected one connection.* found 2"):
        served.disks.begin()
    served.clients.pop().close()
    served.clients.pop().close()
    with pytest.raises(DiskNotFollowed, match=r"disk1: expected one connection.* found 0"):
        served.disks.begin()
    served.leave()


def test_disk_that_cannot_be_served_is_named(tmp_path: Path) -> None:
    address, file = f"unix:{tmp_path / 'nbd'}", tmp_path / "guest"
    path = tmp_path / "disk.img"
    with pytest.raises(LocalError, match=r"disk.img: cannot be opened: No such file"):
        ReceivedDisks([str(path)], address).serve(file)
    image = DiskImage(str(path), SIZE)
    with pytest.raises(ImageInUse, match=r"disk.img: expected one that is not in use"):
        ReceivedDisks([str(path)], address).serve(file)
    image.close()
    with pytest.raises(LocalError, match=rf"disk.img: expected 4096 bytes, found .* {SIZE}"):
        ReceivedDisks([f"{path},size=4K"], address).serve(file)
    with pytest.raises(LocalError, match="found a replica"):
        ReceivedDisks([f"{path},replica=other"], address)
    with pytest.raises(LocalError, match="expected each file once"):
        ReceivedDisks([str(path), str(path)], address)
    with pytest.raises(LocalError, match="expected a file for the guest's state"):
        Receiver(f"unix:{tmp_path / 'colo'}", disks=ReceivedDisks([str(path)], address))
    assert not (tmp_path / "nbd").exists()


def test_disk_that_fails_ends_the_protection(tmp_path: Path) -> None:
    served = Served(tmp_path, SIZE)
    served.disks.begin()
    served.save(0)
    os.truncate(served.paths[0], CLUSTER_SIZE)
    with pytest.raises(LocalError):
        served.clients[0].write(2 * CLUSTER_SIZE, bytes(512))
    with pytest.raises(LocalError, match=r"disks: image .*expected a file of"):
        served.disks.check(1, 0)
    served.leave()


@pytest.mark.parametrize("closes_at", [None, 3])
def test_session_of_a_real_qemu_keeps_disk_and_file_together(
    closes_at: int | None, tmp_path: Path
) -> None:
    address, file, path = f"unix:{tmp_path / 'colo'}", tmp_path / "guest", tmp_path / "disk.img"
    disks = ReceivedDisks([f"{path},size={SIZE}"], f"{address}.nbd")

    def write(number: int, _: object) -> None:
        # The guest stands still, but the disk is committed: this belongs to the next checkpoint.
        client.write(512 * number, bytes([number]) * 512)
        if number == closes_at:
            client.close()

    with Receiver(address, file, disks=disks, before_loaded=write) as receiver:
        client = NBDClient(Address.parse(disks.locations[0].address), "disk0")
        send(address, recording("colo-pc"), then=lambda peer: closes_at and receiver.wait())
        receiver.wait()
    client.close()
    assert isinstance(receiver.error, DiskNotFollowed if closes_at else PeerLost)
    last = closes_at or CHECKPOINTS
    assert receiver.committed == receiver.saved == last
    mark = read_mark(file)
    assert mark is not None
    assert mark.checkpoint == last
    written = b"".join(bytes([number]) * 512 for number in range(last))
    assert path.read_bytes() == written.ljust(SIZE, b"\0")
    assert sorted(os.listdir(tmp_path)) == ["disk.img", "disk.img.generation", "guest"]
