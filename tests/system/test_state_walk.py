"""Live pairs: the states of both nodes' machines, and the bytes on each connection."""

from __future__ import annotations

import pytest

import colobench as cb
from colobench.errors import LocalError


def test_both_nodes_name_the_state_that_their_table_has_at_each_point():
    with cb.Session(ram="8M", delay=None) as session:
        walk = cb.walk_states(session)
    states = {(each.role, each.at): each for each in walk}
    assert states["primary", "request"].primary == "REQUESTED"
    assert states["primary", "ram"].primary == "SENDING"
    assert states["primary", "received"].primary == "LOADING"
    assert states["secondary", "ram-received"].secondary == "RECEIVING_RAM"
    assert states["secondary", "buffer-received"].secondary == "RECEIVING_BUFFER"
    assert states["secondary", "flush"].secondary == "LOADING"


def test_a_failover_during_a_load_goes_on_from_the_committed_checkpoint():
    with cb.Session(ram="8M", delay=None) as session:
        secondary = session.nodes["secondary"]
        session.run(1)
        session.hold("secondary", "flush")
        states = secondary.execute("x-query-states")
        session.kill("primary")
        secondary.execute("x-colo-lost-heartbeat")
        taken = session.wait_for_event("secondary", "X_COLO_TAKEOVER")
    assert states == {"conversation": "LOADING", "standing": "PAIRED", "failover": "NONE"}
    assert taken.data["checkpoint"] == 2


def test_a_session_that_takes_checkpoints_by_itself_is_refused():
    with pytest.raises(LocalError, match="expected delay None, found 100"):
        cb.walk_states(cb.Session(ram="8M"))


def test_each_transport_sends_pages_where_it_says():
    forms = [{"transport": each} for each in ("stream", "multifd", "memfd")]
    table = cb.tabulate_transports(forms, checkpoints=2, ram="8M")
    stream, multifd, memfd = table
    assert stream.others == 0
    assert stream.main > stream.page_bytes > 0
    assert multifd.others > multifd.page_bytes > 0
    assert memfd.main + memfd.others < memfd.page_bytes / 50
    for each in table:
        assert each.main + each.others >= sum(record.bytes for record in each.records)
    assert "on the stream" in repr(table)
