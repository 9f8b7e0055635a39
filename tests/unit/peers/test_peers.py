"""Peers and their files: what is none of ours is refused by name, and what was kept is told."""

from __future__ import annotations

import json
import os
import socket
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from colobench.cli import receive
from colobench.cli.main import main
from colobench.errors import LocalError, RemoteError
from colobench.node.connection import PeerLost
from colobench.peers import dataset
from colobench.peers.dataset import MANIFEST, read_manifest, write_recordings
from colobench.peers.protected_qemu import ProtectedQEMU
from colobench.peers.qemu import PROGRAM
from colobench.peers.recorded_session import open_session
from colobench.peers.recorder import RecordedStream
from colobench.peers.recordings import PLANS
from colobench.peers.secondary_qemu import SecondaryQEMU
from colobench.peers.session_sender import SessionSender
from colobench.processes import resource_limits
from colobench.wire.replayed_session import ReplayedSession
from places import CLONE

SESSION = CLONE / "datasets/qemu/colo-pc.xz"
RECORDED = RecordedStream((b"stream",), b"", {}, (), "7.2")
ENTRY = json.loads((CLONE / "datasets/qemu" / MANIFEST).read_text())[0]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "app"}',
        "[7]",
        "[{}]",
        "7",
        "not JSON",
        "[" * 100_000,
        json.dumps([ENTRY | {"more": 1}]),
        json.dumps([ENTRY | {"files": [3]}]),
        json.dumps([ENTRY | {"files": [{}]}]),
        json.dumps([ENTRY | {"arguments": [3]}]),
        json.dumps([{name: ENTRY[name] for name in ENTRY if name != "qemu"}]),
    ],
)
def test_manifest_of_another_program_is_refused_by_name(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(LocalError, match=r"manifest\.json: expected a manifest of recordings"):
        read_manifest(tmp_path)
    (tmp_path / SESSION.name).write_bytes(SESSION.read_bytes())
    assert main(["send", str(tmp_path / SESSION.name)]) == 1
    assert "manifest.json: expected a manifest of recordings" in capsys.readouterr().err


def test_manifest_is_replaced_whole_or_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps([ENTRY]))
    before = (tmp_path / MANIFEST).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(dataset, "record", lambda plan: RECORDED)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LocalError, match="cannot be written: No space left on device"):
        write_recordings(tmp_path, PLANS[:1])
    assert (tmp_path / MANIFEST).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == [MANIFEST]


@pytest.mark.parametrize("option", ["-incoming", "--incoming", "-daemonize", "--daemonize"])
def test_option_by_which_a_qemu_would_escape_is_refused(option: str, tmp_path: Path) -> None:
    name = option.lstrip("-")
    with pytest.raises(LocalError, match=f"without -{name}, found one with it"):
        ProtectedQEMU([PROGRAM, option], tmp_path / "guest")
    with pytest.raises(LocalError, match=f"without -{name}, found one with it"):
        SecondaryQEMU([PROGRAM, option])


def test_peer_that_is_no_secondary_is_named() -> None:
    with open_session(SESSION) as (data, places):
        for said, kind in ((b'{"QMP": {}}\r\n', RemoteError), (b"", PeerLost)):
            ours, theirs = socket.socketpair()
            with theirs, SessionSender(ReplayedSession(data, places), ours) as sender:
                sender._connection.send_now = lambda piece: None
                theirs.sendall(said)
                theirs.shutdown(socket.SHUT_WR)
                with pytest.raises(RemoteError, match=r"^migration: ") as error:
                    sender.migrate()
                assert type(error.value) is kind


def test_free_memory_is_not_beyond_the_cgroups_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_limits, "memory_limit", lambda: 4096.0)
    assert resource_limits.free_memory() == 4096
    monkeypatch.setattr(resource_limits, "memory_limit", lambda: float("inf"))
    assert resource_limits.free_memory() > 4096


@pytest.mark.parametrize(
    ("error", "most", "file", "saved", "status", "words"),
    [
        (PeerLost("gone"), None, "guest", 2, 0, "primary has ended; the last committed"),
        (PeerLost("gone"), None, "guest", None, 1, "and guest has no checkpoint of this session"),
        (PeerLost("gone"), None, None, None, 0, "primary has ended; the last committed"),
        (PeerLost("gone"), 5, "guest", 2, 1, "gone; the last committed checkpoint is 2"),
        (None, 2, "guest", None, 1, "all checkpoints have come; the last"),
        (None, 2, "guest", 2, 0, ""),
    ],
)
def test_receiver_that_saved_nothing_has_failed(
    error: RemoteError | None,
    most: int | None,
    file: str | None,
    saved: int | None,
    status: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    receiver: Any = SimpleNamespace(error=error, committed=2, saved=saved)
    assert receive._ended(receiver, Namespace(checkpoints=most, save=file)) == status
    said = capsys.readouterr().err
    assert words in said if words else not said
