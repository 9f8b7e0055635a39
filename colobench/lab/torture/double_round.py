"""Both nodes of a pair are killed, and a guest is started on the disk that is left."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colobench.errors import LocalError, RemoteError
from colobench.guest.programs import Program
from colobench.lab.checker.append_only_log import read_commands
from colobench.lab.checker.durable_history import check_durable
from colobench.lab.checker.sectors import check_sectors
from colobench.lab.clients.closed_loop import Clients
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.session.journal import ROLES
from colobench.lab.session.node_pair import PEERS
from colobench.lab.session.pair_disks import PairDisks
from colobench.lab.session.session import Session
from colobench.lab.torture.guest_ram import GuestRAM
from colobench.lab.torture.kill_plan import AFTER_TAKEOVER
from colobench.lab.torture.kill_results import LOST_MS
from colobench.lab.torture.kill_round import KillRound, unequal_checkpoints
from colobench.lab.torture.sectors_round import NOTHING_CROSSED
from colobench.lab.torture.store_round import (
    ANSWER_SECONDS,
    ANSWERS_BEFORE,
    clients_of,
    wait_until_loaded,
)

#: Longest time that a survivor runs before it is killed, too, seconds.
ALONE_SECONDS = 0.1
#: Shortest and longest time before the first kill where writes may be lost, seconds.
LOSING_SECONDS = (0.5, 2.5)
#: Checkpoints of a guest that writes sectors before the first kill, and of the one that is started.
BEFORE, AFTER = 2, 1
#: Settings of the pair that is started, of which nobody is killed.
_STARTED: Mapping[str, Any] = {"heartbeat": None}


class DoubleRound(KillRound):
    """Two kills, and the search for what the disk lacks that is left."""

    #: Whether the pair parted before the first kill, once that is known.
    _parted: bool | None = None

    def kill_both(self, served: Clients | None = None) -> int:
        """Kill a node, and the other one at once or after its takeover.

        Parameters
        ----------
        served
            Clients that are to have answers of the survivor before it is killed, too.

        Returns
        -------
        int
            CLOCK_MONOTONIC of the guest's end, ns.
        """
        session, kill, patience = self._session, self._kill, self._settings.patience
        first = self.kill()
        if kill.second == AFTER_TAKEOVER:
            takeover = session.takeover(patience)
            self.note(takeover)
            self._takeover_ms = self._every_ms = takeover.takeover_ms
            if served is not None:
                served.wait_until_all_answered(round(first.time * 1e9), timeout=patience)
            time.sleep(random.Random(kill.seed).random() * ALONE_SECONDS)
        self._parted = session.lost_without_a_kill()
        return round(session.kill(PEERS[kill.victim]).time * 1e9)

    def current_images(self) -> list[str]:
        """Give the images on which a guest is started: those that are current by what they say."""
        disks = PairDisks(self._session.settings)
        disks.choose()
        self._details["image"] = "replica" if self._is_replica(disks.of_primary) else "primary"
        return disks.of_primary

    def parted(self) -> bool:
        """Say whether the pair parted before the first kill."""
        return super().parted() if self._parted is None else self._parted

    def _is_replica(self, images: Sequence[str]) -> bool:
        return images[0] == self._session.settings.guest.disk_settings()[0].replica


class DoubleStoreRound(DoubleRound):
    """Two kills under clients of the store; its keys are read from the guest that is started."""

    def carry_out(self) -> None:
        """Kill both nodes, start a pair on the disk, and judge what is there."""
        session, kill, settings = self._session, self._kill, self._settings
        policy = session.settings.guest.appendfsync
        clients = clients_of(session, kill, settings)
        with clients:
            clients.wait_until_answered(
                ANSWERS_BEFORE * settings.clients, timeout=settings.patience
            )
            if policy != "always":
                time.sleep(random.Random(kill.seed).uniform(*LOSING_SECONDS))
            elif kill.delay_ms is not None:
                time.sleep(kill.delay_ms / 1000)
            end_ns = self.kill_both(clients)
            # With it the clients' connections end.
            session.close()
        commands = _commands(self.current_images()[0])
        with Session(session.settings.override(**_STARTED)) as started:
            self._judge(clients, started, commands, policy, end_ns)
            started.run(AFTER)
            self._violations += unequal_checkpoints(started, 0)

    def _judge(
        self,
        clients: Clients,
        started: Session,
        commands: list[list[bytes]],
        policy: str,
        end_ns: int,
    ) -> None:
        with StoreConnection(started.address(), ANSWER_SECONDS) as store:
            keys = wait_until_loaded(store, self._settings.patience)
        history = clients.history()
        every = clients.final_reads(started.address()).operations
        finals = [each for each in every if each.client >= self._settings.clients]
        if any(each.returned is None for each in finals):
            raise RemoteError("expected the started guest to answer, found it silent")
        there = sum(each.answer is not None for each in finals)
        if keys != there:
            self._violations.append(f"torn state: {there} keys are there, and DBSIZE is {keys}")
        verdict = check_durable(
            *(history, finals, commands, policy, end_ns), effort=self._settings.effort()
        )
        self._linearizable, self._undecided = verdict.linearizable, verdict.undecided
        self._operations = verdict.operations
        self._violations += verdict.violations
        self._details |= {"logged": verdict.commands, "lost": verdict.lost}
        if policy != "always":
            self._details[LOST_MS] = verdict.lost_ms


def _commands(image: str) -> list[list[bytes]]:
    try:
        return list(read_commands(np.fromfile(image, np.uint8)))
    except LocalError as error:
        raise RemoteError(f"wrong disk: {error}") from error


class DoubleSectorsRound(DoubleRound):
    """Two kills under a guest that writes sectors; they are compared with its RAM at its end."""

    def carry_out(self) -> None:
        """Kill both nodes, compare the disk with the RAM of its guest, and start a pair on it."""
        session, kill, guest = self._session, self._kill, self._session.settings.guest
        session.run(BEFORE)
        if kill.delay_ms is not None:
            time.sleep(kill.delay_ms / 1000)
        rams = [GuestRAM(session.nodes[role].pid, guest) for role in ROLES]
        with rams[0], rams[1]:
            self.kill_both()
            session.close()
            images = self.current_images()
            ram = rams[self._is_replica(images)].main()
        self._judge(images, ram)
        # Its program writes to no disk, so both images stay as they are.
        settings = session.settings.override(
            **_STARTED, guest=Program.UNIFORM, output="buffer", variant=None, bug=None
        )
        with Session(settings) as started:
            started.run(AFTER)
            self._violations += unequal_checkpoints(started, 0)
        self._judge([each.image for each in guest.disk_settings()], ram)
        self._judge([each.replica for each in guest.disk_settings()], ram)

    def _judge(self, images: Sequence[str], ram: np.ndarray) -> None:
        settings = self._session.settings
        verdict = check_sectors(
            images, ram, settings.guest.seed, cache_lost=settings.experiment.volatile_cache
        )
        self._operations = verdict.written
        if not verdict.right:
            self._linearizable = False
            self._violations.append(f"wrong disk: {verdict}")
        elif not verdict.written:
            self._undecided = (NOTHING_CROSSED,)
        elif self._linearizable is None:
            self._linearizable = True
