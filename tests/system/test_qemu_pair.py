"""Two real QEMUs in COLO: as many pages as were asked for, typed errors, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.errors import LocalError, RemoteError
from colobench.memory import kvm
from colobench.peers import firmware
from colobench.peers import qemu_pair as qemu
from colobench.peers.qemu_pair import QEMUPair, QEMUPairFailed, QEMUUnavailable
from kvm_guests import needs_kvm

PAGES = 1000
Owner: TypeAlias = tuple[subprocess.Popen[str], list[psutil.Process]]
#: A program that starts a pair, says so, and waits for its end.
OWNER = """
import psutil, signal
from colobench.peers.qemu_pair import QEMUPair, QEMUUnavailable
try:
    with QEMUPair(1000, ram_mib=64):
        print(*(child.pid for child in psutil.Process().children()), flush=True)
        signal.pause()
except QEMUUnavailable as error:
    print(error)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Fail a test that leaves a process or a file behind."""
    before = set(psutil.Process().children(recursive=True))
    directory = Path(tempfile.mkdtemp(prefix="cb-"))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    monkeypatch.setenv("TMPDIR", str(directory))
    yield directory
    left = os.listdir(directory)
    shutil.rmtree(directory)
    assert set(psutil.Process().children(recursive=True)) <= before
    assert left == []


@pytest.fixture
def pair(nothing_left: Path) -> Iterator[QEMUPair]:
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(QEMUPair(PAGES, ram_mib=64))
        except QEMUUnavailable as error:
            pytest.skip(str(error))


@pytest.fixture
def owner(nothing_left: Path) -> Iterator[Owner]:
    """Start a pair in a process of its own."""
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as own:
        try:
            assert own.stdout is not None
            words = own.stdout.readline().split()
            if not all(word.isdigit() for word in words):
                pytest.skip(" ".join(words))
            assert len(words) == 2
            yield own, [psutil.Process(int(word)) for word in words]
        finally:
            own.kill()


def test_every_checkpoint_of_a_real_pair_has_the_pages_that_were_asked_for(pair: QEMUPair) -> None:
    times = pair.stop_times(checkpoints=6)
    assert len(times) == 6
    assert min(times) > 0
    for pages in (pair.pages_per_checkpoint(), pair.flushed_pages_per_checkpoint()):
        assert len(pages) == 6
        assert all(PAGES <= count <= PAGES * 1.05 for count in pages)


def test_secondary_has_the_words_that_the_primary_wrote(pair: QEMUPair, tmp_path: Path) -> None:
    pair.stop_times(checkpoints=1)
    words = {}
    for role, node in pair._nodes.items():
        node.execute("stop")
        file = tmp_path / role
        size = (PAGES + 1) * firmware.PAGE_SIZE
        node.execute("pmemsave", val=firmware.FIRST_BYTE, size=size, filename=str(file))
        memory = file.read_bytes()
        words[role] = [
            int.from_bytes(memory[at : at + 4], "little")
            for at in range(0, size, firmware.PAGE_SIZE)
        ]
    for *written, beyond in words.values():
        assert min(written) > 0
        assert max(written) - min(written) <= 1
        assert beyond == 0


def test_times_go_on_after_a_break(pair: QEMUPair) -> None:
    first = pair.stop_times(checkpoints=2)
    begun = pair._pauses
    second = pair.stop_times(checkpoints=3)
    assert (len(first), len(second)) == (2, 3)
    assert begun[-1][1] < pair._pauses[0][0]
    assert len(pair.pages_per_checkpoint()) == 3


@pytest.mark.parametrize("role", ["primary", "secondary"])
def test_a_dead_qemu_is_an_error_with_the_last_words_of_both(pair: QEMUPair, role: str) -> None:
    pair._nodes[role].kill()
    with pytest.raises(QEMUPairFailed, match=f"the {role} ended with -9") as caught:
        pair.stop_times()
    assert isinstance(caught.value, RemoteError)
    assert "the primary" in str(caught.value)
    assert "the secondary" in str(caught.value)
    assert "it said: " in str(caught.value)


def test_a_pair_starts_once(pair: QEMUPair) -> None:
    with pytest.raises(LocalError, match="not started"):
        pair.__enter__()


def test_an_interrupt_leaves_nothing(owner: Owner) -> None:
    process, qemus = owner
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("interrupted\n", None)
    assert not any(node.is_running() for node in qemus)


def test_an_interrupt_waits_for_the_end_of_a_step() -> None:
    handler = signal.getsignal(signal.SIGINT)
    reached = []

    def step() -> None:
        with qemu.uninterrupted():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_qemus_die_with_a_killed_owner(owner: Owner, nothing_left: Path) -> None:
    process, qemus = owner
    process.kill()
    process.wait(60)
    _, alive = psutil.wait_procs(qemus, timeout=60)
    assert alive == []
    # Nobody was there to remove it.
    for directory in nothing_left.iterdir():
        shutil.rmtree(directory)


def test_a_missing_program_is_named(nothing_left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(QEMUUnavailable, match=r"^no qemu-system-x86_64 on PATH$") as caught:
        QEMUPair(PAGES).__enter__()
    assert isinstance(caught.value, LocalError)


def test_a_kvm_that_makes_no_machine_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / qemu.PROGRAM
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kvm, "DEVICE", os.devnull)
    kvm.require_kvm.cache_clear()
    try:
        with pytest.raises(QEMUUnavailable, match=r"^no KVM: KVM_GET_API_VERSION: Inappropriate"):
            QEMUPair(PAGES).__enter__()
    finally:
        kvm.require_kvm.cache_clear()


@needs_kvm
def test_a_qemu_that_does_not_start_is_quoted(
    nothing_left: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / qemu.PROGRAM
    program.write_text("#!/bin/sh\necho 'info' >&2\necho 'KVM: Permission denied' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(QEMUUnavailable, match=r"KVM: Permission denied$"):
        QEMUPair(PAGES).__enter__()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"pages": 0}, "pages: expected 1 to 126976 in 512 MiB of RAM, found 0"),
        ({"pages": 126_977}, "found 126977"),
        ({"pages": 1, "ram_mib": 1 << 30}, "RAM: expected at most a third"),
        ({"pages": 1, "delay_ms": -1}, "delay: expected 0 to 4294967295 ms, found -1"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, int], expected: str) -> None:
    with pytest.raises(LocalError, match=expected):
        QEMUPair(**arguments)


@given(st.integers(1, 200_000))
def test_image_has_one_store_for_each_page(pages: int) -> None:
    image = firmware.guest_image(pages)
    assert len(image) % 65536 == 0
    begin = image.index(b"\x40\x89\x87") + 1
    opcodes = np.frombuffer(image, "<u2", 3 * pages, begin).reshape(pages, 3)
    assert (opcodes[:, 0] == 0x8789).all()
    offsets = opcodes[:, 1] + (opcodes[:, 2].astype(np.int64) << 16)
    assert (offsets == np.arange(pages) * firmware.PAGE_SIZE).all()
    assert image[begin + 6 * pages :].startswith(b"\xc7\x83\x80\x03")


@given(st.lists(st.tuples(st.integers(100, 110), st.integers(10_000, 1_500_000)), min_size=1))
def test_pages_of_each_sync_are_told_from_their_sums(syncs: list[tuple[int, int]]) -> None:
    """As migration_bitmap_sync of QEMU's migration/ram.c adds them up."""
    now = 10**15
    begun = now + syncs[0][1]
    total = 0
    log = []
    for pages, passed in syncs:
        now += passed
        total += pages
        log.append((now, total))
        if now > begun + 1_000_000:
            begun, total = now, 0
    assert qemu._dirtied(log) == [
        (at, pages) for (at, _), (pages, _) in zip(log, syncs, strict=True)
    ]
