"""A guest that KVM runs is protected as ours is: verified, killed at each point, and taken over."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from colobench.lab.session.session import Session
from colobench.node.breakpoints import points_of
from colobench.protocol.colo import Role
from colobench.settings.checkpoint import Capture, Layout
from colobench.settings.transport import Encoding
from kvm_guests import needs_kvm
from pairs import assert_survived, run_and_write, run_in_a_row
from share import amount, some

pytestmark = [needs_kvm, pytest.mark.usefixtures("nothing_left")]

CHECKPOINTS = amount(3, 20)
FORMS: list[dict[str, Any]] = [
    {"guest": "kvm", "layout": "buffered"},
    {"transport": "multifd", "variant": "upstream"},
    {"transport": "memfd"},
    {"transport": "tcp", "variant": "upstream"},
    {"encoding": "xbzrle", "guest": "kvm:sequential"},
    {"encoding": "zstd", "transport": "multifd"},
    {"encoding": "divergent", "variant": "upstream"},
    {"capture": "copy-then-send"},
    {"capture": "gap-precopy", "delay": 200},
    {"save_order": "ram-first"},
    {"output": "compare", "guest": "kvm:uniform"},
    {"tracker": "userfault", "transport": "multifd"},
    {"tracker": "userfault", "variant": "upstream"},
    {"tracker": "shadow", "variant": "upstream"},
]


def session(**settings: Any) -> Session:
    """Make a session with a small guest of KVM."""
    usual = {"guest": "kvm:hotcold", "ram": "8M", "delay": 10, "writes_per_tick": 8}
    return Session(**(usual | settings))


@pytest.mark.parametrize("form", some(FORMS, 1), ids=lambda form: "-".join(map(str, form.values())))
def test_every_form_verifies_and_survives(form: dict[str, Any]) -> None:
    with session(**form) as pair:
        assert all(record.verified for record in run_in_a_row(pair, CHECKPOINTS))
        pair.kill("primary")
        assert_survived(pair, pair.failover(), "secondary")


def test_checkpoints_in_a_row_verify_equal() -> None:
    number = amount(10, 1000)
    with session(guest="kvm:uniform", delay=0) as pair:
        records = run_in_a_row(pair, number)
        assert len(records) >= number
        assert all(record.verified for record in records)
        text = pair.nodes["primary"].execute("x-query-console")["text"]
        assert "colobench: a guest of KVM" in text or "work 0" in text


#: Every point of both sides at which either side is killed, for both variants.
KILLS = [
    (victim.value, held.value, at, variant)
    for variant in ("v12", "upstream")
    for victim in Role
    for held in Role
    for at in points_of(held, Layout.SEPARATED, Capture.STOP_AND_SEND, Encoding.NONE)
]


@pytest.mark.parametrize(("victim", "held", "at", "variant"), some(KILLS, 2))
def test_killed_at_any_point_the_other_side_goes_on(
    victim: str, held: str, at: str, variant: str
) -> None:
    with session(delay=None, variant=variant) as pair:
        run_and_write(pair, 3)
        killed = pair.kill(victim, at=at, held=held)
        assert killed.status == -signal.SIGKILL
        takeover = pair.failover()
        assert takeover.checkpoint in (3, 4)
        survivor = "secondary" if victim == "primary" else "primary"
        assert_survived(pair, takeover, survivor)
