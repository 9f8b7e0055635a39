"""Strategies on pairs of real processes: each trigger decides, and every checkpoint verifies."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from axes import product
from colobench.cli.main import main
from colobench.errors import LocalError
from colobench.guest.settings import NondeterminismSettings
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.session.node_pair import ColoExit
from colobench.lab.session.serving import serving_settings
from colobench.lab.session.session import Session
from colobench.lab.session.session_processes import settings_arguments
from colobench.memory.tracker_names import TRACKERS
from colobench.processes.errors import QMPCommandError
from colobench.settings.checkpoint import Strategy
from colobench.settings.settings import Settings
from colobench.settings.strategy import make_strategy
from colobench.strategy.compatibility import refusals
from colobench.strategy.presets import PRESETS
from share import LONG, amount, some, some_of

pytestmark = pytest.mark.usefixtures("nothing_left")

CHECKPOINTS = amount(20, 200)
#: A trigger of each kind that a guest without clients can have, and the causes that it gives.
TRIGGERS = {
    "fixed:ms=0": {"timer"},
    "degradation:target=0.2,minimum=1,maximum=200": {"degradation", "timer"},
    "dirty:pages=150,maximum=1000000": {"dirty"},
    "output:maximum=5": {"output", "timer"},
    "price:maximum=5": {"price", "timer"},
}
#: Parameters with which each trigger acts within milliseconds.
SOON = {
    "fixed": "ms=2",
    "miscompare": "maximum=2",
    "output": "maximum=5",
    "degradation": "minimum=1,maximum=20",
    "dirty": "pages=50,maximum=20",
    "hybrid": "minimum=1,maximum=20,passive_count=3,passive_time=5",
    "price": "maximum=5",
}
#: The same, with time for passes between two checkpoints.
LATER = {
    "fixed": "ms=100",
    "miscompare": "maximum=100",
    "output": "maximum=100",
    "degradation": "minimum=100,maximum=200",
    "dirty": "pages=2000,maximum=100",
    "hybrid": "minimum=1,maximum=100,passive_count=3,passive_time=100",
    "price": "maximum=100",
}


def session(**settings: Any) -> Session:
    """Make a session with a small guest that writes a lot."""
    return Session(**({"ram": "8M", "writes_per_tick": 40, "guest": "hotcold"} | settings))


def serving(trigger: str, **settings: Any) -> Session:
    """Make a session whose guest serves clients."""
    return Session(serving_settings(ram="8M", trigger=trigger, **settings))


# -- Triggers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_every_trigger_names_its_cause_and_its_checkpoints_verify(trigger: str) -> None:
    with session(trigger=trigger) as pair:
        records = pair.run(CHECKPOINTS)
        assert all(record.verified for record in records)
        assert {record.cause for record in records} <= TRIGGERS[trigger]
        at = some(pair.points("primary"), 1)[0]
        pair.kill("primary", at=at)
        assert pair.failover().equal
        assert pair.verify()


@pytest.mark.parametrize("tracker", TRACKERS)
def test_dirty_pages_are_counted_and_none_of_them_is_lost(tracker: str) -> None:
    with session(trigger="dirty:pages=200,maximum=1000000", tracker=tracker) as pair:
        records = pair.run(CHECKPOINTS)
        assert all(record.verified for record in records)
        assert {record.cause for record in records} == {"dirty"}
        assert min(record.pages for record in records) >= 200


def test_output_that_waits_causes_a_checkpoint_and_nothing_else_does() -> None:
    with serving("output:maximum=1000000") as pair, StoreConnection(pair.address(), 60) as client:
        for _ in range(20):
            assert client.ask(b"PING") == "PONG"
        # The handshake and each answer are waited for, and nothing comes by itself. The last
        # checkpoint is reported after its answer has left.
        pair.wait_for(lambda: len(pair.records) >= 20, "a checkpoint for each answer", 60.0)
        assert {record.cause for record in pair.records} == {"output"}
        assert all(record.verified for record in pair.records)


def test_output_that_waits_is_worth_a_checkpoint_at_its_price() -> None:
    trigger = "price:waiting=0.5,maximum=1000000"
    with serving(trigger) as pair, StoreConnection(pair.address(), 60) as client:
        for _ in range(20):
            assert client.ask(b"PING") == "PONG"
        assert {record.cause for record in pair.records} == {"price"}


def test_the_hybrid_is_passive_once_miscompares_are_frequent() -> None:
    trigger = "hybrid:minimum=1,passive_limit=5000,passive_count=4,passive_time=5,maximum=10000"
    # Each guest reads its own clock: answers with the time in them differ.
    apart = NondeterminismSettings(clock_us=1)
    with (
        serving(
            trigger,
            output="compare",
            nondeterminism=apart,
            verify=False,
            # Until then a busy machine's other guest has answered, too.
            compare_timeout=60_000,
        ) as pair,
        StoreConnection(pair.address(), 60) as client,
    ):
        while len(pair.records) < 12:
            client.ask(b"TIME")
        causes = [record.cause for record in pair.records][:12]
    assert causes[:5] == ["miscompare"] * 5
    assert causes[5:8] == ["passive"] * 3
    assert causes[8] == "miscompare"


def test_in_the_passive_mode_the_secondarys_guest_stands_still_and_takes_over_as_well() -> None:
    trigger = "hybrid:minimum=1,passive_limit=5000,passive_count=1000,passive_time=5,maximum=10000"
    apart = NondeterminismSettings(clock_us=1)
    with (
        serving(trigger, output="compare", nondeterminism=apart) as pair,
        StoreConnection(pair.address(), 60) as client,
    ):
        secondary = pair.nodes["secondary"]
        pair.wait_for(
            lambda: secondary.execute("query-status")["status"] == "running",
            "the secondary's guest to run",
            60,
        )
        while not pair.records or pair.records[-1].cause != "passive":
            client.ask(b"TIME")
        states = set()
        for _ in range(20):
            assert client.ask(b"PING") == "PONG"
            states.add(secondary.execute("query-status")["status"])
        assert states == {"colo"}
        assert all(record.verified for record in pair.records)
        pair.kill("primary")
        pair.failover()
        assert client.ask(b"PING") == "PONG"


def test_a_fixed_delay_beside_comparison_lets_what_differs_wait() -> None:
    apart = NondeterminismSettings(clock_us=1)
    with (
        serving("fixed:ms=20", output="compare", nondeterminism=apart) as pair,
        StoreConnection(pair.address(), 60) as client,
    ):
        for _ in range(10):
            client.ask(b"TIME")
        assert {record.cause for record in pair.records} == {"timer"}


def test_a_running_pair_takes_another_trigger_and_a_new_pair_has_that_of_the_settings() -> None:
    with session(trigger="fixed:ms=none") as pair:
        primary = pair.nodes["primary"]
        primary.execute("migrate-set-parameters", x_trigger="dirty:pages=100")
        shown = primary.execute("query-migrate-parameters")
        assert shown["x-trigger"] == "dirty:pages=100,maximum=1000"
        assert shown["x-checkpoint-delay"] == 1000
        pair.wait_for(lambda: len(pair.records) > 5, "checkpoints", 60)
        assert pair.records[0].cause == "requested"
        assert {record.cause for record in pair.records[1:]} <= {"dirty", "timer"}
        for wrong, words in (
            ({"x_trigger": "soon"}, "trigger: expected one of fixed"),
            ({"x_trigger": "fixed", "x_checkpoint_delay": 5}, "found both"),
            ({"x_checkpoint_delay": -1}, "x-checkpoint-delay: expected 0 to"),
        ):
            with pytest.raises(QMPCommandError, match=words):
                primary.execute("migrate-set-parameters", **wrong)
        pair.kill("secondary")
        pair.failover()
        pair.rejoin()
        survivor = pair.nodes["primary"].execute("query-migrate-parameters")
        assert survivor["x-trigger"] == "fixed:ms=none"
        assert pair.checkpoint().verified


def test_a_trigger_that_does_not_go_with_the_output_is_refused_before_anything_starts() -> None:
    with pytest.raises(LocalError, match="trigger hybrid: expected output compare"):
        session(trigger="hybrid")


# -- A user's own trigger -------------------------------------------------------------------------


class Impatient:
    """Waits for so many milliseconds, one more each time."""

    maximum = 500

    def __init__(self, wait: int) -> None:
        self.wait = wait

    def ask(self, seen: Any) -> Any:
        if seen.ran_ms >= self.wait:
            return "impatient"
        return self.wait - seen.ran_ms

    def learn(self, seen: Any) -> None:
        self.wait += 1


class Dirty:
    """Looks at the dirty pages."""

    needs = ("dirty_pages",)

    def ask(self, seen: Any) -> Any:
        return "enough" if seen.dirty_pages >= 100 else 1


class Wrong:
    """Has an error in the line that its users look for."""

    def ask(self, seen: Any) -> Any:
        if seen.checkpoints == 3:
            return 1 / (seen.checkpoints - 3)  # here
        return "right"


class Loop:
    """Thinks for ever, from its second checkpoint on."""

    def ask(self, seen: Any) -> Any:
        while seen.checkpoints:
            pass  # around
        return "once"


class Locked:
    """Keeps Python's lock for ever, in one call of C, from its second checkpoint on."""

    def ask(self, seen: Any) -> Any:
        return str(sum(range(10**12 if seen.checkpoints else 1)))  # locked


class Silent:
    """Returns nothing, from its second checkpoint on."""

    def ask(self, seen: Any) -> Any:
        return "said" if seen.checkpoints < 2 else None


def test_a_users_trigger_decides_and_keeps_its_state() -> None:
    with session(trigger=Impatient(2)) as pair:
        records = pair.run(CHECKPOINTS)
        assert {record.cause for record in records} == {"impatient"}
        assert all(record.verified for record in records)
        again = Session(Settings.from_json(pair.settings.as_json()))
        assert again.settings == pair.settings
        # As on every node of the pair, which gets the trigger by its file alone.
        assert "impatient" not in " ".join(settings_arguments(pair.settings))
        pair.kill("secondary")
        pair.failover()
        pair.rejoin()
        assert pair.run(2)[0].cause == "impatient"


def test_a_users_trigger_that_says_what_it_needs_gets_it() -> None:
    with session(strategy=Dirty()) as pair:
        records = pair.run(CHECKPOINTS)
        assert {record.cause for record in records} <= {"enough", "timer"}
        assert all(record.verified for record in records)


def line_of(words: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(words))


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (Wrong(), f"trigger Wrong, line {line_of('# here')}: ZeroDivisionError: division by zero"),
        (Silent(), "trigger Silent: expected a cause, or the milliseconds .*, found None"),
        (Loop(), "trigger Loop, line [0-9]+: expected an answer within 1 s, found it still"),
        (Locked(), rf"trigger did not answer(.|\n)*{line_of('# locked')} in ask"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_users_trigger_that_fails_ends_colo_with_an_error_that_says_where(
    trigger: Any, words: str
) -> None:
    with session(trigger=trigger) as pair:
        with pytest.raises(ColoExit, match=words):
            pair.run(100)
        if isinstance(trigger, Locked):
            return
        # The guest is none the worse for it.
        pair.kill("secondary")
        assert pair.failover().work_after > 0
        assert pair.verify()


def test_a_users_trigger_is_a_strategy_whose_other_axes_are_usual() -> None:
    assert session(strategy=Dirty()).settings == session(trigger=Dirty()).settings
    assert make_strategy(Dirty()) == Strategy().override(trigger=Dirty())


def test_what_cannot_travel_as_source_and_json_is_refused() -> None:
    with pytest.raises(LocalError, match="trigger Impatient: expected attributes that JSON has"):
        session(trigger=Impatient(object()))
    unseen: dict[str, Any] = {}
    exec("class Unseen:\n    def ask(self, seen): return 1", unseen)
    with pytest.raises(LocalError, match="trigger Unseen: expected the source of its class"):
        session(trigger=unseen["Unseen"]())
    with pytest.raises(LocalError, match="trigger: expected code, "):
        Settings.from_json({"trigger": {"name": "Mine"}})


# -- Strategies ----------------------------------------------------------------------------------

#: The allowed product of all axes, thousands of combinations; of them a share is done of 100 alone.
ALLOWED = [values for values in product() if not any(refusals(values))]
TRIED = ALLOWED if LONG else some_of(ALLOWED, 100)


@pytest.mark.parametrize("values", some(TRIED, 4), ids=lambda values: "-".join(values.values()))
def test_an_allowed_combination_verifies_and_survives_a_kill_at_each_of_its_points(
    values: dict[str, str],
) -> None:
    soon = LATER if values["capture"] == "gap-precopy" else SOON
    values = values | {"trigger": f"{values['trigger']}:{soon[values['trigger']]}"}
    with session(**values) as pair:
        sides = [(role, at) for role in ("primary", "secondary") for at in pair.points(role)]
    for role, at in some(sides, 1):
        with session(**values) as pair:
            assert all(record.verified for record in pair.run(CHECKPOINTS))
            pair.kill(role, at=at)
            takeover = pair.failover()
            assert takeover.work_after > takeover.work_at_takeover
            assert pair.verify()


def two_transports(name: str) -> list[str]:
    """Give a preset's own transport and another one, which is TCP where no other is allowed."""
    own = PRESETS[name].axes.get("transport", "stream")
    allowed = []
    for transport in (own, *(other for other in ("multifd", "memfd", "tcp") if other != own)):
        with contextlib.suppress(LocalError):
            session(strategy=f"{name},transport={transport}")
            allowed.append(transport)
    return allowed[:2]


@pytest.mark.parametrize(
    ("name", "transport"),
    some([(name, transport) for name in PRESETS for transport in two_transports(name)], 2),
)
@pytest.mark.timeout(amount(300, 3600))
def test_a_preset_verifies_and_survives_a_kill_at_each_point_on_two_transports(
    name: str, transport: str
) -> None:
    trigger = PRESETS[name].axes.get("trigger", "fixed").partition(":")[0]
    soon = LATER if PRESETS[name].axes.get("capture") == "gap-precopy" else SOON
    strategy = f"{name},transport={transport},trigger={trigger}:{soon[trigger]}"
    with session(strategy=strategy) as pair:
        assert all(record.verified for record in pair.run(CHECKPOINTS))
        sides = [(role, at) for role in ("primary", "secondary") for at in pair.points(role)]
    for role, at in some(sides, 1):
        with session(strategy=strategy) as pair:
            pair.run(3)
            pair.kill(role, at=at)
            takeover = pair.failover()
            assert takeover.work_after > takeover.work_at_takeover
            assert pair.verify()


@pytest.mark.parametrize("name", some(list(PRESETS), 2))
def test_torture_of_a_preset_loses_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    kills = str(amount(2, 50))
    assert main(["torture", "--strategy", name, "--kills", kills, "--json"]) == 0
    assert '"violations": []' in capsys.readouterr().out
