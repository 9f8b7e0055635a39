"""UNIX sockets of all processes: only their owner can connect to them, whatever the umask."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from colobench.lab.session.relay import Relay
from colobench.node.address import Address
from colobench.node.heartbeat import DatagramAddress, Heartbeat
from colobench.node.sockets import bind
from colobench.processes.process import NodeProcess
from node_arguments import node_arguments

pytestmark = pytest.mark.usefixtures("nothing_left")

NOBODY = 65534
RAM = node_arguments(ram="1M")


@pytest.fixture
def open_directory(tmp_path: Path) -> Iterator[Path]:
    """Give a directory that everybody may use; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="cb-") as directory:
        os.chmod(directory, 0o777)
        yield Path(directory)


@pytest.fixture(params=[0o000, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def connects_as_nobody(path: Path, kind: int) -> bool:
    """Try to connect in a child of another user."""
    with warnings.catch_warnings():
        # The child does nothing that a thread of ours could be in the middle of.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 2
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX, kind) as client:
                try:
                    client.connect(str(path))
                    status = 0
                except PermissionError:
                    status = 1
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    return status == 0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_socket_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path, kind: int) -> None:
    before = os.umask(0)
    os.umask(before)
    with bind(socket.AF_UNIX, str(tmp_path / "socket"), kind):
        assert mode(tmp_path / "socket") == 0o600
    now = os.umask(before)
    assert now == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_connects_to_no_socket_of_any_process(open_directory: Path) -> None:
    at = f"unix:{open_directory}"
    with contextlib.ExitStack() as stack:
        stack.callback(os.umask, os.umask(0))
        for role, arguments in (
            ("secondary", [*RAM, "--incoming", f"{at}/incoming", "--mirror", f"{at}/mirror"]),
            ("switch", ["--listen", f"{at}/link"]),
            ("arbiter", ["--listen", f"{at}/arbiter"]),
        ):
            process = NodeProcess(role, open_directory, arguments, lambda role, event: None)
            stack.callback(process.end)
            stack.callback(process.ask_to_quit)
            process.connect(120)
        stack.enter_context(Relay(f"{at}/relay", f"{at}/incoming"))
        heartbeat = Heartbeat(DatagramAddress.parse(f"{at}/heartbeat"), "p", "a", "b", lambda: None)
        stack.callback(heartbeat.stop)
        sockets = {path for path in open_directory.iterdir() if path.is_socket()}
        assert {path.name for path in sockets} == {
            *("incoming", "mirror", "link", "arbiter", "relay", "heartbeat"),
            *("secondary.qmp", "switch.qmp", "arbiter.qmp"),
        }
        for path in sockets:
            kind = socket.SOCK_DGRAM if path.name == "heartbeat" else socket.SOCK_STREAM
            assert mode(path) == 0o600, path
            assert not connects_as_nobody(path, kind), path
        assert process.alive()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_would_connect_to_a_socket_that_is_open_to_all(open_directory: Path) -> None:
    listener, _ = Address.parse(f"unix:{open_directory}/socket").listen()
    with listener:
        assert not connects_as_nobody(open_directory / "socket", socket.SOCK_STREAM)
        os.chmod(open_directory / "socket", 0o666)
        assert connects_as_nobody(open_directory / "socket", socket.SOCK_STREAM)
