"""One kill under a guest that writes sectors to its disks, which are compared with its RAM."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from colobench.lab.checker.sectors import SectorsVerdict, check_sectors
from colobench.lab.session.node_pair import PEERS
from colobench.lab.session.session import Session
from colobench.lab.session.status import PairState
from colobench.lab.torture.kill_round import KillRound, unequal_checkpoints

#: Checkpoints before a kill, and after another secondary has joined.
BEFORE, AFTER = 2, 1
#: Why a kill is undecided under a guest that had done no write.
NOTHING_CROSSED = "nothing crossed the failover: expected writes done, found none"


class SectorsRound(KillRound):
    """One kill, and the search for sectors that the survivor's guest knows otherwise."""

    def carry_out(self) -> None:
        """Kill, compare the survivor's disks with its RAM, and let another secondary join."""
        session, kill, patience = self._session, self._kill, self._settings.patience
        session.run(BEFORE)
        if kill.delay_ms is not None:
            time.sleep(kill.delay_ms / 1000)
        self.kill()
        takeover = session.takeover(patience)
        self.note(takeover)
        self._takeover_ms = self._every_ms = takeover.takeover_ms
        verdict = judge_sectors(session, PEERS[kill.victim])
        self._operations = verdict.written
        # A guest that had done no write shows nothing.
        self._linearizable = verdict.right if verdict.written or not verdict.right else None
        if self._linearizable is None:
            self._undecided = (NOTHING_CROSSED,)
        if not verdict.right:
            self._violations.append(f"wrong disk: {verdict}")
        session.rejoin()
        session.run(AFTER)
        self._violations += unequal_checkpoints(session, self._first_record)


def judge_sectors(session: Session, role: str) -> SectorsVerdict:
    """Let a guest stand still, and compare its disks with its RAM; the guest runs on.

    Parameters
    ----------
    session
        Session with a guest that runs one of the programs ``sectors``.
    role
        Role of the survivor, or of the primary of a pair.
    """
    node, guest = session.nodes[role], session.settings.guest
    with tempfile.TemporaryDirectory(prefix="colobench-") as directory:
        ram = Path(directory, "ram")
        with standing(session, role):
            # It waits for the requests under way.
            node.execute("x-query-digest")
            node.execute("pmemsave", val=0, size=guest.ram_bytes, filename=str(ram))
            return check_sectors(session.images(), np.fromfile(ram, np.uint8), guest.seed)


@contextmanager
def standing(session: Session, role: str) -> Iterator[None]:
    """Let a guest stand still meanwhile; that of a pair stands in a checkpoint."""
    node, paired = session.nodes[role], session.state is PairState.PROTECTED
    if paired:
        session.hold(role, "stop")
    else:
        node.execute("stop")
    try:
        yield
    finally:
        if paired:
            session.go_on(role)
        else:
            node.execute("cont")
