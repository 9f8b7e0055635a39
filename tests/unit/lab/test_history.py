"""Histories that a store could have given are accepted, others are not, and it is said why."""

from __future__ import annotations

import dataclasses
import io
import itertools
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.lab.checker.counterexample import may_leave_out, since, until
from colobench.lab.checker.linearizability import (
    USUAL_EFFORT,
    Effort,
    Search,
    Undecided,
    relevant,
)
from colobench.lab.checker.store_model import (
    NOT_AN_INTEGER,
    OVERFLOW,
    REFUSED,
    Unknown,
    adds,
    changes_nothing,
    execute,
    follow,
    outcome,
)
from colobench.lab.checker.verdict import check_linearizability
from colobench.lab.clients.history import ConnectionLost, History, Operation, operations_of
from colobench.lab.clients.resp import ErrorReply
from share import amount

OOM = ErrorReply("OOM command not allowed when used memory > 'maxmemory'.")


def op(client, command, *arguments, at, until, answer=None, key=b"k"):
    return Operation(client, key, command, arguments, at, until, answer)


def is_linearizable(operations, *, start=None, effort=USUAL_EFFORT):
    """Say whether one key's operations can be put in an order that explains every answer."""
    return Search(list(relevant(operations)), start=start, effort=effort).run()


def values(count):
    return st.sampled_from([b"%c" % (97 + number) for number in range(count)])


def commands_with(some_values):
    """Give strategies of commands, from which a test takes all or the like of one key."""
    return {
        "register": st.one_of(
            st.sampled_from([("GET",), ("DEL",), ("EXISTS",), ("STRLEN",)]),
            some_values.map(lambda value: ("SET", value)),
            some_values.flatmap(
                lambda value: st.sampled_from([("SET", value, b"NX"), ("SET", value, b"XX")])
            ),
        ),
        "counter": st.sampled_from(
            [("INCR",), ("GET",), ("DECR",), ("INCRBY", b"3"), ("INCRBY", b"0"), ("DEL",)]
        ),
        "log": st.sampled_from(
            [("APPEND", b"x"), ("APPEND", b"y"), ("APPEND", b""), ("GET",), ("STRLEN",), ("DEL",)]
        ),
    }


def mixed(some_values):
    return st.one_of(*commands_with(some_values).values())


@st.composite
def executions(draw, commands, size, unanswered=True):
    """Execute commands one after the other; clients see a time before and after each."""
    done = draw(st.lists(commands, min_size=1, max_size=size))
    early = draw(st.lists(st.integers(0, 35), min_size=len(done), max_size=len(done)))
    late = draw(st.lists(st.integers(0, 35), min_size=len(done), max_size=len(done)))
    value, operations = None, []
    for number, (command, *arguments) in enumerate(done):
        now = 100 + 10 * number
        call, returned = now - early[number], now + late[number]
        asked = Operation(number, b"k", command, tuple(arguments), call, None, None)
        fate = draw(st.sampled_from("aaaauos")) if unanswered else "a"
        if fate == "s":
            operations.append(asked)
            continue
        if fate == "o":
            operations.append(dataclasses.replace(asked, returned=returned, answer=OOM))
            continue
        value, answer = execute(asked, value)
        if fate == "u":
            operations.append(asked)
        else:
            operations.append(dataclasses.replace(asked, returned=returned, answer=answer))
    return operations


def any_execution(size, unanswered=True):
    few = values(3)
    kinds = [*commands_with(few).values(), mixed(few)]
    return st.sampled_from(kinds).flatmap(lambda one: executions(one, size, unanswered))


answers = st.sampled_from(
    [None, "OK", 0, 1, 2, 3, b"a", b"b", b"1", b"xy", NOT_AN_INTEGER, OVERFLOW]
)


@st.composite
def spoilt(draw, size):
    """Take an execution, and change some of its answers."""
    operations = draw(any_execution(size))
    return [
        dataclasses.replace(each, answer=draw(answers))
        if each.returned is not None and draw(st.integers(0, 5)) == 0
        else each
        for each in operations
    ]


def possible(operations, start=None):
    """Try all orders of all operations, with and without those that were not answered."""
    operations = list(relevant(operations))
    firm = [each for each in operations if each.returned is not None]
    open_ended = [each for each in operations if each.returned is None]
    return any(
        in_time(order) and explains(order, start)
        for count in range(len(open_ended) + 1)
        for done in itertools.combinations(open_ended, count)
        for order in itertools.permutations([*firm, *done])
    )


def in_time(order):
    return all(
        later.returned is None or not later.returned < earlier.call
        for earlier, later in itertools.combinations(order, 2)
    )


def explains(order, state):
    for each in order:
        state = follow(each, state) if each.returned is not None else outcome(each, state)
        if state is REFUSED:
            return False
    return True


@settings(max_examples=amount(50, 500))
@given(any_execution(30))
def test_what_a_store_did_one_by_one_is_linearizable(operations):
    assert check_linearizability(History(operations)).linearizable


@given(st.lists(any_execution(12), min_size=2, max_size=4))
def test_keys_are_judged_by_themselves(of_keys):
    operations = [
        dataclasses.replace(each, key=b"%d" % number)
        for number, some in enumerate(of_keys)
        for each in some
    ]
    verdict = check_linearizability(History(operations))
    assert verdict.linearizable
    assert verdict.operations == sum(len(list(relevant(each))) for each in of_keys)


@settings(max_examples=amount(50, 400))
@given(spoilt(5))
def test_the_search_finds_an_order_exactly_if_there_is_one(operations):
    assert is_linearizable(operations) is possible(operations)


@pytest.mark.parametrize(("command", "argument"), [("INCRBY", b"0"), ("APPEND", b"")])
def test_what_adds_nothing_may_still_make_a_key(command, argument):
    operations = [
        op(0, command, argument, at=0, until=2, answer=0),
        op(1, "DEL", at=1, until=4, answer=1),
        op(2, command, argument, at=3, until=5, answer=0),
        op(3, "DEL", at=6, until=8, answer=1),
        op(4, "DEL", at=7, until=9, answer=0),
    ]
    assert possible(operations)
    assert is_linearizable(operations)


@settings(max_examples=amount(50, 300))
@given(spoilt(5))
def test_the_search_from_an_unknown_value_finds_an_order_exactly_if_there_is_one(operations):
    assert is_linearizable(operations, start=Unknown()) is possible(operations, Unknown())


@settings(max_examples=amount(50, 300))
@given(any_execution(6, unanswered=False), st.sampled_from([None, b"a", b"7", b"xy"]))
def test_an_unknown_value_stands_for_every_value(operations, start):
    value = start
    for number, each in enumerate(operations):
        value, answer = execute(each, value)
        operations[number] = dataclasses.replace(each, answer=answer)
    assert is_linearizable(operations, start=start)
    assert is_linearizable(operations, start=Unknown())


@settings(max_examples=amount(50, 300))
@given(any_execution(7), st.integers(60, 250), st.integers(60, 250), st.data())
def test_leaving_out_operations_makes_nothing_impossible(operations, start, end, data):
    left = until(relevant(operations), end)
    assert is_linearizable(left)
    left = since(left, start)
    assert is_linearizable(left, start=Unknown())
    dropped = [each for each in left if data.draw(st.booleans())]
    kept = [each for each in left if each not in dropped]
    assume(may_leave_out(kept, dropped))
    assert is_linearizable(kept, start=Unknown())


@settings(max_examples=amount(50, 300))
@given(any_execution(7), st.data())
def test_leaving_out_operations_after_a_known_start_makes_nothing_impossible(operations, data):
    left = list(relevant(operations))
    dropped = [each for each in left if data.draw(st.booleans())]
    kept = [each for each in left if each not in dropped]
    assume(may_leave_out(kept, dropped))
    assert is_linearizable(kept)


@settings(max_examples=amount(50, 400))
@given(spoilt(8))
def test_no_single_operation_of_a_counterexample_can_be_missed(operations):
    verdict = check_linearizability(History(operations))
    assert (verdict.counterexample is None) is verdict.linearizable
    found = verdict.counterexample
    assume(found is not None and len(found.operations) < 8)
    some = found.operations
    assert not possible(some, found.start)
    for number, each in enumerate(some):
        others = [*some[:number], *some[number + 1 :]]
        counted = each.returned is not None and adds(each)
        stays = counted or not may_leave_out(others, [each])
        assert stays or possible(others, found.start)
    assert found.sentence
    assert len(found.rows()) == len(some)


def test_a_write_of_the_value_that_is_there_may_come_later():
    writes = [
        op(0, "SET", b"b", at=0, until=1, answer="OK"),
        op(1, "DEL", at=10, until=20, answer=1),
        op(2, "SET", b"b", at=15, until=25, answer="OK"),
    ]
    assert is_linearizable([*writes, op(3, "GET", at=30, until=40, answer=b"b")])
    assert is_linearizable([*writes, op(3, "GET", at=30, until=40)])


def rejected(*operations):
    verdict = check_linearizability(History(list(operations)))
    assert not verdict.linearizable
    assert verdict.key == b"k"
    assert verdict.counterexample is not None
    return verdict.counterexample


def test_a_stale_read_is_named_with_the_write_that_it_missed():
    found = rejected(
        op(2, "SET", b"7", at=0, until=100, answer="OK"),
        op(1, "SET", b"9", at=1_000_000_000, until=1_100_000_000, answer="OK"),
        op(4, "GET", at=1_110_000_000, until=1_120_000_000, answer=b"9"),
        op(3, "GET", at=1_150_000_000, until=1_204_000_000, answer=b"7"),
    )
    assert found.kind == "stale read"
    assert found.sentence == (
        "client 3's GET k found 7 at 1.204000 s, after client 4's GET k was answered 9 at "
        "1.120000 s"
    )
    assert len(found.operations) == 2


def test_an_answered_write_that_nobody_sees_is_lost():
    found = rejected(
        op(2, "SET", b"7", at=0, until=10, answer="OK"),
        op(1, "SET", b"9", at=20, until=30, answer="OK"),
        op(3, "GET", at=40, until=50, answer=b"7"),
        op(3, "GET", at=60, until=70, answer=b"7"),
    )
    assert found.kind == "lost write"
    assert [each.command for each in found.operations] == ["SET", "GET"]


def test_a_key_that_is_gone_is_a_lost_write():
    found = rejected(op(1, "SET", b"9", at=0, until=10, answer="OK"), op(3, "GET", at=20, until=30))
    assert found.kind == "lost write"
    assert "found nothing" in found.sentence


def test_a_write_that_others_waited_for_longer_than_its_read_is_in_time():
    assert check_linearizability(
        History(
            [
                op(1, "SET", b"9", at=0, until=100, answer="OK"),
                op(2, "GET", at=10, until=20, answer=b"9"),
                op(3, "GET", at=5, until=30),
            ]
        )
    ).linearizable


def test_what_was_seen_cannot_be_unseen():
    found = rejected(
        op(1, "SET", b"9", at=0, until=100, answer="OK"),
        op(2, "GET", at=10, until=20, answer=b"9"),
        op(3, "GET", at=30, until=40),
    )
    assert found.kind == "stale read"


@pytest.mark.parametrize("later", [None, 100])
def test_a_value_that_nobody_wrote_by_then_is_named(later):
    operations = [op(1, "GET", at=0, until=10, answer=b"x")]
    if later:
        operations.append(op(2, "SET", b"x", at=later, until=later + 1, answer="OK"))
    assert rejected(*operations).kind == "value never written"


def test_an_increment_that_counts_double_was_executed_twice():
    found = rejected(
        op(1, "INCR", at=0, until=10, answer=1),
        op(2, "INCR", at=20, until=30, answer=3),
        op(1, "INCR", at=40, until=50, answer=4),
    )
    assert found.kind == "executed twice"
    assert "1 more than" in found.sentence
    assert len(found.operations) == 2


def test_an_unanswered_increment_explains_a_gap_once():
    unanswered = op(3, "INCR", at=5, until=None)
    first = op(1, "INCR", at=0, until=10, answer=1)
    assert is_linearizable([unanswered, first, op(2, "INCR", at=20, until=30, answer=3)])
    assert not is_linearizable([unanswered, first, op(2, "INCR", at=20, until=30, answer=4)])


def test_an_increment_that_is_counted_again_was_lost():
    found = rejected(
        op(1, "INCR", at=0, until=10, answer=1), op(2, "INCR", at=20, until=30, answer=1)
    )
    assert found.kind == "lost write"


def test_appends_that_change_their_order_are_named():
    found = rejected(
        op(1, "APPEND", b"<a>", at=0, until=50, answer=3),
        op(2, "APPEND", b"<b>", at=0, until=50, answer=6),
        op(3, "GET", at=60, until=70, answer=b"<a><b>"),
        op(4, "GET", at=80, until=90, answer=b"<b><a>"),
    )
    assert found.kind == "reordered"


def test_an_append_that_is_there_twice_was_executed_twice():
    found = rejected(
        op(1, "APPEND", b"<a>", at=0, until=10, answer=3),
        op(3, "GET", at=20, until=30, answer=b"<a><a>"),
    )
    assert found.kind == "executed twice"


def test_an_append_that_is_not_there_was_lost():
    found = rejected(
        op(1, "APPEND", b"<a>", at=0, until=10, answer=3),
        op(2, "APPEND", b"<b>", at=20, until=30, answer=6),
        op(3, "GET", at=40, until=50, answer=b"<a>"),
    )
    assert found.kind == "lost write"
    assert "<b>" in found.sentence


def test_errors_are_answers():
    wrong = op(2, "INCR", at=20, until=30, answer=NOT_AN_INTEGER)
    assert is_linearizable([op(1, "SET", b"a", at=0, until=10, answer="OK"), wrong])
    assert not is_linearizable([op(1, "SET", b"1", at=0, until=10, answer="OK"), wrong])


def test_what_the_store_had_no_room_for_was_not_executed():
    full = op(1, "SET", b"a", at=0, until=10, answer=OOM)
    assert is_linearizable([full, op(2, "GET", at=20, until=30)])
    assert not is_linearizable([full, op(2, "GET", at=20, until=30, answer=b"a")])


def test_a_status_is_no_value():
    assert not is_linearizable(
        [
            op(1, "SET", b"OK", at=0, until=10, answer="OK"),
            op(2, "GET", at=20, until=30, answer="OK"),
        ]
    )


def test_a_long_history_is_decided_without_recursion():
    operations = []
    for number in range(20_000):
        at = 10 * number
        operations.append(op(1, "INCR", at=at, until=at + 25, answer=number + 1))
    assert is_linearizable(operations)
    operations[15_000] = dataclasses.replace(operations[15_000], answer=15_002)
    found = rejected(*operations)
    assert len(found.operations) < 10


def test_too_many_overlapping_operations_are_said_to_be_too_many():
    writes = [op(each, "SET", b"%d" % each, at=0, until=90, answer="OK") for each in range(20)]
    impossible = op(99, "GET", at=0, until=90, answer=b"x")
    with pytest.raises(Undecided, match="with 1,001 configurations tried in"):
        is_linearizable([*writes, impossible], effort=Effort(configurations=1000))


def unanswered_appends(count):
    return [op(each, "APPEND", b"<%d>" % each, at=each, until=None) for each in range(count)]


def log_of(count):
    return b"".join(b"<%d>" % each for each in reversed(range(count)))


#: Where counting all orders of all subsets would take for ever, so much is enough.
LITTLE = Effort(seconds=1e6, configurations=10_000)


@pytest.mark.parametrize("count", [9, 20, 100])
@pytest.mark.parametrize("length", ["told by an APPEND", "told by STRLEN", "not told"])
@pytest.mark.parametrize("right", [True, False])
def test_unanswered_appends_are_not_tried_in_all_orders(count, length, right):
    log, wrong = log_of(count), 0 if right else 1
    told = {
        "told by an APPEND": op(200, "APPEND", b"!", at=500, until=510, answer=len(log) + 1),
        "told by STRLEN": op(200, "STRLEN", at=500, until=510, answer=len(log) + wrong),
        "not told": op(200, "EXISTS", at=500, until=510, answer=1),
    }[length]
    end = (b"!" if told.command == "APPEND" else b"") + b"x" * wrong
    read = op(201, "GET", at=520, until=530, answer=log + end)
    operations = [*unanswered_appends(count), told, read]
    assert is_linearizable(operations, effort=LITTLE) is right
    assert check_linearizability(History(operations), effort=LITTLE).linearizable is right


@pytest.mark.parametrize("reset", [("DEL",), ("SET", b"z"), ("SET", b"z", b"NX")])
def test_unanswered_appends_beside_a_reset_without_an_answer_are_not_tried_in_all_orders(reset):
    operations = [*unanswered_appends(20), op(90, *reset, at=3, until=None)]
    for end, right in ((b"", True), (b"x", False)):
        read = op(201, "GET", at=520, until=530, answer=log_of(20) + end)
        assert is_linearizable([*operations, read], effort=LITTLE) is right


def test_unanswered_writes_that_nobody_read_are_not_tried_in_all_orders():
    writes = [op(each, "SET", b"%d" % each, at=each, until=None) for each in range(30)]
    writes += [op(each, "INCR", at=each, until=None, key=b"n") for each in range(30)]
    reads = [
        op(50, "GET", at=100, until=110, answer=b"x"),
        op(51, "GET", at=100, until=110, answer=b"31", key=b"n"),
    ]
    verdict = check_linearizability(History([*writes, *reads]), effort=LITTLE)
    assert verdict.keys == (b"k", b"n")


log_commands = st.one_of(
    st.sampled_from([("GET",), ("STRLEN",), ("DEL",), ("SET", b"x"), ("SET", b"xy", b"NX")]),
    st.sampled_from([b"x", b"y", b"xy", b""]).map(lambda value: ("APPEND", value)),
    st.just(("SET", b"x", b"XX")),
)


@st.composite
def logs_without_answers(draw):
    """Give a log that loses many answers, and some of whose answers are changed."""
    operations = draw(executions(log_commands, 6))
    return [
        dataclasses.replace(each, returned=None, answer=None)
        if each.command not in ("GET", "STRLEN") and draw(st.booleans())
        else dataclasses.replace(each, answer=draw(answers | st.sampled_from([b"x", b"xyx"])))
        if each.returned is not None and draw(st.integers(0, 3)) == 0
        else each
        for each in operations
    ]


@settings(max_examples=amount(50, 400))
@given(logs_without_answers(), st.sampled_from([None, b"x", Unknown(), Unknown(1, b"x")]))
def test_looking_ahead_finds_an_order_exactly_if_there_is_one(operations, start):
    assert is_linearizable(operations, start=start) is possible(operations, start)


#: Distinct amounts, of which no subset adds up: no search that is known is quick.
HARD = [
    *(op(each, "INCRBY", b"%d" % 2**each, at=each, until=None, key=b"hard") for each in range(40)),
    op(90, "GET", at=100, until=110, answer=b"%d" % 2**41, key=b"hard"),
]
EASY = [op(1, "SET", b"a", at=0, until=10, answer="OK", key=b"zz")]


@pytest.mark.parametrize(
    ("effort", "limit"),
    [
        (Effort(configurations=3000), "3,000 configurations"),
        (Effort(bytes=10**6), "1.0 MB"),
        (Effort(seconds=0.5), "0.5 s"),
    ],
)
def test_a_search_that_is_given_up_says_what_was_tried(effort, limit):
    verdict = check_linearizability(History([*HARD, *EASY]), effort=effort)
    assert verdict.linearizable is None
    assert verdict.operations == 42
    [undecided] = verdict.undecided
    assert (undecided.key, undecided.answered, undecided.unanswered) == (b"hard", 1, 40)
    assert undecided.tried.configurations > 0
    assert str(verdict).startswith("undecided: 42 operations checked in")
    assert re.search(
        r"key hard: .*1 answered and 40 unanswered.*configurations tried in .* s and .* MB",
        str(verdict),
    )
    assert str(undecided).endswith(f"the limit is {limit}")


def test_a_key_without_an_order_counts_beside_one_that_is_undecided():
    missed = op(2, "GET", at=20, until=30, answer=b"b", key=b"zz")
    verdict = check_linearizability(
        History([*HARD, *EASY, missed]), effort=Effort(configurations=1000)
    )
    assert verdict.linearizable is False
    assert verdict.keys == (b"zz",)
    assert [each.key for each in verdict.undecided] == [b"hard"]


@pytest.mark.parametrize("name", ["seconds", "bytes", "configurations"])
def test_an_effort_of_nothing_is_refused(name):
    with pytest.raises(LocalError, match=f"{name} of a search: expected more than 0, found 0"):
        Effort(**{name: 0})


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("FLUSHALL", ()), ("SET", (b"a", b"EX")), ("GET", (b"a",)), ("INCRBY", ()), ("SET", ())],
)
def test_a_command_that_is_not_modelled_is_refused(command, arguments):
    with pytest.raises(LocalError, match="expected GET, SET"):
        check_linearizability(History([op(1, command, *arguments, at=0, until=1)]))


def test_a_counterexample_is_drawn_with_a_time_line_for_each_client():
    found = rejected(
        op(1, "SET", b"9", at=0, until=10, answer="OK"),
        op(1, "DEL", at=15, until=None),
        op(3, "GET", at=2, until=30, answer=b"9"),
        op(3, "GET", at=40, until=50, answer=b"7"),
    )
    assert [line.split("  ")[0] for line in found.diagram().splitlines()] == ["client 3"]
    assert "GET k → 7" in found.diagram()
    assert str(found).startswith("value never written: client 3 read k = 7 at 0.000000 s")


def test_overlapping_operations_of_a_client_are_drawn_below_one_another():
    found = rejected(
        op(1, "SET", b"9", at=0, until=30, answer="OK"),
        op(1, "SET", b"8", at=10, until=35, answer="OK"),
        op(1, "GET", at=40, until=50),
    )
    lines = found.diagram().splitlines()
    assert all("|" in line for line in lines)
    assert found.kind == "lost write"


scalars = (
    st.none()
    | st.text(st.characters(max_codepoint=255))
    | st.binary()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(max_codepoint=255)).map(ErrorReply)
)
any_operations = st.builds(
    Operation,
    client=st.integers(0, 99),
    key=st.binary(max_size=9),
    command=st.sampled_from(["GET", "SET"]),
    arguments=st.lists(st.binary(max_size=9), max_size=3).map(tuple),
    call=st.integers(0, 2**60),
    returned=st.none() | st.integers(0, 2**60),
    answer=scalars,
)
losses = st.builds(ConnectionLost, st.integers(0, 9), st.integers(0, 2**60), st.text(max_size=20))


@given(st.builds(History, st.lists(any_operations), st.lists(losses)))
def test_a_history_is_read_as_it_was_written(history):
    file = io.StringIO()
    history.write(file)
    assert file.getvalue().isascii()
    assert History.read(file.getvalue().splitlines()) == history


def test_a_history_is_kept_in_a_file(tmp_path):
    history = History([op(1, "GET", at=0, until=1)], [ConnectionLost(1, 5, "reset")])
    history.save(tmp_path / "history.jsonl")
    assert History.load(tmp_path / "history.jsonl") == history


@pytest.mark.parametrize(
    "line",
    [
        *("", "{}", "[1]", "null", '{"client": 1, "lost": "x"}', '{"key": 1'),
        '{"client": 1e999, "at": 1, "lost": "x"}',
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_line_that_is_none_of_a_history_is_refused(line):
    with pytest.raises(LocalError, match="history, line 1: expected"):
        History.read([line])


def test_requests_of_several_keys_are_operations_of_each():
    found = operations_of(1, [b"mset", b"a", b"1", b"b", b"2", b"a", b"3"], 5, 6, "OK")
    assert [(each.key, each.command, each.arguments) for each in found] == [
        (b"a", "MSET", (b"3",)),
        (b"b", "MSET", (b"2",)),
    ]
    found = operations_of(1, [b"MGET", b"a", b"b"], 5, 6, [b"1", None])
    assert [each.answer for each in found] == [b"1", None]
    found = operations_of(1, [b"MGET", b"a", b"b"], 5, None, None)
    assert [each.returned for each in found] == [None, None]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ([b"DEL", b"a", b"b"], 1),
        ([b"EXISTS", b"a", b"a"], 2),
        ([b"FLUSHALL"], "OK"),
        ([b"GET"], None),
        ([b"MSET", b"a"], "OK"),
        ([b"MGET", b"a", b"b"], [b"1"]),
        ([b"GET", b"a"], [b"1"]),
    ],
)
def test_a_request_that_cannot_be_split_is_refused(request_, answer):
    with pytest.raises(LocalError, match="expected"):
        operations_of(1, request_, 0, 1, answer)


def test_a_kill_is_as_long_as_the_longest_silence_after_it():
    ms = 1_000_000
    history = History(
        [
            op(1, "GET", at=0, until=10 * ms),
            op(1, "GET", at=11 * ms, until=16 * ms),
            op(2, "GET", at=12 * ms, until=18 * ms),
            op(1, "GET", at=17 * ms, until=118 * ms),
            op(2, "GET", at=19 * ms, until=120 * ms),
            op(2, "GET", at=121 * ms, until=125 * ms),
        ]
    )
    silence = history.silence(15 * ms)
    assert silence is not None
    assert (silence.late, silence.gap.milliseconds) == (2, 100)
    assert (silence.first_ms, silence.every_ms) == (103, 105)
    assert history.latency_ms(50, 100) == [8, 101]
    assert history.longest_gap(client=2).milliseconds == 102


def test_a_client_that_is_never_answered_again_has_no_end_of_silence():
    history = History(
        [
            op(1, "GET", at=0, until=10),
            op(1, "GET", at=11, until=50),
            op(2, "GET", at=12, until=None),
        ]
    )
    silence = history.silence(20)
    assert silence is not None
    assert silence.every_ms is None
    assert history.silence(60) is None
    assert len(history.unanswered) == 1


@given(any_execution(10))
def test_what_changes_nothing_can_always_be_left_out(operations):
    search = Search([each for each in relevant(operations) if not changes_nothing(each)])
    assert search.run()


KILL = 100
BEFORE = op(1, "SET", b"a", at=0, until=10, answer="OK")
AFTER = op(1, "GET", at=KILL + 10, until=KILL + 20, answer=b"a")


@pytest.mark.parametrize(
    ("operations", "crossed"),
    [
        ([BEFORE, AFTER], 1),
        ([op(1, "GET", at=KILL + 10, until=KILL + 20)], 0),
        ([BEFORE], 0),
        # Asked for before the kill, and answered after it: by either node.
        ([BEFORE, op(2, "GET", at=KILL - 1, until=KILL + 20, answer=b"a")], 0),
        # Changed, but with no answer before the kill.
        ([op(1, "SET", b"a", at=0, until=KILL + 5, answer="OK"), AFTER], 0),
        ([op(1, "SET", b"a", at=0, until=None), AFTER], 0),
        # Asked for and not answered.
        ([BEFORE, op(1, "SET", b"b", at=KILL + 10, until=None)], 0),
        # What was read before says nothing that the survivor could lose.
        ([op(2, "GET", at=0, until=10), op(2, "GET", at=KILL + 10, until=KILL + 20)], 0),
        # Another key's.
        ([BEFORE, op(1, "GET", at=KILL + 10, until=KILL + 20, key=b"other")], 0),
    ],
)
def test_a_history_of_which_nothing_crossed_the_failover_is_unknown(operations, crossed):
    verdict = check_linearizability(History(operations), failover=KILL)
    assert verdict.crossed == crossed
    assert verdict.linearizable is (True if crossed else None)
    assert verdict.in_words == ("linearizable" if crossed else "unknown")
    assert ("nothing crossed the failover" in str(verdict)) is (crossed == 0)
    # The same history without a failover is judged by its answers alone.
    alone = check_linearizability(History(operations))
    assert (alone.linearizable, alone.crossed) == (True, None)


def test_what_cannot_be_is_not_excused_by_a_failover_that_nothing_crossed():
    lost = [BEFORE, op(2, "GET", at=20, until=30)]
    verdict = check_linearizability(History(lost), failover=KILL)
    assert (verdict.linearizable, verdict.in_words) == (False, "not linearizable")
    assert verdict.crossed == 0
