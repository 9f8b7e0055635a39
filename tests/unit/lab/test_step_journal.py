"""The journal of steps: what was seen is seen again, and the end is the live one."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from colobench.lab.session.message_gate import WaitingMessage
from colobench.lab.session.message_splitter import MessagePart
from colobench.lab.studies.step_journal import Maps, StepJournal, StepMoment


def moment(happened, *names):
    waiting = tuple(WaitingMessage("P→S", MessagePart(name, b"", ())) for name in names)
    return StepMoment(happened, {}, waiting)


def test_before_the_first_moment_there_is_nothing_to_look_at():
    journal = StepJournal()
    assert journal.present is None
    assert journal.is_live
    assert not journal.back()
    assert not journal.forward()


def test_back_and_forward_show_the_same_moments_again():
    journal = StepJournal()
    for name in "abc":
        journal.add(moment(name))
    assert journal.is_live
    assert [journal.back(), journal.back(), journal.back()] == [True, True, False]
    assert journal.present.happened == "a"
    assert not journal.is_live
    assert [journal.forward(), journal.forward(), journal.forward()] == [True, True, False]
    assert journal.present.happened == "c"
    assert journal.is_live


def test_a_new_moment_is_looked_at_wherever_one_was():
    journal = StepJournal()
    journal.add(moment("a"))
    journal.add(moment("b"))
    journal.back()
    journal.add(moment("c"))
    assert journal.present.happened == "c"
    assert [each.happened for each in journal] == ["a", "b", "c"]


def test_messages_are_given_once_each_in_their_order():
    journal = StepJournal()
    journal.add(moment("", "one", "two"))
    journal.add(moment("", "two", "three"))
    assert journal.messages() == [("P→S", "one"), ("P→S", "two"), ("P→S", "three")]


def test_pages_of_a_set_are_counted_and_an_unknown_set_is_no_empty_one():
    assert Maps.count(np.array([3, 1 << 63], dtype=np.uint64)) == 3
    assert Maps.count(None) is None


class JournalAgainstAList(RuleBasedStateMachine):
    """The journal does what a list with an index does."""

    def __init__(self):
        super().__init__()
        self.journal = StepJournal(limit=4)
        self.all, self.at = [], -1

    @rule(name=strategies.text(max_size=2))
    def add(self, name):
        self.all.append(moment(name))
        self.at = len(self.all) - 1
        self.journal.add(self.all[-1])

    @rule()
    def back(self):
        possible = self.at > max(0, len(self.all) - 4)
        assert self.journal.back() == possible
        self.at -= possible

    @rule()
    def forward(self):
        possible = self.at < len(self.all) - 1
        assert self.journal.forward() == possible
        self.at += possible

    @rule()
    def to_end(self):
        self.journal.to_end()
        self.at = len(self.all) - 1

    @invariant()
    def same(self):
        assert list(self.journal) == self.all[-4:]
        assert self.journal.total == len(self.all)
        assert self.journal.number == self.at + 1
        assert self.journal.is_live == (self.at == len(self.all) - 1)
        assert self.journal.present is (self.all[self.at] if self.all else None)


TestJournalAgainstAList = JournalAgainstAList.TestCase
