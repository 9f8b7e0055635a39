"""Disks of a pair: equal at each checkpoint, whole after a failover, copied to who joins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from colobench.errors import ColobenchError, LocalError
from colobench.lab.session.node_pair import PEERS
from colobench.lab.session.session import Session
from colobench.node.address import Address
from colobench.node.breakpoints import PRIMARY_POINTS, SECONDARY_POINTS
from colobench.node.disk.description import describe_image
from colobench.node.disk.image import FileImage
from colobench.node.disk.repair import undo
from colobench.node.disk.replication import digest
from colobench.node.disk.serving import serve_images
from colobench.settings.settings import Settings
from sector_pair import image_of, judge, pair
from share import amount, some

pytestmark = pytest.mark.usefixtures("nothing_left")

#: Who dies, who is held, and where.
KILLS = [
    *(("primary", "primary", point) for point in PRIMARY_POINTS),
    *(("primary", "secondary", point) for point in SECONDARY_POINTS),
    *(("secondary", "secondary", point) for point in SECONDARY_POINTS),
    *(("secondary", "primary", point) for point in PRIMARY_POINTS),
]


def goes(**settings: Any) -> bool:
    """Say whether these settings go together."""
    try:
        Settings().override(**settings)
    except LocalError:
        return False
    return True


FORMS = [
    (variant, capture)
    for variant in ("v12", "upstream")
    for capture in ("stop-and-send", "copy-then-send", "copy-on-write", "copy-on-write-2")
]
#: Transports and links, with which every form has to work.
WAYS: list[dict[str, Any]] = [
    {"transport": "stream"},
    {"transport": "memfd"},
    {"transport": "multifd", "multifd_channels": 2},
    {"transport": "multifd+tcp"},
    {"transport": "stream", "link": "rate=1G,delay=1ms"},
    {"transport": "multifd", "link": "rate=200M,delay=2ms,jitter=1ms"},
]
CASES = [
    (*form, way) for form in FORMS for way in WAYS if goes(variant=form[0], capture=form[1], **way)
]


@pytest.mark.parametrize(("variant", "capture", "way"), some(CASES, 2))
def test_disks_are_equal_at_each_checkpoint(
    tmp_path: Path, variant: str, capture: str, way: dict[str, Any]
) -> None:
    with pair(tmp_path, variant=variant, capture=capture, verify=True, **way) as session:
        session.run(amount(5, 200))
        # The guest writes to its disk all the time, unless it has none of a busy machine's.
        while len({_disk_at(session, record.number) for record in session.records[:]}) == 1:
            session.run(1)
        assert {record.verified for record in session.records[:]} == {True}


@pytest.mark.parametrize(("variant", "capture", "way"), some(CASES, 1))
def test_disk_of_a_survivor_has_all_that_its_guest_was_told(
    tmp_path: Path, variant: str, capture: str, way: dict[str, Any]
) -> None:
    """No write is lost, torn, or from a moment that was undone, in failover after failover."""
    swapped = False
    with pair(tmp_path, variant=variant, capture=capture, **way) as session:
        passed = {role: session.points(role) for role in PEERS}
        for victim, held, point in some([each for each in KILLS if each[2] in passed[each[1]]], 2):
            session.run(2)
            session.kill(victim, at=point, held=held)
            survivor = PEERS[victim]
            takeover = session.failover()
            assert takeover.work_after > takeover.work_at_takeover
            swapped ^= survivor == "secondary"
            verdict = judge(session, survivor, image_of(tmp_path, swapped))
            assert verdict.right, f"{victim}, {held} at {point}: {verdict}"
            assert verdict.written > 0
            session.rejoin()
        session.run(1)


@pytest.mark.parametrize("variant", some(["v12", "upstream"], 1))
def test_disks_are_equal_at_each_of_two_open_checkpoints(tmp_path: Path, variant: str) -> None:
    """Cuts follow each other at once, and the guest writes meanwhile."""
    settings: dict[str, Any] = {"capture": "copy-on-write-2", "variant": variant, "delay": 0}
    with pair(tmp_path, verify=True, **settings) as session:
        session.run(amount(20, 1000))
        assert {record.verified for record in session.records} == {True}
        if variant == "v12":
            session.kill("primary", at="sent")
            assert session.failover().equal


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="not installed: qemu-img")
def test_qemu_img_finds_both_disks_equal_at_each_commit(tmp_path: Path) -> None:
    """Through NBD: at the commit each image is copied, and the copies are served."""
    found = set()
    copies = [str(tmp_path / "primary"), str(tmp_path / "secondary")]
    with pair(tmp_path) as session:
        for number in range(amount(3, 100)):
            # So that the guest has written since the digest before, whoever had the processor.
            session.wait_for_ticks(2)
            session.hold("primary", "received")
            # It waits for the requests under way; the guest stands.
            digest = session.nodes["primary"].execute("x-query-digest")["disk0"]
            for path, copy in zip(("disk", "disk.replica"), copies, strict=True):
                shutil.copyfile(tmp_path / path, copy)
            session.go_on("primary")
            address = Address.parse(f"unix:{tmp_path}/nbd{number}")
            with serve_images(copies, address, read_only=True) as locations:
                command = ["qemu-img", "compare", "-f", "raw", "-F", "raw", *map(str, locations)]
                compared = subprocess.run(command, capture_output=True, text=True, check=False)
            assert compared.stdout == "Images are identical.\n", compared.stderr
            found.add(digest)
    assert len(found) == amount(3, 100)


def test_takeover_finds_the_disk_of_the_committed_checkpoint(tmp_path: Path) -> None:
    """The secondary's disk is undone to the digest that the primary has announced."""
    with pair(tmp_path, verify=True) as session:
        session.run(2)
        session.kill("primary", at="sent")
        assert session.failover().equal
        assert "disk0" in session.journal.digests[2]


def test_guest_that_writes_much_gets_checkpoints_because_of_its_disk(tmp_path: Path) -> None:
    with pair(tmp_path, delay=60_000, disk_buffer_limit="4M", writes_per_tick=64) as session:
        session.wait_for(lambda: session.records.total > 0, "a checkpoint", 60.0)
        assert session.records[0].cause == "disk"


def test_image_of_a_killed_secondary_is_no_guests(tmp_path: Path) -> None:
    with pair(tmp_path) as session:
        session.run(1)
        session.kill("secondary")
        session.failover()
    with (
        pytest.raises(ColobenchError, match="following"),
        pair(tmp_path, disks=[f"{tmp_path}/disk.replica"]),
    ):
        pass


def test_image_of_a_killed_secondary_is_undone_from_layers_in_a_directory(tmp_path: Path) -> None:
    with pair(tmp_path, disk_buffer=str(tmp_path)) as session:
        session.run(2)
        assert (tmp_path / "disk.replica.layers").exists()
        session.kill("secondary", at="ram-received")
        session.failover()
    undo(f"{tmp_path}/disk.replica", str(tmp_path))
    assert describe_image(f"{tmp_path}/disk.replica").refusal == ""
    assert not list(tmp_path.glob("*.layers"))


def test_guest_is_started_on_the_replica_alone_after_both_nodes_died(tmp_path: Path) -> None:
    with pair(tmp_path, disk_buffer=str(tmp_path), verify=True) as session:
        session.run(2)
        session.kill("secondary", at="ram-received")
        session.kill("primary")
        digests = session.journal.digests
    (tmp_path / "disk").unlink()
    replica = f"{tmp_path}/disk.replica"
    left = describe_image(replica).generation
    assert left is not None
    assert left.checkpoint is not None
    undo(replica, str(tmp_path))
    with FileImage(replica, read_only=True) as image:
        assert digest(image) == digests[left.checkpoint]["disk0"]
    with pair(tmp_path, disks=[replica], guest="uniform", verify=True) as session:
        session.run(1)
        assert session.records[0].verified


def test_next_session_goes_on_from_the_image_that_is_current(tmp_path: Path) -> None:
    """The primary's image is left behind by a kill; its replica's guest has gone on."""
    with pair(tmp_path) as session:
        session.run(1)
        session.kill("primary")
        session.failover()
        digest = _stopped_digest(session)
    with pair(tmp_path, guest="uniform", verify=True) as session:
        assert session.journal.digests[0]["disk0"] == digest
        session.run(1)
        assert session.records[0].verified


def _disk_at(session: Session, number: int) -> str:
    """Give the digest of the primary's disk at a checkpoint."""
    return str(session.journal.digests[number]["disk0"])


def _stopped_digest(session: Session) -> str:
    """Stop the secondary's guest for good, and digest its disk."""
    node = session.nodes["secondary"]
    node.execute("stop")
    return str(node.execute("x-query-digest")["disk0"])
