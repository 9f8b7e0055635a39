"""Torture: nodes of a serving pair are killed again and again, and the clients' history is judged.

Each kill of a plan (`colobench.lab.torture.kill_plan`) happens while clients ask and write. The
survivor takes over, another secondary joins, the clients go on all the time on the same
connections; then all keys are read, and one order of the requests has to explain all answers. A
guest that writes sectors has no clients, and its disk is judged, see `sectors_round.py`. If both
nodes are killed, a pair is started on the disk that is left, see `double_round.py`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from queue import Empty, SimpleQueue

import psutil

from colobench.errors import LocalError, RemoteError
from colobench.fields.checks import check_integer
from colobench.lab.clients.closed_loop import Clients
from colobench.lab.session.disk_images import identify_disks
from colobench.lab.session.own_images import have_own_images, own_images
from colobench.lab.session.session import Session
from colobench.lab.torture.double_round import DoubleSectorsRound, DoubleStoreRound
from colobench.lab.torture.kill_plan import OUTPUTS, Kill
from colobench.lab.torture.kill_results import KillResult
from colobench.lab.torture.kill_round import KillRound, LostWithoutAKill, unequal_checkpoints
from colobench.lab.torture.log_judge import judge_log
from colobench.lab.torture.sectors_round import SectorsRound, judge_sectors
from colobench.lab.torture.settings import TortureSettings
from colobench.lab.torture.store_round import (
    Judgement,
    StoreRound,
    judge,
    keeps_log,
    last_values,
)

#: Limit of the kills with the same transport and output that one pair suffers in a row.
BLOCK = 20
#: Limit of pairs in a row that part without a kill.
_PARTED_LIMIT = 5


USUAL = TortureSettings()


class ProcessesLeft(RemoteError):
    """Processes that outlived their session."""


def _kind(kill: Kill) -> tuple[str, str, str | None]:
    """Give what kills have in common that one pair can suffer."""
    return kill.transport, kill.output, kill.layers


def in_blocks(kills: Sequence[Kill]) -> Iterator[list[Kill]]:
    """Put kills that one pair can suffer together, without moving them far."""
    left = list(kills)
    while left:
        kind = _kind(left[0])
        block = [each for each in left if _kind(each) == kind][:BLOCK]
        taken = {each.number for each in block}
        left = [each for each in left if each.number not in taken]
        yield block


def torture(
    kills: Sequence[Kill],
    settings: TortureSettings = USUAL,
    *,
    jobs: int = 1,
    say: Callable[[str], None] = lambda words: None,
) -> Generator[KillResult, None, None]:
    """Carry out kills, and yield the result of each as it comes.

    After a violation the pair is given up, and the next kill meets a new one; if a pair parts
    without a kill, the kill is tried again. If the caller stops early, kills that are under way
    are finished without a result.

    Parameters
    ----------
    kills
        Kills to be carried out, see `colobench.lab.torture.kill_plan.plan`.
    settings
        Settings of the run.
    jobs
        Number of pairs at a time.
    say
        Function that is called with a description of each step, in the pairs' threads.

    Raises
    ------
    LocalError
        If the settings are impossible, or do not go with two kills, or with layers.
    """
    settings.check_room()
    identify_disks(settings.pair)
    _check_disks(kills, settings)
    if jobs > 1 and not have_own_images(settings.pair):
        raise LocalError(
            "jobs: expected 1 with an image that is there, as one pair at a time can have it, "
            f"found {jobs}"
        )
    blocks: SimpleQueue[list[Kill]] = SimpleQueue()
    for block in in_blocks(kills):
        blocks.put(block)
    found: SimpleQueue[KillResult | BaseException | None] = SimpleQueue()
    stopping = threading.Event()

    def work() -> None:
        try:
            while not stopping.is_set():
                for result in _suffer_block(blocks.get_nowait(), settings, stopping, say):
                    found.put(result)
        except Empty:
            pass
        except BaseException as error:
            found.put(error)
        found.put(None)

    threads = [threading.Thread(target=work, name="torture", daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        working = jobs
        while working:
            result = found.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                working -= 1
            else:
                yield result
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def _check_disks(kills: Sequence[Kill], settings: TortureSettings) -> None:
    """Check that a guest of which both nodes are killed has left something to go on from."""
    guest = settings.pair.guest
    if guest.disks and (guest.appendonly == "yes" or not settings.serves):
        return
    if any(kill.second is not None for kill in kills):
        found = "one without a log" if guest.disks else "no disk"
        raise LocalError(
            f"torture --double: expected a guest with its log on a disk, found {found}"
        )
    if not guest.disks and any(kill.layers is not None for kill in kills):
        raise LocalError("torture --layers: expected a guest with a disk, found none")


def _suffer_block(
    block: list[Kill],
    settings: TortureSettings,
    stopping: threading.Event,
    say: Callable[[str], None],
) -> Iterator[KillResult]:
    left, parted = list(block), 0
    round_of: type[KillRound] = StoreRound if settings.serves else SectorsRound
    if left[0].second is not None:
        round_of = DoubleStoreRound if settings.serves else DoubleSectorsRound
    while left and not stopping.is_set():
        say(f"a new pair: {left[0].transport}, {left[0].output}")
        in_files = left[0].layers == "directory"
        with own_images(settings.of_kill(left[0]), in_files) as own, Session(own) as session:
            while left and not stopping.is_set():
                say(f"kill {left[0].number}: {' '.join(left[0].combination)}")
                try:
                    result = round_of(session, left[0], settings).result()
                except LostWithoutAKill as error:
                    say(str(error))
                    parted += 1
                    if parted > _PARTED_LIMIT:
                        raise
                    break
                left.pop(0)
                parted = 0
                yield result
                if result.violations or result.kill.second is not None:
                    break
            pids = session.all_pids()
        alive = [pid for pid in pids if psutil.pid_exists(pid)]
        if alive:
            raise ProcessesLeft(f"expected every process to end with its session, found {alive}")


def _judge_clean(session: Session, clients: Clients | None, settings: TortureSettings) -> Judgement:
    """Judge a pair that nobody has killed, which is undecided if its guest has done nothing."""
    found = _judge_work(session, clients, settings)
    if found.operations or found.linearizable is not True:
        return found
    return replace(found, linearizable=None, undecided=("expected operations, found none",))


def _judge_work(session: Session, clients: Clients | None, settings: TortureSettings) -> Judgement:
    """Judge the clients' history and the log, or sectors; and digests."""
    if clients is None:
        verdict = judge_sectors(session, "primary")
        wrong = [] if verdict.right else [f"wrong disk: {verdict}"]
        wrong += unequal_checkpoints(session, 0)
        return Judgement(verdict.written, verdict.right, tuple(wrong))
    judgement = judge(clients, session, effort=settings.effort())
    if keeps_log(session):
        logged = judge_log(session, last_values(clients), settings.patience)
        if not logged.right:
            wrong = [*judgement.violations, f"wrong disk: {logged}"]
            return replace(judgement, violations=tuple(wrong))
    return judgement


def run_clean(
    checkpoints: int,
    settings: TortureSettings = USUAL,
    outputs: Sequence[str] = OUTPUTS,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[str, Judgement]]:
    """Take checkpoints while clients ask, without a kill: there must be no violation.

    If output is compared, every checkpoint that is not the timer's is a false alarm.

    Parameters
    ----------
    checkpoints
        Number of checkpoints, divided evenly among the ways of output.
    settings
        Settings of the pairs.
    outputs
        Ways of output.
    progress
        Function that is called after each checkpoint with the number done, and the total.

    Yields
    ------
    output, judgement

    Raises
    ------
    LocalError
        If there is not a checkpoint for each way of output, or the settings are impossible.
    """
    settings.check_room()
    expected = f"at least one for each way of output: {len(outputs)}"
    check_integer("checkpoints", checkpoints, len(outputs), expected=expected)
    done = 0
    for number, output in enumerate(outputs, start=1):
        count = checkpoints * number // len(outputs) - done
        with own_images(settings.without_kills(output)) as own, Session(own) as session:
            clients = Clients(session.address(), settings.clients) if settings.serves else None
            with clients or nullcontext():
                for taken in range(1, count + 1):
                    session.run(1)
                    progress(done + taken, checkpoints)
            judgement = _judge_clean(session, clients, settings)
            causes = Counter(record.cause for record in session.records)
            alarms = [f"{number} × {cause}" for cause, number in causes.items() if cause != "timer"]
            yield output, replace(judgement, violations=(*judgement.violations, *alarms))
        done += count
