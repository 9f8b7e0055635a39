"""A real QEMU is protected: RAM is equal at each checkpoint, the file resumes after any kill."""

from __future__ import annotations

import itertools
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from colobench.memory.ram import PageMemory
from colobench.node.connection import PeerLost
from colobench.node.receive.receiver import Receiver
from colobench.node.receive.records import SavedCheckpoint
from colobench.peers.qemu import TIMEOUT, QEMUUnavailable, find_program
from qemu_primary import BLOCK, QEMUPrimary, count_in
from share import LONG, SEED, amount

DELAY_MS = 100
#: Pages that an idle guest writes, and a busy one; nanoseconds of sleep between rounds of it.
IDLE, BUSY = (1, 50_000_000), (1500, 1_000_000)
CASES = [
    pytest.param(machine, xbzrle, pages, sleep, id=f"{machine}-{encoding}-{work}")
    for machine, (xbzrle, encoding), ((pages, sleep), work) in itertools.product(
        ("pc", "q35"), ((False, "plain"), (True, "xbzrle")), ((IDLE, "idle"), (BUSY, "busy"))
    )
]
#: A process that has all kernels, and whose child receives; a line of standard input starts it.
RECEIVER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from colobench.kernels.warmup import load
from colobench.node.parent import die_with
from colobench.node.receive.receiver import Receiver, kernel_modules
from qemu_primary import BLOCK, count_in

counts = {}

def compare(number, memory):
    counts[number] = count_in(memory.block_bytes(memory.block(BLOCK)))

def say(words):
    # One call: whoever is killed has said all of it or nothing.
    os.write(1, json.dumps(words).encode() + b"\\n")

def saved(record):
    say([record.number, counts.get(record.number, 0), record.error])

for _ in load(kernel_modules()):
    pass
say("ready")
for line in sys.stdin:
    address, file = json.loads(line)
    parent = os.getpid()
    child = os.fork()
    if not child:
        die_with(parent)
        receiver = Receiver(address, file, before_loaded=compare, on_saved=saved)
        receiver.start()
        say(os.getpid())
        receiver.wait()
        os._exit(0)
    os.waitpid(child, 0)
    say("gone")
"""


@pytest.fixture(scope="module", autouse=True)
def qemu() -> None:
    try:
        find_program()
    except QEMUUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def receiving() -> Iterator[subprocess.Popen[str]]:
    arguments = [sys.executable, "-c", RECEIVER, str(Path(__file__).parents[1] / "support")]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("machine", "xbzrle", "pages", "sleep"), CASES if LONG else [CASES[1], CASES[6]]
)
def test_each_checkpoint_leaves_ram_equal_to_the_stopped_guest_s(
    machine: str, xbzrle: bool, pages: int, sleep: int
) -> None:
    wanted = amount(5, 100)
    different: list[int] = []
    compared: list[int] = []
    with QEMUPrimary(pages, machine, sleep_ns=sleep) as primary:
        primary.wait_until_it_counts()

        def compare(number: int, memory: PageMemory) -> None:
            compared.append(number)
            block = memory.block(BLOCK)
            assert block is not None
            if not np.array_equal(memory.block_bytes(block), primary.ram):
                different.append(number)

        address = f"unix:{primary.directory / 'colo'}"
        with Receiver(address, checkpoints=wanted, before_loaded=compare) as receiver:
            primary.migrate(address, DELAY_MS, xbzrle)
            receiver.wait()
        assert receiver.error is None
    assert compared == list(range(1, wanted + 1))
    assert different == []
    records = list(receiver.checkpoints)
    assert [record.number for record in records] == list(range(wanted + 1))
    assert records[0].machine.startswith({"pc": "pc-i440fx-", "q35": "pc-q35-"}[machine])
    # The guest has gone on, however little of a core it had.
    assert any(record.pages >= min(pages, 24) for record in records[1:])


def test_file_resumes_at_the_last_committed_checkpoint_whenever_the_primary_is_killed(
    tmp_path: Path,
) -> None:
    chance = random.Random(SEED)
    file = tmp_path / "guest.migration"
    for _ in range(amount(1, 50)):
        wanted, pause = chance.randrange(1, 5), chance.uniform(0, 2 * DELAY_MS / 1000)
        counts: dict[int, int] = {}
        reached = threading.Event()

        def note(number: int, memory: PageMemory, counts: dict[int, int] = counts) -> None:
            block = memory.block(BLOCK)
            assert block is not None
            counts[number] = count_in(memory.block_bytes(block))

        def saved(
            record: SavedCheckpoint, wanted: int = wanted, reached: threading.Event = reached
        ) -> None:
            if record.number >= wanted:
                reached.set()

        with QEMUPrimary(ram_mib=20) as primary:
            primary.wait_until_it_counts()
            address = f"unix:{primary.directory / 'colo'}"
            with Receiver(address, file, before_loaded=note, on_saved=saved) as receiver:
                primary.migrate(address, DELAY_MS)
                assert reached.wait(TIMEOUT)
                threading.Event().wait(pause)
                primary.kill()
                receiver.wait()
            assert isinstance(receiver.error, PeerLost)
            assert receiver.saved == receiver.committed
            assert receiver.committed is not None
            first, later = primary.resumed_count(file)
            assert first == counts[receiver.committed]
            assert later > first
        assert os.listdir(tmp_path) == [file.name]


def test_file_resumes_at_a_saved_checkpoint_whenever_the_receiver_is_killed(
    tmp_path: Path, receiving: subprocess.Popen[str]
) -> None:
    assert receiving.stdin is not None
    assert receiving.stdout is not None
    chance = random.Random(SEED)
    file = tmp_path / "guest.migration"
    said: queue.SimpleQueue[object] = queue.SimpleQueue()
    lines = receiving.stdout

    def read() -> None:
        for line in lines:
            said.put(json.loads(line))

    threading.Thread(target=read, daemon=True).start()
    assert said.get(timeout=4 * TIMEOUT) == "ready"
    for _ in range(amount(1, 50)):
        wanted, pause = chance.randrange(1, 5), chance.uniform(0, 2 * DELAY_MS / 1000)
        with QEMUPrimary(ram_mib=20) as primary:
            primary.wait_until_it_counts()
            address = f"unix:{primary.directory / 'colo'}"
            receiving.stdin.write(json.dumps([address, str(file)]) + "\n")
            receiving.stdin.flush()
            child = said.get(timeout=TIMEOUT)
            assert isinstance(child, int)
            primary.migrate(address, DELAY_MS)
            last = [0, 0, ""]
            while last[0] < wanted:
                last = said.get(timeout=TIMEOUT)
                assert isinstance(last, list)
                assert last[2] == ""
            threading.Event().wait(pause)
            os.kill(child, signal.SIGKILL)
            while (more := said.get(timeout=TIMEOUT)) != "gone":
                assert isinstance(more, list)
                last = more
            primary.kill()
            first, later = primary.resumed_count(file)
            assert first >= last[1]
            assert later > first
