"""Faults of a running pair's disks: guest or COLO is told, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from colobench.errors import ColobenchError
from colobench.lab.session.session import Session
from colobench.processes.errors import NodeGone
from sector_pair import image_of, judge, pair
from share import some

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = 60.0


def errors(session: Session, role: str = "primary") -> int:
    """Count the requests of the guest that failed."""
    return int(session.nodes[role].execute("x-query-guest")["disks"]["disk0"]["errors"])


def survives(session: Session, directory: Path, role: str) -> None:
    """Let a node go on alone, and compare its disk with what its guest was told."""
    assert session.failover(role).work_after > 0
    verdict = judge(session, role, image_of(directory, swapped=role == "secondary"))
    assert verdict.right, str(verdict)
    assert verdict.written > 0


def is_told(session: Session) -> None:
    """Wait until the primary says that COLO has ended."""
    session.wait_for_event("primary", "COLO_EXIT", WAIT, reason="error")


@pytest.mark.parametrize("error", some(["EIO", "ENOSPC"], 1))
def test_guest_is_told_of_an_error_of_its_disk_and_goes_on(tmp_path: Path, error: str) -> None:
    with pair(tmp_path, experiment=True, verify=True) as session:
        session.run(1)
        kinds = ["write", "flush", "discard"]
        rule = {"kinds": kinds, "errno": error, "offset": 1 << 20, "length": 1 << 20}
        session.disk_fault("primary", [rule])
        session.wait_for(lambda: errors(session) >= 20, "errors of the guest's disk", WAIT)
        session.disk_fault("primary", [])
        # The disks are equal: of a write that has failed, the secondary hears nothing.
        assert {record.verified for record in session.run(2)} == {True}
        session.kill("primary")
        survives(session, tmp_path, "secondary")


@pytest.mark.parametrize("fault", some(["EIO", "ENOSPC", "discard", "shrunk"], 2))
def test_secondary_whose_image_fails_ends_and_the_guest_goes_on(tmp_path: Path, fault: str) -> None:
    with pair(tmp_path, experiment=True) as session:
        session.run(1)
        if fault == "shrunk":
            os.truncate(tmp_path / "disk.replica", 64 << 10)
        elif fault == "discard":
            session.disk_fault("secondary", [{"kinds": ["discard"], "torn": True}])
        else:
            session.disk_fault("secondary", [{"kinds": ["write"], "errno": fault}])
        is_told(session)
        survives(session, tmp_path, "primary")


def test_slow_disk_of_the_secondary_slows_writes_and_loses_none(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"delay": None, "disk_buffer_limit": "4M", "writes_per_tick": 64}
    with pair(tmp_path, experiment=True, **settings) as session:
        late = {"kinds": ["write"], "errno": 0, "delay-ms": 20}
        session.disk_fault("secondary", [late])
        limit = (4 << 20) // 2

        def is_full() -> bool:
            (disk,) = session.nodes["primary"].execute("x-query-disks")
            return bool(disk["changed-bytes"] > limit - (128 << 10))

        def has_waited() -> bool:
            # The guest runs on, but no checkpoint is taken: its writes have to wait, unless it goes
            # on before the first of them does.
            session.hold("primary", "request")
            session.wait_for(is_full, "a full buffer", WAIT)
            session.go_on("primary")
            wanted = session.records.total + 3
            session.wait_for(lambda: session.records.total >= wanted, "checkpoints", WAIT)
            return sum(record.disk_waits for record in session.records[:]) > 0

        assert any(has_waited() for _ in range(10))
        records = session.records[:]
        assert max(record.disk_write_p50_ms or 0 for record in records) >= late["delay-ms"]
        assert all(record.disk_buffer_bytes <= 4 << 20 for record in records)
        session.kill("primary")
        survives(session, tmp_path, "secondary")


def test_server_that_stops_is_noticed_and_the_guest_goes_on(tmp_path: Path) -> None:
    with pair(tmp_path, stall_timeout=3) as session:
        session.run(1)
        os.kill(session.nodes["secondary"].pid, signal.SIGSTOP)
        is_told(session)
        survives(session, tmp_path, "primary")
        session.kill("secondary")


def test_fault_is_refused_outside_of_an_experiment_or_if_it_is_none(tmp_path: Path) -> None:
    rule: dict[str, Any] = {"kinds": ["read"]}
    with pair(tmp_path) as session, pytest.raises(ColobenchError, match="experiment"):
        session.disk_fault("primary", [rule])
    with pair(tmp_path, experiment=True) as session:
        for disk, rules, words in (
            (1, [rule], "disk: expected 0"),
            (0, [rule | {"errno": "EWHAT"}], "errno"),
            (0, [{"offset": 0}], "kinds"),
        ):
            with pytest.raises((ColobenchError, NodeGone), match=words):
                session.disk_fault("secondary", rules, disk=disk)
