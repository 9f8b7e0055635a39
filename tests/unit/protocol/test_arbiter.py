"""The arbiter's word, and that two nodes never both serve: every interleaving is tried."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from colobench.errors import LocalError
from colobench.protocol.arbiter import (
    LINE_LIMIT,
    NAME_LIMIT,
    STANDING,
    Arbiter,
    ArbiterAnswer,
    ArbiterFull,
    ArbiterRefusal,
    InvalidLine,
    NodeStanding,
    Standing,
    StandingAction,
    StandingEvent,
    check_name,
    encode_answer,
    encode_line,
    encode_question,
    parse_answer,
    parse_question,
)
from colobench.protocol.colo import (
    UPSTREAM,
    V12,
    ColoState,
)
from colobench.protocol.exploration.model import PRIMARY, SECONDARY
from colobench.protocol.exploration.rules import BROKEN_RULES, Rules, of_variant
from colobench.protocol.exploration.search import Exploration, explore
from colobench.protocol.failover import FailoverState
from colobench.protocol.table import (
    LocalProtocolError,
    mermaid,
)
from colobench.settings.checkpoint import Capture
from share import amount

#: The protocol as it is.
SOUND = {
    "v12, buffer": of_variant(V12, 4),
    "upstream, buffer": of_variant(UPSTREAM, 4),
    "v12, buffer, copied": of_variant(V12, 4, Capture.COPY_THEN_SEND),
    "upstream, buffer, copied": of_variant(UPSTREAM, 3, Capture.COPY_THEN_SEND),
    "v12, buffer, copied on write": of_variant(V12, 3, Capture.COPY_ON_WRITE),
    "v12, buffer, two epochs": of_variant(V12, amount(2, 3), Capture.TWO_EPOCHS),
    "upstream, compare": of_variant(UPSTREAM, 2, compare=True),
    "v12, buffer, passes": of_variant(V12, 2, Capture.GAP_PRECOPY),
}


@pytest.fixture(scope="module", params=SOUND)
def sound(request: pytest.FixtureRequest) -> tuple[Rules, Exploration]:
    rules = SOUND[request.param]
    return rules, explore(rules)


def test_two_nodes_never_both_let_out_what_the_other_does_not_contain(
    sound: tuple[Rules, Exploration],
) -> None:
    exploration = sound[1]
    assert exploration.wrong is None, "\n".join(exploration.way)
    assert len(exploration.worlds) > 10_000


def test_node_serves_alone_only_with_a_grant_that_is_on_disk(
    sound: tuple[Rules, Exploration],
) -> None:
    for world in sound[1].worlds:
        for name, node in ((PRIMARY, world.primary), (SECONDARY, world.secondary)):
            assert not node.served or ((name, True) in world.arbiter.answers)
        holders = {name for name, granted in world.arbiter.answers if granted}
        assert holders <= {world.arbiter.disk}


#: What the explorer must have come by, or it has shown nothing.
SIGHTS = {
    "the secondary serves with an output that is out": lambda world: (
        world.secondary.served and world.primary.out == world.secondary.contains == 2
    ),
    "the secondary serves beside a primary that has no idea of it": lambda world: (
        world.secondary.served and world.primary.up and world.primary.standing is Standing.PAIRED
    ),
    "the primary lets out more while the secondary serves": lambda world: (
        world.secondary.served
        and world.primary.standing is Standing.PAIRED
        and world.primary.out > 0
        and world.primary.colo is ColoState.LOADING
    ),
    "the primary serves": lambda world: world.primary.served and world.secondary.up,
    "a node that served is dead, and the other was refused": lambda world: (
        world.primary.served
        and not world.primary.up
        and not world.secondary.up
        and (SECONDARY, False) in world.arbiter.answers
    ),
    "a takeover waits for a load": lambda world: world.secondary.failover is FailoverState.RELAUNCH,
    "both ask": lambda world: world.primary.standing is world.secondary.standing is Standing.ASKING,
    "a grant is on disk of which nobody was told": lambda world: (
        world.arbiter.disk is not None
        and not world.arbiter.answers
        and not world.arbiter.todo
        and world.arbiter.memory is not None
    ),
    "an arbiter has forgotten what it had not written": lambda world: (
        bool(world.arbiter.questions) and world.arbiter.memory is None
    ),
    "a commit that the primary never hears of": lambda world: (
        world.secondary.checkpoint > world.primary.out
        and world.secondary.colo is ColoState.LOADING
        and world.primary.colo is ColoState.SENT
        and not world.to_primary
    ),
    "the conversation is over, and both wait": lambda world: (
        world.primary.up
        and world.secondary.up
        and world.primary.colo is world.secondary.colo is None
        and world.primary.standing is world.secondary.standing is Standing.PAIRED
    ),
}


@pytest.mark.parametrize("sight", SIGHTS)
def test_explorer_comes_by_what_can_go_wrong(sound: tuple[Rules, Exploration], sight: str) -> None:
    assert any(SIGHTS[sight](world) for world in sound[1].worlds)


def test_in_compare_mode_output_is_out_before_its_checkpoint(
    sound: tuple[Rules, Exploration],
) -> None:
    rules, exploration = sound
    primaries = {world.primary for world in exploration.worlds if world.primary.up}
    assert any(primary.out > primary.checkpoint for primary in primaries) is rules.compare


#: What comes of each broken rule, if it is not that both serve alone.
FAULTS = {
    "output is released before RECEIVED": "without an output that was out",
    "output of after the copy is released with that of before": "without an output that was out",
    "a commit releases the output of both open epochs": "without an output that was out",
    "a takeover flushes pages that came between checkpoints": "on pages of no complete checkpoint",
    "a takeover does not wait for the load": "without an output that was out",
    "the secondary's frames outlive its state": "without an output that was out",
}


@pytest.mark.parametrize("case", BROKEN_RULES)
def test_broken_rule_is_caught(case: str) -> None:
    exploration = explore(BROKEN_RULES[case])
    assert exploration.wrong is not None
    assert FAULTS.get(case, "both served alone") in exploration.wrong
    assert exploration.way
    assert f"after {len(exploration.way)} steps" in str(exploration)


def test_forgetful_arbiter_is_shown_the_shortest_way_to_its_fault() -> None:
    way = explore(Rules(remembers=False)).way
    assert sorted(way) == sorted(
        [
            *("primary: PEER_LOST", "the arbiter is asked by the primary"),
            *("the arbiter writes its grant", "the arbiter answers the primary"),
            *("primary: GRANTED", "the arbiter dies and starts again"),
            *("secondary: PEER_LOST", "the arbiter is asked by the secondary"),
            *("the arbiter writes its grant", "the arbiter answers the secondary"),
            "secondary: GRANTED",
        ]
    )


# The arbiter itself.

NAMES = st.sampled_from(["a", "b", "c"])
PAIRINGS = st.sampled_from(["p", "q", "r", "s"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=NAME_LIMIT)


class AskedAtRandom(RuleBasedStateMachine):
    """An arbiter beside the obvious model of one, restarted now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.arbiter = Arbiter(limit=3)
        self.first: dict[str, str] = {}

    @rule(pairing=PAIRINGS, node=NAMES)
    def ask(self, pairing: str, node: str) -> None:
        if pairing not in self.first and len(self.first) == 3:
            with pytest.raises(ArbiterFull, match="at most 3 pairings"):
                self.arbiter.ask(pairing, node)
            return
        first = pairing not in self.first
        holder = self.first.setdefault(pairing, node)
        assert self.arbiter.ask(pairing, node) == ArbiterAnswer(holder == node, holder, first)

    @rule()
    def restart(self) -> None:
        assert self.arbiter.grants == self.first
        self.arbiter = Arbiter(self.arbiter.grants, limit=3)

    @rule()
    def cannot_be_changed_from_outside(self) -> None:
        self.arbiter.grants.clear()


TestAskedAtRandom = AskedAtRandom.TestCase


@given(st.lists(st.tuples(PAIRINGS, NAMES)))
def test_at_most_one_node_is_granted_a_pairing_and_always_again(
    questions: list[tuple[str, str]],
) -> None:
    arbiter = Arbiter()
    granted = {(pairing, node) for pairing, node in questions if arbiter.ask(pairing, node).granted}
    assert len({pairing for pairing, _ in granted}) == len(granted) == len(arbiter.grants)
    for pairing, node in questions:
        assert arbiter.ask(pairing, node).granted is ((pairing, node) in granted)


# What a node makes of it.


def test_only_a_grant_or_a_human_leads_to_serving_alone() -> None:
    for row in STANDING.values():
        for event, (after, actions) in row.items():
            alone = event in (StandingEvent.GRANTED, StandingEvent.TOLD)
            assert (after is Standing.ALONE) is alone
            assert (StandingAction.TAKE_OVER in actions) is alone
    assert STANDING[Standing.ALONE] == STANDING[Standing.OUT] == {}
    assert "ASKING --> OUT: REFUSED / STOP" in mermaid(STANDING, Standing.PAIRED)


def test_verdict_that_nobody_asked_for_is_no_event() -> None:
    node = NodeStanding()
    with pytest.raises(LocalProtocolError, match="state PAIRED: expected PEER_LOST or TOLD"):
        node.on(StandingEvent.GRANTED)
    assert node.on(StandingEvent.PEER_LOST) == (StandingAction.ASK,)
    assert node.on(StandingEvent.REFUSED) == (StandingAction.STOP,)
    with pytest.raises(LocalProtocolError, match="state OUT: expected nothing"):
        node.on(StandingEvent.GRANTED)


# Its lines.


@given(TEXTS, TEXTS, st.booleans())
def test_lines_survive_their_encoding_and_their_limit(
    pairing: str, node: str, granted: bool
) -> None:
    question = encode_question(pairing, node)
    answer = encode_answer(ArbiterAnswer(granted, node))
    assert parse_question(question) == (pairing, node)
    assert parse_answer(answer) == ArbiterAnswer(granted, node)
    for line in (question, answer):
        assert line.count(b"\n") == 1
        assert len(line) <= LINE_LIMIT


def test_longest_question_is_not_too_long() -> None:
    longest = "\U0001f427" * NAME_LIMIT
    assert len(encode_question(longest, longest)) <= LINE_LIMIT


@given(st.binary(max_size=200))
def test_any_line_is_a_question_or_named_as_none(line: bytes) -> None:
    with pytest.raises(InvalidLine, match="question: expected"):
        parse_question(line)
    with pytest.raises(InvalidLine, match="answer: expected"):
        parse_answer(line)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from(["ask", "node", "granted", "holder", "x"]), JSON))
def test_any_object_is_a_question_or_an_answer_or_named_as_none(members: dict[str, object]) -> None:
    line = json.dumps(members).encode()
    with suppress(InvalidLine):
        pairing, node = parse_question(line)
        assert members == {"ask": pairing, "node": node}
    with suppress(InvalidLine):
        verdict = parse_answer(line)
        assert members == {"granted": verdict.granted, "holder": verdict.holder}


def test_errors_of_the_arbiter_are_raised_as_such() -> None:
    with pytest.raises(ArbiterRefusal, match="arbiter: expected at most 64 clients"):
        parse_answer(encode_line({"error": "expected at most 64 clients"}))


@pytest.mark.parametrize("name", ["", "x" * (NAME_LIMIT + 1), 7, None, "\ud800"])
def test_name_that_is_none_is_refused(name: object) -> None:
    with pytest.raises(LocalError, match="node: expected"):
        check_name("node", name)
