"""Claim on pages that two guests write alike: most of the dirty pages need not be sent."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from colobench.lab.bench.case import at_least
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.reproductions.points import Point, median
from colobench.lab.reproductions.reproduction import Drawn, Gate, Laboratory, Reproduction, Rounds
from colobench.lab.session.serving import serving_settings
from colobench.lab.session.session import Session
from colobench.settings.strategy import preset

#: Numbers of keys from which a client chooses.
KEYS = (100, 10_000)
#: Requests that are sent together, and bytes of a value.
PIPELINED, VALUE_BYTES = 500, 400
#: Milliseconds between checkpoints, and seconds in which the client writes.
INTERVAL_MS, SECONDS = 100, 1.5
#: Dirty pages below which a checkpoint says little.
LEAST_PAGES = 20


def write_keys(client: StoreConnection, keys: int, seed: int) -> None:
    """Write keys at random, hundreds at a time, as ``redis-benchmark -P 500 -t set -r`` does."""
    generator = random.Random(seed)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for number in range(PIPELINED):
            value = b"%d " % number
            key = b"key:%d" % generator.randrange(keys)
            client.send(b"SET", key, value.ljust(VALUE_BYTES, b"."))
        answered = 0
        while answered < PIPELINED:
            answered += len(client.receive_all(1))


def measure_divergent(laboratory: Laboratory) -> Rounds:
    """Count dirty pages, and those that both guests wrote alike, for each number of keys."""
    strategy = preset("plover").as_json() | {"delay": INTERVAL_MS}
    settings = serving_settings(**strategy, ram="64M", verify=False)
    laboratory.settings["plover"] = settings
    with Session(settings) as session, StoreConnection(session.address()) as client:
        for number in laboratory.rounds():
            points = []
            for keys in KEYS if number % 2 else reversed(KEYS):
                first = len(session.records)
                write_keys(client, keys, number)
                points += [
                    Point("plover", name, keys, y, number)
                    for record in session.records[first:]
                    if record.compared_pages >= LEAST_PAGES
                    for name, y in (
                        ("pages", record.compared_pages),
                        ("equal_share", record.equal_pages / record.compared_pages),
                    )
                ]
            yield points


def judge_divergent(points: Sequence[Point]) -> dict[str, float]:
    """Compute the share of equal pages for each number of keys, and the growth of the pages."""
    few, many = KEYS
    return {
        "few": median(points, "equal_share", x=few),
        "many": median(points, "equal_share", x=many),
        "pages": median(points, "pages", x=many) / median(points, "pages", x=few),
    }


DIVERGENT = Reproduction(
    name="divergent",
    claim="Both guests write most of the dirty pages alike, so only the others have to be sent",
    kind="shape",
    source="Wang and others, PLOVER, NSDI 2018; its comparison with vSphere FT",
    here=(
        "A pair with the strategy plover compares output, with a checkpoint every 100 ms. A client "
        "sends 500 SETs at a time, of keys chosen among 100 and among 10,000."
    ),
    gates=(
        Gate("few", "equal pages of the dirty ones, 100 keys", at_least(0.6), "0.80", counted=True),
        Gate("many", "the same, 10,000 keys", at_least(0.6), "0.75 (100,000)", counted=True),
        Gate("pages", "dirty pages, 10,000 keys / 100 keys", at_least(1.2), "1.9", counted=True),
    ),
    measure=measure_divergent,
    figures=judge_divergent,
    drawn=(
        Drawn("equal_share", "keys", "equal pages / dirty pages", logarithmic=True),
        Drawn("pages", "keys", "dirty pages", logarithmic=True),
    ),
)

CLAIMS = (DIVERGENT,)
