"""Every setting of a session is checked before a process starts; its error says what is wrong."""

from __future__ import annotations

import inspect
import math
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colobench.errors import LocalError
from colobench.fields.kinds import Flag
from colobench.fields.part import settings_of
from colobench.guest.settings import NondeterminismSettings
from colobench.lab.session.session import Session
from colobench.lab.torture.settings import TortureSettings
from colobench.processes.process import NodeProcess
from colobench.settings.compare import CompareSettings
from colobench.settings.heartbeat import HeartbeatSettings
from colobench.settings.settings import Settings

#: What no setting takes, whatever it is for.
GARBAGE: tuple[Any, ...] = (
    b"bytes", object(), [], {}, [None], [1], (), -1, -1.5, math.nan, math.inf, -math.inf,
    10**400, 10**5000, 1e308, "", "garbage", "\0", "nan", 1j,
)  # fmt: skip
#: What is wrong for some settings, and right for others.
WRONG: dict[str, tuple[Any, ...]] = {
    "ram": (None, True, 0, 1.5, 64.0, "0", "1", "-64M", "64X", "1e3", "9" * 5000, 4095, 4097),
    "guest": (None, True, 0, "KV", "kv "),
    "seed": (None, True, 0.0, "0", 2**64),
    "writes_per_tick": (None, True, 0, 1.0, "4", 10**9),
    "working_set": (None, True, 1.0, "1", 2**40),
    "delay": (True, 0.0, "100", 2**32),
    "transport": (None, True, 0, "carrier+pigeon", "memfd+tcp", "stream+"),
    "encoding": (None, True, 0, "XBZRLE", "zlib"),
    "multifd_channels": (True, False, 1, 1.0, "2"),
    "layout": (None, True, 0, "Separated"),
    "variant": (True, 0, "v13"),
    "tracker": (None, True, 0, "Marked"),
    "stall_timeout": (None, True, 0, 0.0, "10", 1e-9, 1e7),
    "output": (None, True, 0, "Buffer"),
    "compare": (None, True, 0, CompareSettings),
    "hostfwd": (
        None, True, 0, 6379, "6379", "tcp:80", "udp:127.0.0.1:0-:6379", "tcp:127.0.0.1:65536-:6379",
        "tcp:127.0.0.1:0-:0", "tcp:127.0.0.1:0-:65536", "tcp:8.8.8.8:0-:6379",
        "tcp:[::1]:0-:6379", "tcp:::1:0-:6379", "tcp:127.0.0.1:-1-:6379",
        "tcp:nowhere:0-:6379", "tcp:127.0.0.1:0-10.0.2.16:6379", "tcp:127.0.0.1:999999999-:6379",
    ),
    "pcap": (True, 0, "frames.pcap"),
    "pcap_mirror": (True, 0, "frames.pcap"),
    "heartbeat": (True, 0, (50, 500), HeartbeatSettings),
    "nondeterminism": (None, True, 0, NondeterminismSettings),
    "arbiter_state": (True, 0, "grants"),
    "keep_records": (True, 0, 1.0, "10"),
    "bug": (True, 0, "early-release"),
    "quirks": (None, True, 0, "fast", ["fast"]),
}  # fmt: skip
EVERY = {each.name: each for each in settings_of(Settings)}
#: Whatever is not in the table above is a number, or on or off.
NUMBERS, FLAGS = ((None, True, 1.5, "1"), (None, 0, 1, 1.0, "yes", "True"))
WRONG |= {
    name: FLAGS if isinstance(each.kind, Flag) else NUMBERS
    for name, each in EVERY.items()
    if name not in WRONG
}


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was about to be started")

    monkeypatch.setattr(NodeProcess, "__init__", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


def test_sessions_say_all_of_their_settings() -> None:
    parameters = inspect.signature(Session).parameters
    assert parameters.keys() == {
        "settings",
        "strategy",
        *EVERY,
        "compare",
        "heartbeat",
        "nondeterminism",
    }
    words = " ".join((inspect.getdoc(Session) or "").split())
    assert all(
        f"{each.name} {each.help[0].upper()}{each.help[1:]}" in words for each in EVERY.values()
    )


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value_of_any_setting_is_one_error_that_names_it(name: str) -> None:
    for value in (*WRONG[name], *GARBAGE):
        if name in ("hostfwd", "quirks", "disks") and value in ([], ()):
            # None at all.
            continue
        if value is None and name in EVERY and (EVERY[name].derived or EVERY[name].or_none):
            continue
        with pytest.raises(LocalError) as caught:
            Session(**{name: value})
        words = str(caught.value)
        assert name.removesuffix("s") in words, words
        assert "expected" in words
        assert "found" in words
        assert len(words) < 600
        assert "\n" not in words


@pytest.mark.parametrize("name", [each.name for each in settings_of(TortureSettings)])
def test_wrong_setting_of_torture_is_one_error_that_names_it(name: str) -> None:
    if name in EVERY:
        # Those of its pairs are looked at above.
        return
    for value in (None, True, "1x", *GARBAGE):
        with pytest.raises(LocalError, match=f"{name}: "):
            TortureSettings().override(**{name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    session = Session(
        ram=np.int64(8 << 20), seed=np.uint64(3), delay=np.int32(5), stall_timeout=np.float32(2)
    )
    assert session.settings.guest.ram_bytes == 8 << 20
    assert Session(verify=np.bool_(False)).settings.checkpoint.verify is False


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"hostfwd": ["tcp:127.0.0.1:7001-:7", "tcp::7001-:6379"]},
            "each port of the host once, found tcp:127.0.0.1:7001 twice",
        ),
        ({"pcap": "x"}, "pcap: expected a hostfwd"),
        ({"arbiter_state": "x"}, "arbiter_state: expected a heartbeat"),
        ({"hostfwd": "tcp:[::1]:6379-:6379"}, r"found the IPv6 address \[::1\]"),
        ({"hostfwd": "tcp:127.0.0.1:65536-:1"}, "a host port from 0 to 65535, found 65536"),
    ],
)
def test_settings_that_do_not_go_together_are_one_error(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(LocalError, match=words):
        Session(**settings)


def test_any_free_port_may_be_asked_for_more_than_once() -> None:
    Session(hostfwd=["tcp:127.0.0.1:0-:6379", "tcp:127.0.0.1:0-:7"]).check_places()


# -- Places: ports and files ---------------------------------------------------------------------


@pytest.mark.parametrize("listens", [True, False])
def test_port_in_use_is_found_before_anything_starts(listens: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listens:
            taken.listen()
        port = taken.getsockname()[1]
        rule = f"tcp:127.0.0.1:{port}-:6379"
        words = f"hostfwd {rule.replace('-:', '-10.0.2.15:')}: expected tcp:127.0.0.1:{port} to be"
        with pytest.raises(LocalError, match=f"{words} free, found it in use"):
            Session(hostfwd=rule).start()


@pytest.mark.parametrize("setting", ["pcap", "arbiter_state"])
@pytest.mark.parametrize("place", ["a directory that is not there", "a directory", "other data"])
def test_file_that_cannot_be_had_is_found_before_anything_starts(
    setting: str, place: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    if place == "a directory":
        path.mkdir()
    elif place == "other data":
        path.write_text("something else entirely, which is kept")
    else:
        path = tmp_path / "missing" / "file"
    needed = {"hostfwd": "tcp:127.0.0.1:0-:6379", "heartbeat": HeartbeatSettings()}
    with pytest.raises(LocalError, match=f"^{setting}: "):
        Session(**needed | {setting: str(path)}).start()
    if place == "other data":
        assert path.read_text() == "something else entirely, which is kept"


def _may_bind_privileged_ports() -> bool:
    start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return not start.exists() or int(start.read_text()) <= 80


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.skipif(_may_bind_privileged_ports(), reason="everybody may have port 80 here")
def test_port_without_the_privilege_is_one_sentence() -> None:
    # In a child, which nobody has to give its privileges back to.
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            Session(hostfwd="tcp:127.0.0.1:80-:6379").check_places()
        except LocalError as error:
            right = "found it refused: only privileged processes may have ports below 1024"
            status = 0 if right in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
