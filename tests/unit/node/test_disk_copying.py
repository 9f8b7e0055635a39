"""Copies of disks: whatever a server can do, and never a file onto itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from colobench.block.nbd import format as nbd
from colobench.block.nbd.format import TransmissionFlag
from colobench.block.nbd.server_conversation import ServerConversation
from colobench.errors import LocalError
from colobench.node.address import Address
from colobench.node.disk.copying import copy_disk
from colobench.node.disk.image import FileImage
from colobench.node.disk.serving import serve_images

SIZE = 3 << 20


@pytest.mark.parametrize("largest", [nbd.PAYLOAD_LIMIT, 100_000])
@pytest.mark.parametrize("clears", [True, False])
def test_copy_is_whole_if_a_server_takes_little_at_once_or_clears_nothing(
    tmp_path, monkeypatch, largest, clears
):
    abilities = ServerConversation._transmission_flags
    lacking = TransmissionFlag(0) if clears else TransmissionFlag.SEND_WRITE_ZEROES
    monkeypatch.setattr(nbd, "PAYLOAD_LIMIT", largest)
    monkeypatch.setattr(
        ServerConversation,
        "_transmission_flags",
        lambda conversation, export: abilities(conversation, export) & ~lacking,
    )
    source, destination = tmp_path / "source", tmp_path / "destination"
    contents = random.Random(3).randbytes(1 << 20) + bytes(1 << 20) + b"e" * (1 << 20)
    with FileImage(str(source), SIZE) as image:
        image.write(0, contents[: 1 << 20])
        image.write(2 << 20, contents[2 << 20 :])
    destination.write_bytes(b"o" * SIZE)
    with serve_images([str(destination)], Address.parse(f"unix:{tmp_path}/s")) as (place,):
        copy_disk(str(source), str(place))
        assert copy_disk(str(place), str(tmp_path / "back")) == SIZE
    assert destination.read_bytes() == contents
    assert (tmp_path / "back").read_bytes() == contents


def test_disk_is_not_copied_onto_itself(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    Path(tmp_path / "link").symlink_to(disk)
    with pytest.raises(LocalError, match="expected another file than the source"):
        copy_disk(str(disk), str(tmp_path / "link"))


def test_file_whose_name_is_no_text_is_not_served(tmp_path):
    path = tmp_path / "bad\udcff.img"
    path.write_bytes(bytes(4096))
    address = Address.parse(f"unix:{tmp_path}/s")
    with (
        pytest.raises(LocalError, match="expected a name in UTF-8"),
        serve_images([str(path)], address),
    ):
        pass
