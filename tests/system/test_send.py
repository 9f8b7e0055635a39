"""A recorded session is sent to a real QEMU, which follows, fails over and runs on."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kvm_guests
from colobench.cli.main import main
from colobench.node.address import Address
from colobench.node.connection import PeerLost, PeerStalled
from colobench.peers.firmware import FIRST_BYTE
from colobench.peers.qemu import PROGRAM
from colobench.peers.recorded_session import open_session, recorded_guest
from colobench.peers.secondary_qemu import SecondaryQEMU
from colobench.peers.session_sender import SessionSender, send_session
from colobench.wire.format import BE64
from colobench.wire.messages import Message, encode_message
from colobench.wire.replayed_session import STAMP, ReplayedSession, SessionChanges
from places import CLONE
from share import SHARE

DIRECTORY = CLONE / "datasets/qemu"
SESSION = DIRECTORY / "colo-pc.xz"
needs_qemu = pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"no {PROGRAM}")
#: An emulated secondary needs seconds for some checkpoints.
CHECKPOINTS = 8 if kvm_guests.REASON and not SHARE else 100
NAMES = ("colo-pc", "colo-q35-xbzrle", "colo-many-devices") if SHARE else ("colo-pc",)


@needs_qemu
@pytest.mark.parametrize("name", NAMES)
def test_real_secondary_takes_all_checkpoints_fails_over_and_runs_on(name: str) -> None:
    path = DIRECTORY / f"{name}.xz"
    guest = recorded_guest(path)
    with (
        open_session(path) as (data, places),
        SecondaryQEMU(guest.command, guest.image) as qemu,
    ):
        session = ReplayedSession(data, places, SessionChanges(devices=guest.lacks))
        connection = Address.parse(qemu.address).connect(30)
        with SessionSender(session, connection, qemu, timeout=60) as sender:
            found = send_session(sender, CHECKPOINTS, delay_ms=1)
            assert [each.problem for each in found] == [""] * CHECKPOINTS
            assert qemu.lost_heartbeat() == "running"
        repetition = CHECKPOINTS - session.recorded
        for page in session.stamped_pages[1]:
            stamp = qemu.memory(4096 * page, len(STAMP) + BE64.size)
            assert stamp == STAMP + BE64.pack(repetition)
        # The guest counts in each of its pages.
        before = counter(qemu)
        while counter(qemu) <= before:
            pass


def counter(qemu: SecondaryQEMU) -> int:
    return int.from_bytes(qemu.memory(FIRST_BYTE, 4), "little")


@needs_qemu
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("--tear=2", "torn on purpose"),
        ("--leave-out=VMSTATE_SEND:2", "expected VMSTATE_RECEIVED, found the end of COLO"),
    ],
)
def test_qemu_refuses_a_changed_checkpoint_and_runs_on(
    change: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["send", str(SESSION), "--fail-over", "--json", "--delay=0", "--timeout=60"]
    assert main([*arguments, change]) == 3
    found = json.loads(capsys.readouterr().out)
    first, second = found["checkpoints"]
    assert first["problem"] == ""
    assert words in second["problem"]
    assert "COLO_EXIT secondary error" in second["problem"]
    assert found["state"] == "after x-colo-lost-heartbeat its guest is running"


@needs_qemu
def test_qemu_of_another_machine_refuses_the_migration_with_its_own_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = [PROGRAM, "-machine", "isapc", "-accel", "tcg", "-nodefaults", "-display", "none"]
    assert main(["send", str(SESSION), "--", *machine]) == 1
    error = capsys.readouterr().err
    # A quick QEMU ends while its migration is still being sent.
    assert error.startswith("colobench send: migration: ")
    assert "QEMU: Machine type received is 'pc-i440fx-7.2'" in error
    assert len(error.splitlines()) == 1


@contextmanager
def peer(answer: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """Give a connection to a secondary of this test, which answers in a thread."""
    near, far = socket.socketpair()

    def serve() -> None:
        with far:
            answer(far)

    thread = threading.Thread(target=serve)
    thread.start()
    with near:
        yield near
    thread.join()


def read_on(far: socket.socket) -> None:
    while far.recv(1 << 20):
        pass


def answers(*messages: Message) -> Callable[[socket.socket], None]:
    def answer(far: socket.socket) -> None:
        far.sendall(b"".join(map(encode_message, messages)))
        read_on(far)

    return answer


def send(connection: socket.socket, timeout: float = 60.0) -> list[str]:
    with open_session(SESSION) as (data, places):
        sender = SessionSender(ReplayedSession(data, places), connection, timeout=timeout)
        return [each.problem for each in send_session(sender, 2, delay_ms=0)]


def test_silent_secondary_is_left_after_the_timeout() -> None:
    words = r"CHECKPOINT_READY, found silence for 0\.01 s"
    with peer(read_on) as near, pytest.raises(PeerStalled, match=words):
        send(near, timeout=0.01)


def test_secondary_that_goes_away_ends_the_session() -> None:
    with peer(lambda far: None) as near, pytest.raises(PeerLost, match=r"^migration: "):
        send(near)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        (
            [Message.CHECKPOINT_READY, Message.VMSTATE_LOADED],
            "state REQUESTED: expected CHECKPOINT_REPLY, found VMSTATE_LOADED",
        ),
        (
            [Message.CHECKPOINT_READY, Message.CHECKPOINT_REPLY, Message.VMSTATE_LOADED],
            "state SENT: expected VMSTATE_RECEIVED, found VMSTATE_LOADED",
        ),
    ],
)
def test_answer_that_the_table_does_not_have_ends_the_session(
    messages: list[Message], problem: str
) -> None:
    with peer(answers(*messages)) as near:
        assert send(near) == [problem]


@pytest.mark.parametrize("change", ["--tear=7", "--leave-out=VMSTATE_SEND:7"])
def test_change_of_a_checkpoint_that_is_not_sent_is_refused(
    change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["send", str(SESSION), "unix:nobody", change]) == 1
    option = change.partition("=")[0]
    words = f"colobench send: {option}: expected a checkpoint of 1 to 6, found 7\n"
    assert capsys.readouterr().err == words


def test_address_where_nobody_listens_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["send", str(SESSION), f"unix:{tmp_path}/nobody", "--timeout=1"]) == 1
    error = capsys.readouterr().err
    assert (
        error == f"colobench send: connect to unix:{tmp_path}/nobody: No such file or directory\n"
    )
