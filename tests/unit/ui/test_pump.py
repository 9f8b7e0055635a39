"""The pump refreshes views in one thread, while there are any, and outlives a broken one."""

from __future__ import annotations

import threading

import pytest

from colobench.ui.base.pump import Pump


class View:
    """Counts its refreshes, and lets a test wait for them."""

    def __init__(self):
        self.refreshed = threading.Semaphore(0)
        self.threads = set()

    def refresh(self):
        self.threads.add(threading.current_thread())
        self.refreshed.release()

    def wait(self, times):
        for _ in range(times):
            assert self.refreshed.acquire(timeout=30)


class Broken(View):
    def refresh(self):
        super().refresh()
        raise RuntimeError("closed")


@pytest.fixture
def pump():
    pump = Pump(0.001)
    yield pump
    pump.stop()


def test_all_views_are_refreshed_again_and_again_in_one_thread(pump):
    views = [View(), View()]
    for view in views:
        pump.add(view)
    for view in views:
        view.wait(3)
    assert len(views[0].threads | views[1].threads) == 1


def test_a_removed_view_is_left_alone(pump):
    view, other = View(), View()
    pump.add(view)
    pump.add(other)
    view.wait(1)
    pump.remove(view)
    while view.refreshed.acquire(blocking=False):
        pass
    other.wait(3)
    assert not view.refreshed.acquire(blocking=False)


def test_a_broken_view_stops_no_other(pump):
    broken, view = Broken(), View()
    pump.add(broken)
    pump.add(view)
    view.wait(3)
    broken.wait(3)


def test_a_view_that_recovers_is_refreshed_on_and_is_told_what_failed(pump):
    class Recovers(View):
        told = ()

        def refresh(self):
            super().refresh()
            if len(self.told) < 2:
                raise RuntimeError("busy")

        def tell_failure(self, error):
            self.told += (error and str(error),)
            raise RuntimeError("it cannot be told")

    view = Recovers()
    pump.add(view)
    view.wait(4)
    assert view.told == ("busy", "busy", None)


def test_a_broken_view_says_nothing_into_somebody_elses_cell(pump, capfd):
    broken = Broken()
    pump.add(broken)
    broken.wait(1)
    pump.stop()
    assert capfd.readouterr() == ("", "")


def test_the_thread_ends_with_the_last_view_and_comes_back_with_the_next(pump):
    view = View()
    for _ in range(2):
        pump.add(view)
        view.wait(1)
        pump.remove(view)
        assert not any(thread.is_alive() for thread in view.threads)
    assert len(view.threads) == 2


def test_a_view_may_remove_itself(pump):
    class Once(View):
        def refresh(self):
            super().refresh()
            pump.remove(self)

    view, other = Once(), View()
    pump.add(view)
    pump.add(other)
    other.wait(3)
    view.wait(1)
    assert not view.refreshed.acquire(blocking=False)
