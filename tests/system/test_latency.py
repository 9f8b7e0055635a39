"""Latency in three states, and the causes of checkpoints, measured on live pairs."""

from __future__ import annotations

import shutil

import pytest

from colobench.guest.settings import NondeterminismSettings
from colobench.lab.clients.resp import ErrorReply
from colobench.lab.session.record import Records
from colobench.lab.session.session import Session
from colobench.lab.studies.checkpoint_causes import SHOWN, CauseTable, provoke_miscompares
from colobench.lab.studies.console import ask, redis_cli, show
from colobench.lab.studies.latency import STATES, Latencies, TimedAnswer, measure_latency
from records import make_record


@pytest.mark.usefixtures("nothing_left")
def test_all_three_states_are_measured_and_buffered_checkpoints_marked():
    said = []
    found = measure_latency(0.5, delay_ms=50, ram="8M", say=said.append)
    assert all(found.count(state) > 0 for state in STATES)
    assert all(each.latency_ms > 0 and each.asked_s >= 0 for each in found.answers)
    assert {state for state, _ in found.checkpoints} >= {"buffer"}
    assert said[-1] == "done"
    # No clock decides this: buffered answers wait for a checkpoint, which is 50 ms away at most.
    assert found.ratio("buffer", "unprotected") > 1
    lines = repr(found).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == list(STATES)
    assert "× unprotected" in lines[4]


def test_percentiles_and_ratios_are_of_their_state():
    found = Latencies()
    for state, latency in zip(STATES, (100.0, 2.0, 1.0), strict=True):
        found.answers += [TimedAnswer(state, 0.1 * i, latency * (i + 1)) for i in range(3)]
    assert found.percentile("buffer", 50) == 200.0
    assert found.ratio("compare", "unprotected") == 2.0
    assert "buffered: 50 × compared" in repr(found)


def test_without_answers_the_table_has_no_rows_and_no_ratios():
    assert len(repr(Latencies()).splitlines()) == 1


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("dials", [{"clock_us": 0}, {"clock_us": 10**6, "shuffle": 1000}])
def test_a_guest_left_to_chance_makes_miscompares_with_their_place(dials):
    records = Records()

    def none_yet() -> bool:
        # On a busy machine the timer's checkpoints may come before the answers are compared.
        return not CauseTable(records).miscompares

    provoke_miscompares(
        NondeterminismSettings(**dials), 60.0, ram="8M", into=records, go_on=none_yet
    )
    table = CauseTable(records)
    assert table.counts["miscompare"] == len(table.miscompares) > 0
    assert all(each.cause_connection.startswith("10.0.2.15:6379") for each in table.miscompares)
    assert all(each.cause_offset >= 0 for each in table.miscompares)


@pytest.mark.usefixtures("nothing_left")
def test_one_that_is_deterministic_makes_none():
    records = provoke_miscompares(seconds=1.0, ask_time=False, ram="8M")
    assert CauseTable(records).counts["miscompare"] == 0


def test_a_table_of_causes_counts_all_and_names_the_last():
    places = {"cause": "miscompare", "cause_connection": "a > b", "cause_offset": 1234}
    records = [make_record(number, **places) for number in range(1, 10)]
    table = CauseTable([*records, make_record(10, cause="timer")])
    assert table.counted() == "miscompare 9, timer 1"
    assert [row[0] for row in table.rows()] == [str(n) for n in range(10 - SHOWN, 10)]
    assert repr(table).splitlines()[-1].split() == ["9", "0.90", "s", "a", ">", "b", "1,234"]
    assert repr(CauseTable([])) == "checkpoints by cause: none"


@pytest.mark.usefixtures("nothing_left")
def test_the_guest_answers_by_hand_and_to_redis_cli():
    with Session(guest="kv", ram="8M", delay=20, hostfwd="tcp:127.0.0.1:0-:6379") as session:
        found = ask(session, "SET greeting 'hello there'", "GET greeting", "INCR greeting")
        assert [show(each.reply) for each in found[:2]] == ["OK", '"hello there"']
        assert show(found[2].reply).startswith("(error) ERR")
        assert "GET greeting" in repr(found)
        said = redis_cli(session, "GET greeting")
    here = shutil.which("redis-cli") is not None
    assert said == ("hello there" if here else "redis-cli is not installed here, and not needed")


def test_answers_are_written_as_redis_cli_does():
    assert show([None, 3, b"x", ErrorReply("OOM")]) == '[(nil), (integer) 3, "x", (error) OOM]'
