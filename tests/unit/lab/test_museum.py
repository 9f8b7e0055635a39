"""The bug museum: every bug has an exhibit, a page and a way in which it is caught."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from colobench.cli.main import main
from colobench.errors import LocalError
from colobench.lab.torture.bug_hunt import BugHunt, hunt_bug, museum
from colobench.lab.torture.catch import Catch
from colobench.lab.torture.late_page import receive_late_pages
from colobench.lab.torture.museum import MUSEUM, exhibit
from colobench.lab.torture.needless_checkpoints import Needless
from colobench.lab.torture.older_sender import receive_older_stream
from colobench.memory.mprotect import MProtect
from colobench.memory.planted_bugs import UntouchedPages
from colobench.memory.ram import PAGE_SIZE, RAM, PageMemory, lay_out
from colobench.node.flush import flush
from colobench.node.migration.multifd import MultifdChannel, MultifdReceiver
from colobench.node.planted_bugs import forget_zero_pages
from colobench.node.workers import Workers
from colobench.settings.bug import Bug
from colobench.settings.settings import Settings
from places import CLONE


def test_every_bug_has_a_page_which_says_how_it_is_caught() -> None:
    text = (CLONE / "docs" / "bug-museum.md").read_text()
    pages = dict(re.findall(r"^## ([a-z-]+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    for bug in Bug:
        page = " ".join(pages[bug.value].split())
        assert page.startswith("*Promise: "), bug
        assert "Caught by: " in page, bug


def test_the_museum_lists_how_each_bug_is_caught() -> None:
    listed = [line.split(maxsplit=1) for line in museum(caught=True).splitlines()]
    assert listed == [[bug.value, each.catch.value] for bug, each in MUSEUM.items()]
    assert {each.catch for each in MUSEUM.values()} == set(Catch)


@pytest.mark.parametrize("bug", Bug, ids=lambda bug: bug.value)
def test_a_bug_is_refused_outside_of_an_experiment(bug: Bug) -> None:
    with pytest.raises(LocalError, match=f"bug {bug.value}: expected an experiment"):
        Settings().override(bug=bug)


def test_pages_that_come_with_the_flag_of_an_older_sender_are_not_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert receive_older_stream(MultifdChannel) == []
    hunt = hunt_bug(Bug.EMPTY_SYNC.value)
    assert hunt.caught
    assert "pages [9, 10, 11] were sent and are not in the RAM cache" in repr(hunt)
    assert main(["torture", "--bug", "empty-sync", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evidence"] == hunt.evidence


def test_a_page_that_is_sent_when_colo_has_ended_enters_no_cache() -> None:
    assert receive_late_pages(MultifdReceiver) == []
    hunt = hunt_bug(Bug.PAGE_AFTER_CLOSE.value)
    assert hunt.evidence == ["pages [9, 10, 11] came into the RAM cache when COLO had ended"]


def test_what_shows_no_bug_has_not_caught_one() -> None:
    nothing = BugHunt(exhibit(Bug.EMPTY_SYNC.value))
    assert not nothing.caught
    assert repr(nothing) == f"empty-sync: not caught by {Catch.OLDER_SENDER.value}"


def test_needless_checkpoints_are_compared_by_their_rate() -> None:
    def run(answers: int, requested: int) -> Needless:
        return Needless(answers, {"timer": 50, "miscompare": requested})

    assert run(100, 6).exceeds(run(100, 2))
    assert not run(100, 3).exceeds(run(100, 2))
    # A run of twice as many answers may have twice as many.
    assert not run(200, 6).exceeds(run(100, 2))
    assert not run(100, 2).exceeds(run(100, 0))
    assert str(run(100, 2)) == "2 in 100 answers"


BLOCKS = lay_out({"pc.ram": 64 * PAGE_SIZE})


def test_a_flush_that_skips_zero_pages_leaves_old_bytes() -> None:
    """A page that was written, and is all zero now, is in the cache as such."""
    ram, cache = PageMemory("colobench-ram", BLOCKS), PageMemory("colobench-cache", BLOCKS)
    workers = Workers(1)
    try:
        ram.array[: 2 * PAGE_SIZE] = 7
        cache.array[:PAGE_SIZE] = 9
        cache.bitmap[0] = 3
        forget_zero_pages(cache)
        assert flush(ram, cache, workers) == 1
        assert (ram.array[:PAGE_SIZE] == 9).all()
        assert (ram.array[PAGE_SIZE : 2 * PAGE_SIZE] == 7).all()
        cache.bitmap[0] = 3
        assert flush(ram, cache, workers) == 2
        assert not ram.array[PAGE_SIZE : 2 * PAGE_SIZE].any()
    finally:
        workers.close()
        ram.close()
        cache.close()


def test_the_first_write_to_an_untouched_page_is_missed_and_the_second_is_not() -> None:
    ram = RAM("colobench-ram", BLOCKS)
    tracker = UntouchedPages(MProtect(ram))
    try:
        ram.array[PAGE_SIZE] = 1
        tracker.arm()
        seen = []
        for _ in range(2):
            ram.array[PAGE_SIZE] = ram.array[5 * PAGE_SIZE] = 2
            into = np.zeros(1, dtype=np.uint64)
            tracker.collect(into)
            seen.append(int(into[0]))
        assert seen == [1 << 1, 1 << 1 | 1 << 5]
    finally:
        tracker.close()
        ram.close()
