"""Claims on compared output: how it is compared, how checkpoints are requested, the hybrid."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from colobench.lab.bench.case import at_least, at_most
from colobench.lab.clients.closed_loop import Request
from colobench.lab.clients.open_loop import probe
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.reproductions.points import Point, median, select
from colobench.lab.reproductions.reproduction import Drawn, Gate, Laboratory, Reproduction, Rounds
from colobench.lab.session.serving import serving_settings
from colobench.lab.session.session import Session
from colobench.settings.settings import Settings

CLIENTS = 4
#: Seconds of a round in which clients fetch from one pair.
FETCH_SECONDS = 1.0


class Load(NamedTuple):
    """What clients ask for.

    Attributes
    ----------
    value_bytes
        Bytes of the value that they fetch.
    in_flight
        Requests of each client that wait for their answers at the same time.
    times
        Whether each such batch begins with TIME, which the guests answer differently.
    """

    value_bytes: int
    in_flight: int
    times: bool = False

    @property
    def batch(self) -> list[Request]:
        """Requests that are sent one behind the other."""
        first: list[Request] = [(b"TIME",)] if self.times else []
        return first + [(b"GET", b"value")] * self.in_flight


def fetch(session: Session, load: Load, seconds: float) -> float:
    """Let clients fetch a value as quickly as they can; return the bytes of values a second."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(StoreConnection(session.address(), 30.0)) for _ in range(CLIENTS)
        ]
        clients[0].ask(b"SET", b"value", b"v" * load.value_bytes)
        begin = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            batches = pool.map(lambda client: _fetch(client, load, begin + seconds), clients)
            fetched = sum(batches) * load.in_flight * load.value_bytes
        return fetched / (time.monotonic() - begin)


def _fetch(client: StoreConnection, load: Load, end: float) -> int:
    """Send batches of requests, one when the answers to the last are there; return their number."""
    done, batch = 0, load.batch
    while time.monotonic() < end:
        for request in batch:
            client.send(*request)
        client.receive_all(len(batch))
        done += 1
    return done


class Serving(ExitStack):
    """Pairs that serve and compare output, with different quirks; clients ask one at a time.

    Parameters
    ----------
    laboratory
        Surroundings, which note the settings.
    series
        Quirks of each pair, by its name.
    alone
        Whether one more pair loses its secondary, so that nothing is compared.
    settings
        Further settings by name.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        series: dict[str, tuple[str, ...]],
        alone: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.sessions: dict[str, Session] = {}
        try:
            for name, quirks in series.items():
                self._start(laboratory, name, _comparing(quirks, settings))
            if alone:
                self._start(laboratory, UNPROTECTED, _comparing((), settings))
                session = self.sessions[UNPROTECTED]
                session.kill("secondary")
                session.failover()
        except BaseException:
            self.close()
            raise

    def _start(self, laboratory: Laboratory, name: str, settings: Settings) -> None:
        laboratory.settings[name] = settings
        self.sessions[name] = self.enter_context(Session(settings))

    def fetched(self, number: int, load: Load) -> Iterator[Point]:
        """Fetch from each pair, every other round in the opposite order."""
        order = list(self.sessions.items())
        for name, session in order if number % 2 else reversed(order):
            before = len(session.records)
            rate = fetch(session, load, FETCH_SECONDS)
            yield Point(name, "megabytes_per_s", number, rate / 1e6, number)
            taken = len(session.records) - before
            yield Point(name, "checkpoints_per_s", number, taken / FETCH_SECONDS, number)
            yield Point(name, "per_megabyte", number, 1e6 * taken / (rate * FETCH_SECONDS), number)


#: The series whose secondary was killed.
UNPROTECTED = "unprotected"


def _comparing(quirks: tuple[str, ...], others: dict[str, Any]) -> Settings:
    return serving_settings(output="compare", delay=10_000, verify=False, quirks=quirks, **others)


# -- Streams or segments -------------------------------------------------------------------------

#: Many short answers, which guests that wait at random put into segments differently.
SHORT_ANSWERS = Load(100, 50)
JITTER_US = 2000
#: A link on which a checkpoint takes time, as it does with a larger guest.
LINK = "delay=5ms"


def measure_segments(laboratory: Laboratory) -> Rounds:
    """Fetch with streams compared, with segments compared, and unprotected."""
    series: dict[str, tuple[str, ...]] = {"streams": (), "segments": ("segments",)}
    with Serving(laboratory, series, alone=True, jitter_us=JITTER_US, link=LINK) as serving:
        for number in laboratory.rounds():
            yield list(serving.fetched(number, SHORT_ANSWERS))


def judge_segments(points: Sequence[Point]) -> dict[str, float]:
    """Compute the ratio of the rates, and give the checkpoints."""
    streams, segments = (
        median(points, "megabytes_per_s", each) for each in ("streams", "segments")
    )
    return {
        "ratio": streams / segments,
        "streams": median(points, "checkpoints_per_s", "streams"),
        "segments": median(points, "checkpoints_per_s", "segments"),
    }


SEGMENTS = Reproduction(
    name="segments",
    claim="TCP that is compared as streams causes no miscompares by its cuts, and is quicker",
    kind="shape",
    source="QEMU, commit f449c9e549 (2017): FTP at less than 1 % of the native rate, then 20 %",
    here=(
        "Two pairs compare output, one of them segment by segment as QEMU did (--quirk segments). "
        "Clients fetch values from each in turn, and from a guest without a secondary. The gain is "
        "smaller than published, because a checkpoint takes milliseconds here."
    ),
    gates=(
        Gate("ratio", "rate of clients, streams / segments", at_least(1.2), "more than 20"),
        Gate("streams", "checkpoints a second, streams", at_most(2)),
        Gate("segments", "checkpoints a second, segments", at_least(4)),
    ),
    measure=measure_segments,
    figures=judge_segments,
    drawn=(
        Drawn("megabytes_per_s", "round", "fetched (MB/s)"),
        Drawn("checkpoints_per_s", "round", "checkpoints a second"),
    ),
)


# -- Event or semaphore --------------------------------------------------------------------------

#: Long answers behind one that differs: each of their segments differs, too.
LONG_ANSWERS = Load(8192, 8, times=True)


def measure_requests(laboratory: Laboratory) -> Rounds:
    """Fetch with an event and with a semaphore, while the guests differ now and then."""
    series: dict[str, tuple[str, ...]] = {"event": (), "semaphore": ("semaphore",)}
    with Serving(laboratory, series) as serving:
        for number in laboratory.rounds():
            yield list(serving.fetched(number, LONG_ANSWERS))


def judge_requests(points: Sequence[Point]) -> dict[str, float]:
    """Compute the ratio of the checkpoints for the same bytes."""
    event, semaphore = (median(points, "per_megabyte", each) for each in ("event", "semaphore"))
    return {"checkpoints": semaphore / event}


EVENT = Reproduction(
    name="event",
    claim="One checkpoint settles all differences so far; a semaphore takes one for each of them",
    kind="shape",
    source="QEMU, May 2020: from a semaphore to an event, 0.7 to 16 Mbit/s from the guest",
    here=(
        "Two pairs compare output, one of them with a checkpoint for each difference (--quirk "
        "semaphore). Clients fetch values, and ask for the time, which the guests answer "
        "differently. The superfluous checkpoints are counted. The published loss of rate is not "
        "reproduced: here each of them is short, and releases output."
    ),
    gates=(
        Gate("checkpoints", "checkpoints for a megabyte fetched, semaphore / event", at_least(2)),
    ),
    measure=measure_requests,
    figures=judge_requests,
    drawn=(
        Drawn("per_megabyte", "round", "checkpoints for 1 MB"),
        Drawn("megabytes_per_s", "round", "fetched (MB/s)"),
    ),
)


# -- The hybrid ----------------------------------------------------------------------------------

#: Checkpoints of the passive mode, and the hybrid whose switches are counted, times in ms.
PASSIVE = 8
HYBRID_TRIGGER = (
    f"hybrid:minimum=20,maximum=10000,passive_limit=400,passive_count={PASSIVE},passive_time=40"
)
#: Checkpoints on miscompare that the hybrid takes before it judges.
CYCLES = 5
#: Milliseconds from one request to the next.
EVERY_MS = 4.0
#: Seconds of a cycle, at most.
CYCLE_SECONDS = 20.0


def measure_hybrid(laboratory: Laboratory) -> Rounds:
    """Follow the hybrid through its modes, while clients ask for the time."""
    settings = serving_settings(output="compare", trigger=HYBRID_TRIGGER, verify=False)
    laboratory.settings["hybrid"] = settings
    with Session(settings) as session:
        for number in laboratory.rounds():
            first = len(session.records)
            probe(
                session.address(),
                itertools.repeat((b"TIME",)),
                seconds=CYCLE_SECONDS,
                every_ms=EVERY_MS,
                seen=lambda answered: None,
                go_on=partial(_goes_on, session, first),
            )
            yield [
                Point("hybrid", name, number, count, number)
                for name, count in cycle_of(causes(session, first)).items()
            ]


def _goes_on(session: Session, first: int) -> bool:
    return not cycle_of(causes(session, first))


def causes(session: Session, first: int) -> list[str]:
    """Give the causes of a session's checkpoints from one on."""
    return [each.cause for each in session.records[first:]]


def cycle_of(found: Sequence[str]) -> dict[str, int]:
    """Find the first whole cycle: checkpoints on miscompare, then passive ones, then again.

    Parameters
    ----------
    found
        Causes of checkpoints, in order.

    Returns
    -------
    dict
        Numbers of checkpoints of the first whole ``comparing`` mode and of the ``passive`` mode
        after it; empty if there is none yet.
    """
    runs = [
        (passive, len(list(run))) for passive, run in itertools.groupby(map(_is_passive, found))
    ]
    # The first run may have begun before, and the last one may go on.
    for (passive, comparing), (_, length) in itertools.pairwise(runs[1:-1]):
        if not passive:
            return {"comparing": comparing, "passive": length}
    return {}


def _is_passive(cause: str) -> bool:
    return cause == "passive"


def judge_hybrid(points: Sequence[Point]) -> dict[str, float]:
    """Give the numbers of checkpoints in both modes."""
    counts = {
        each.quantity: each.y for each in select(points, "comparing") + select(points, "passive")
    }
    none = {"comparing": 0.0, "passive": 0.0} | counts
    return {"least": none["comparing"], "most": none["comparing"], "passive": none["passive"]}


HYBRID = Reproduction(
    name="hybrid",
    claim="With frequent miscompares the hybrid turns passive after five cycles, and comes back",
    kind="value",
    source="Dr. David Gilbert, COLO hybrid mode (qemu-devel, 2015)",
    here=(
        "Clients ask a pair for the time, which its guests answer differently, until it has gone "
        "through a whole cycle. The passive mode has 8 checkpoints; the first of them is still on "
        "miscompare."
    ),
    gates=(
        Gate("least", "checkpoints on miscompare until it turns passive", at_least(5), "5"),
        Gate("most", "the same, from above", at_most(6), "5"),
        Gate("passive", "passive checkpoints until it comes back", at_least(PASSIVE - 1), "7"),
    ),
    measure=measure_hybrid,
    figures=judge_hybrid,
    drawn=(
        Drawn("comparing", "round", "checkpoints on miscompare"),
        Drawn("passive", "round", "passive checkpoints"),
    ),
)

CLAIMS = (SEGMENTS, EVENT, HYBRID)
