"""The append-only file of a machine alone, with a real client, a real file, and SIGKILL."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

import naive_append_only_file
from durable_guest import MIB, DurableGuest
from places import CLONE
from share import SEED, amount

pytestmark = pytest.mark.system
SIZE = "4M"


@contextlib.contextmanager
def machine(
    directory: Path, policy: str = "always"
) -> Iterator[tuple[redis.Redis, subprocess.Popen]]:
    """Start a machine on the directory's image; it is killed at the end, if it was not before."""
    path = directory / "socket"
    path.unlink(missing_ok=True)
    command = [sys.executable, str(CLONE / "tests/support/machine_alone.py")]
    command += [str(directory / "image"), SIZE, policy, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with redis.Redis(unix_socket_path=str(path), socket_timeout=60) as client:
                while client.info("persistence")["loading"]:
                    pass
                yield client, process
        finally:
            process.kill()


def test_a_machine_started_on_an_old_disk_has_its_keys(tmp_path: Path) -> None:
    with machine(tmp_path) as (client, _):
        assert client.config_get("append*") == {"appendonly": "yes", "appendfsync": "always"}
        client.set("plain", "1")
        client.set("expiring", "2", ex=1000)
        client.incrby("number", 41)
        with client.pipeline() as pipeline:
            pipeline.append("plain", "x").incr("number").set("large", "y" * 100_000).execute()
        client.delete("number2")
    with machine(tmp_path) as (client, _):
        assert client.get("plain") == b"1x"
        assert client.get("number") == b"42"
        assert client.get("large") == b"y" * 100_000
        assert 0 < client.ttl("expiring") <= 1000
        assert client.dbsize() == 4
        assert client.bgrewriteaof()
        while client.info("persistence")["aof_rewrite_in_progress"]:
            pass
        client.set("after", "3")
    with machine(tmp_path, "everysec") as (client, _):
        assert client.dbsize() == 5
        assert client.config_set("appendfsync", "no")
        assert client.config_get("appendfsync") == {"appendfsync": "no"}
        information = client.info("persistence")
        assert information["aof_enabled"] == 1
        assert information["aof_last_write_status"] == "ok"


def write(path: Path, key: str, answered: dict[str, int], limit: int) -> None:
    """Set a key to one number after the other, until the server has gone, or up to a limit."""
    with (
        redis.Redis(unix_socket_path=str(path), socket_timeout=60) as client,
        contextlib.suppress(redis.ConnectionError),
    ):
        for number in range(answered.get(key, 0) + 1, limit):
            client.set(key, number)
            answered[key] = number


def test_no_answered_write_is_lost_by_sigkill_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    answered: dict[str, int] = {}
    for _ in range(amount(2, 100)):
        with machine(tmp_path) as (client, process):
            for key, number in answered.items():
                assert number <= int(client.get(key) or -1) <= number + 1
            if chance.random() < 0.5:
                client.bgrewriteaof()
            begin = max(answered.values(), default=0)
            threads = [
                threading.Thread(
                    target=write, args=(tmp_path / "socket", f"key{n}", answered, begin + 1000)
                )
                for n in range(4)
            ]
            for thread in threads:
                thread.start()
            last = begin + chance.randrange(20, 200)
            while max(answered.values(), default=0) < last:
                threads[0].join(0.01)
            process.kill()
            for thread in threads:
                thread.join()
    with machine(tmp_path) as (client, _):
        for key, number in answered.items():
            assert number <= int(client.get(key) or -1) <= number + 1


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_redis_itself_loads_the_stream_of_a_log(tmp_path: Path) -> None:
    guest = DurableGuest(bytearray(2 * MIB), now=time.time_ns() // 1000)
    for arguments in (
        [b"set", b"a", b"1", b"ex", b"1000"], [b"incrby", b"a", b"5"],
        [b"mset", b"b", b"2", b"c", b"3"],
        [b"multi"], [b"append", b"b", b"xyz"], [b"del", b"c"], [b"exec"], [b"getdel", b"c"],
        [b"setrange", b"d", b"3", b"\0\r\n"], [b"pexpire", b"b", b"500000"], [b"persist", b"b"],
    ):  # fmt: skip
        guest.call(*arguments)
    guest.settle()
    stream = b"".join(payload for _, payload, _ in naive_append_only_file.blocks(guest.disk.image))
    (tmp_path / "appendonly.aof").write_bytes(stream)
    path = tmp_path / "redis"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--dir", str(tmp_path)]
    command += ["--save", "", "--appendonly", "yes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any("ready to accept connections" in line.lower() for line in process.stdout)
            with redis.Redis(unix_socket_path=str(path)) as client:
                found = {
                    key: (client.get(key), max(0, client.pexpiretime(key)))
                    for key in client.scan_iter()
                }
        finally:
            process.kill()
    assert found == guest.contents()
