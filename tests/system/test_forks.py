"""A child that was forked after a session can have sessions of its own, and harms nobody's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from colobench.lab.session.session import Session
from pairs import compile_before

pytestmark = pytest.mark.usefixtures("nothing_left")

BEGIN = """
import gc, multiprocessing, os, sys, threading
from colobench.lab.session.session import Session

def small():
    return Session(ram="1M", delay=None, guest="idle")

def take_two(number=0):
    with small() as session:
        return len(session.run(2))

def status_of(child):
    "Fork, run the function in the child, and give the child's exit status."
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            child()
            status = 0
        except BaseException as error:
            print(error)
        sys.stdout.flush()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    compile_before(Session(ram="1M", delay=None, guest="idle"))


def python(script: str, timeout: float = 120) -> str:
    """Run a script in a Python of its own, of which no fork is left; give what it printed."""
    with subprocess.Popen(
        # Since 3.12 Python warns whoever forks with threads, and rightly so.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGIN + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, complaints = process.communicate(timeout=timeout)
        finally:
            # Its own group, which Popen has just made; a fork that hangs is in it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, complaints) == (0, "")
    return printed


def test_child_forked_after_a_session_has_a_session_of_its_own() -> None:
    script = """
assert take_two() == 2
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(take_two, range(2)))
"""
    assert python(script) == "[2, 2]\n"


def test_child_forked_within_a_session_neither_uses_nor_ends_it() -> None:
    script = """
with small() as session:
    session.run(1)
    directory = session.nodes["primary"].qmp_path.parent

    def child():
        for refused in (session.checkpoint, session.kill, session.nodes["primary"].kill):
            try:
                refused()
            except Exception as error:
                print(type(error).__name__, error)
            else:
                raise AssertionError("not refused")
        assert len(session.records) == 1
        assert take_two() == 2
        session.close()

    print(status_of(child))

    def dropping_child():
        global session
        session = None
        gc.collect()

    print(status_of(dropping_child))
    assert directory.is_dir()
    print(len(session.run(1)))
"""
    *refused, first, second, records = python(script).splitlines()
    assert len(refused) == 3
    for line in refused:
        assert line.startswith("LocalError ")
        assert "expected process " in line
        assert "forked from that one" in line
    assert (first, second, records) == ("0", "0", "1")


def test_child_that_ends_in_order_leaves_its_parents_session_alone() -> None:
    script = """
session = small()
session.start()
session.run(1)
sys.stdout.flush()
if not os.fork():
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert session.nodes["primary"].qmp_path.parent.is_dir()
print(len(session.run(1)))
session.close()
"""
    assert python(script) == "1\n"


def test_lock_that_another_thread_holds_at_the_fork_is_free_in_the_child() -> None:
    script = """
from colobench.memory import mprotect
from colobench.memory.tracker import tracker_class

held, release = threading.Event(), threading.Event()

def hold():
    with mprotect._faults._lock:
        held.set()
        release.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
print(status_of(lambda: tracker_class("mprotect").try_effect()))
release.set()
thread.join()
"""
    if os.uname().machine not in ("x86_64", "aarch64", "riscv64"):
        pytest.skip("the tracker mprotect is for other machines")
    assert python(script) == "0\n"
