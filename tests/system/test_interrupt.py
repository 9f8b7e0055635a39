"""An interrupted cell of a real kernel shows one sentence, and what it says of the pair is so."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from colobench.lab.cockpit.overlay import Overlay
from colobench.lab.cockpit.run import CockpitRun
from colobench.lab.interrupt import explain, explain_again, interruptible
from colobench.settings.settings import Settings
from colobench.ui.base.panel import Background
from kernels import Kernel

pytestmark = pytest.mark.usefixtures("nothing_left")
#: What a cell needs: the kernel gets an interrupt's signal as soon as its main thread is inside
#: a function of that name. A signal from here might come when the call has ended.
PRELUDE = """
import contextlib, os, signal, sys, threading, time, traceback
import colobench as cb
from colobench import ui

def interrupt_inside(name):
    def watch():
        while True:
            stack = traceback.walk_stack(sys._current_frames()[threading.main_thread().ident])
            # The frames of a thread that runs change meanwhile, which may be an error once.
            with contextlib.suppress(Exception):
                if any(frame.f_code.co_name == name and "colobench" in frame.f_code.co_filename
                       for frame, _ in stack):
                    break
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=watch, daemon=True).start()
"""
PAIR = 'session = cb.Session(ram="4M", delay=None, keep_stream=True)\nsession.start()\n'


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    try:
        assert made.run(PRELUDE) == ("", [])
        yield made
    finally:
        made.close()


def test_an_interrupted_run_says_so_in_one_sentence_and_the_pair_goes_on(kernel: Kernel) -> None:
    kernel.run(PAIR)
    _, error = kernel.run("interrupt_inside('_wait_for_records'); session.run(10**9)")
    assert error == ["Session.run() was interrupted: its primary and secondary live on."]
    printed, error = kernel.run(
        "before = len(session.records)\n"
        "print(session.checkpoint().number == before + 1)\n"
        "session.close()"
    )
    assert (printed, error) == ("True\n", [])


def test_an_interrupted_block_says_that_its_session_is_closed(kernel: Kernel) -> None:
    _, error = kernel.run(
        "with cb.Session(ram='4M', delay=None) as session:\n"
        "    interrupt_inside('_wait_for_records')\n"
        "    session.run(10**9)",
    )
    assert error == [
        "Session.run() was interrupted: its session is closed, all of its processes have ended."
    ]
    assert kernel.run("print(session.processes())") == ("[]\n", [])


def test_an_interrupted_start_leaves_no_process(kernel: Kernel) -> None:
    _, error = kernel.run(
        "session = cb.Session(ram='4M')\ninterrupt_inside('_greet')\nsession.start()"
    )
    assert error == [
        "Session.start() was interrupted: its session is closed, all of its processes have ended."
    ]
    printed, error = kernel.run(
        "import psutil\nprint(len(session.all_pids()), *map(psutil.pid_exists, session.all_pids()))"
    )
    assert (printed, error) == ("2 False False\n", [])


@pytest.mark.parametrize(
    ("inside", "call", "sentence"),
    [
        (
            "_look",
            "while True: cb.walkthrough(session)",
            "walkthrough() was interrupted: its primary",
        ),
        ("hold", "session.hold('primary', 'ram')", "Session.hold() was interrupted"),
        (
            "cut_checkpoint",
            "cb.cut_checkpoint(session, step=1)",
            "cut_checkpoint() was interrupted: nothing is kept",
        ),
    ],
)
def test_an_interrupted_call_leaves_a_pair_that_works(
    kernel: Kernel, inside: str, call: str, sentence: str
) -> None:
    kernel.run(PAIR + "session.run(2)")
    if inside == "hold":
        # A node that is held never comes to a second point, which is waited for.
        kernel.run("session.hold('primary', 'ram')")
    _, error = kernel.run(f"interrupt_inside({inside!r})\n{call}")
    assert len(error) == 1
    assert error[0].startswith(sentence)
    printed, error = kernel.run("session.go_on('primary'); session.checkpoint(); session.close()")
    assert (printed, error) == ("", [])


@pytest.mark.parametrize(
    ("inside", "call", "words"),
    [
        ("_record", "cb.sweep([{'ram': '4M'}], checkpoints=10**6, into=records)", "sweep()"),
        ("probe", "cb.provoke_miscompares(seconds=1000)", "provoke_miscompares()"),
        ("probe", "cb.measure_latency(seconds=1000)", "measure_latency()"),
        ("run", "cb.compare_trackers(ram='4M', epochs=10**6)", "compare_trackers()"),
    ],
)
def test_an_interrupted_experiment_says_so_in_one_sentence_and_leaves_no_process(
    kernel: Kernel, inside: str, call: str, words: str
) -> None:
    _, error = kernel.run(f"records = cb.Records()\ninterrupt_inside({inside!r})\n{call}")
    assert len(error) == 1
    assert error[0].startswith(f"{words} was interrupted: its ") or "the pair of the" in error[0]


def test_an_interrupted_wait_of_a_panel_can_be_repeated_and_waits(kernel: Kernel) -> None:
    kernel.run(
        "release = threading.Event()\n"
        + PAIR
        + "panel = ui.NextCheckpoint(session)\n"
        + "panel.background.do('thinking', release.wait)\n"
    )
    for _ in range(2):
        _, error = kernel.run("interrupt_inside('wait'); panel.wait()")
        assert error == [
            "Panel.wait() was interrupted: 'thinking' goes on, and can be waited for again."
        ]
    printed, error = kernel.run(
        "print(panel.background.doing)\n"
        "threading.Timer(0.2, release.set).start()\n"
        "panel.wait()\n"
        "print(panel.background.doing)\n"
        "panel.next(); panel.wait(); print(len(session.records))\n"
        "panel.close()"
    )
    assert (printed, error) == ("thinking\nNone\n1\n", [])


def test_an_interrupted_wait_of_a_cockpit_says_that_its_runs_go_on(kernel: Kernel) -> None:
    kernel.run(
        'panel = ui.Cockpit(ram="8M")\npanel.time.value = "10 minutes"\n'
        "panel.start(); panel.background.wait()"
    )
    _, error = kernel.run("interrupt_inside('wait'); panel.wait()")
    assert error == ["Cockpit.wait() was interrupted: its runs go on, and can be waited for again."]
    count = "print(len(panel.overlay.active()))"
    # An interrupted wait does not keep a later one from waiting.
    assert kernel.run(f"{count}; panel.close(); {count}") == ("1\n0\n", [])


def interrupt(wait: Callable[[], None]) -> None:
    """Wait, and be interrupted; on a busy machine before it waits."""
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        wait()
    finally:
        timer.join()


def test_an_interrupted_wait_for_runs_does_not_end_a_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, overlay = threading.Event(), Overlay()
    monkeypatch.setattr(CockpitRun, "conduct", lambda *_: release.wait())
    overlay.start(Settings())
    with pytest.raises(KeyboardInterrupt):
        interrupt(overlay.wait)
    later = threading.Timer(0.1, release.set)
    later.start()
    overlay.wait()
    assert release.is_set()
    later.join()


def test_an_interrupted_wait_does_not_end_before_the_work_does() -> None:
    release, interrupted = threading.Event(), []
    background = Background(lambda: None)
    background.do("work", release.wait)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            interrupt(background.wait)
        interrupted.append(background.doing)
    assert interrupted == ["work"] * 3
    release.set()
    background.wait()
    assert background.doing is None


def test_work_that_could_not_begin_is_not_waited_for() -> None:
    def changed() -> None:
        raise KeyboardInterrupt

    background = Background(changed)
    with pytest.raises(KeyboardInterrupt):
        background.do("work", lambda: None)
    background.wait()
    assert background.doing is None


def test_whoever_ends_more_on_the_way_out_has_the_last_word() -> None:
    @interruptible("the inner is left")
    def inner() -> None:
        raise KeyboardInterrupt

    @interruptible(lambda value: f"{value} is left")
    def outer(value: int) -> None:
        inner()

    with pytest.raises(KeyboardInterrupt) as caught:
        outer(7)
    [said] = caught.value.args
    assert said.endswith("outer() was interrupted: 7 is left.")
    explain_again(caught.value, "nothing is left")
    assert caught.value.args[0].endswith("outer() was interrupted: nothing is left.")
    plain = KeyboardInterrupt()
    explain_again(plain, "nothing is left")
    assert plain.args == ()
    explain(plain, "it", "all is left")
    assert plain._render_traceback_() == ["it was interrupted: all is left."]  # type: ignore[attr-defined]
