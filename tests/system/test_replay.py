"""A pair that replays a trace: verified checkpoints, kills of both sides, and its dirty pages."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from colobench.lab.compare.calibrate import busy_behind, cpu_time
from colobench.lab.compare.measure import wait_for_work
from colobench.lab.session.session import Session
from colobench.memory.dirty_curve import dirty_at
from colobench.memory.trace_file import file_digest
from traces import trace_file, trace_of

pytestmark = pytest.mark.system

RANDOM = np.random.default_rng(3)
WRITES = [sorted(set((RANDOM.zipf(1.2, 20) % 900).tolist())) for _ in range(500)]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trace_file(tmp_path_factory.mktemp("replay") / "trace.npz", WRITES, changed_words=9)


@pytest.mark.parametrize(("side", "transport"), [("primary", "stream"), ("secondary", "memfd")])
def test_replayed_guest_survives_a_kill_with_its_ram(
    trace: Path, side: str, transport: str
) -> None:
    settings = {"ram": "16M", "guest": "replay", "trace": str(trace), "delay": 5}
    with Session(**settings, transport=transport) as session:
        assert session.settings.guest.trace_sha256 == file_digest(trace)
        assert all(record.verified for record in session.run(20))
        session.kill(side, at="ram" if side == "primary" else "flush")
        session.failover()
        assert session.verify()


def test_checkpoints_have_as_many_dirty_pages_as_the_trace_has(trace: Path) -> None:
    delay = 40
    with Session(ram="16M", guest="replay", trace=str(trace), delay=delay, verify=False) as session:
        records = session.run(60)
    found, work = records.column("pages"), np.diff(records.column("guest_work"))
    # A guest on a busy machine does more or less between two checkpoints than in the delay, so
    # the curve is read where the trace has done that work.
    per_interval = np.mean([len(each) for each in WRITES])
    expected = [
        dirty_at(trace_of(WRITES), min(500, max(1, round(steps / per_interval)))) if steps else 0
        for steps in work
    ]
    # A page of the screen may be among the written ones.
    assert np.median(found[1:]) == pytest.approx(np.median(expected), rel=0.1, abs=2)


def test_a_stopped_guest_makes_up_for_its_work_in_a_share_of_the_time_and_runs_on(
    trace: Path,
) -> None:
    found = {}
    per_interval = np.mean([len(each) for each in WRITES])

    def unprotected() -> None:
        node = session.nodes["primary"]
        wait_for_work(node, None)
        first = cpu_time(node)
        found["share"] = busy_behind(node, per_interval)
        last = cpu_time(node)
        # A trace goes on with the time, also while the guest stands still.
        due = (last.ns - first.ns) / 1e6 * per_interval
        found["done"] = (last.work - first.work) / due
        found["runs"] = node.execute("query-status")["running"]

    session = Session(ram="16M", guest="replay", trace=str(trace), delay=None)
    with closing(session):
        session.start(unprotected=unprotected)
    assert 0 < found["share"] < 1
    # Without what it made up for, three stops of 100 ms would leave next to nothing.
    assert found["done"] > 0.5
    assert found["runs"], found
