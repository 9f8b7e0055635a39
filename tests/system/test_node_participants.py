"""Participants of a checkpoint are told what becomes of the guest, on both sides, in order."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from colobench.errors import LocalError
from colobench.kernels.warmup import load
from colobench.node.options import parse_options
from colobench.node.participants import CheckpointParticipant
from colobench.node.primary import Primary
from colobench.node.runtime import NodeRuntime
from colobench.node.secondary import Secondary
from colobench.node.trigger import CheckpointCause
from fake_arbiter import FakeArbiter
from node_arguments import node_arguments

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = 60.0


class Recorder(CheckpointParticipant):
    """Writes down each call, and whether the guest was running then."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.runtime: NodeRuntime | None = None
        self.request: Callable[[CheckpointCause], None] | None = None
        self._changed = threading.Condition()

    def _note(self, call: str) -> None:
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
        if call in ("stop", "seal", "loaded", "alone", "start"):
            assert self.runtime is not None
            assert not self.runtime.guest.machine.running, call

    def wait_for(self, calls: list[str]) -> None:
        """Wait until so many calls have come, and check which."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.calls) >= len(calls), WAIT)
            assert self.calls == calls
            self.calls.clear()

    def begin(self) -> None:
        self._note("begin")

    def lead(self, request_checkpoint: Callable[[CheckpointCause], None]) -> None:
        self.request = request_checkpoint
        self._note("lead")

    def follow(self) -> None:
        self._note("follow")

    def start(self) -> None:
        self._note("start")

    def stop(self) -> None:
        self._note("stop")

    def seal(self) -> None:
        self._note("seal")

    def commit(self) -> None:
        self._note("commit")

    def loaded(self) -> None:
        self._note("loaded")

    def alone(self) -> None:
        self._note("alone")

    def fence(self) -> None:
        self._note("fence")

    def close(self) -> None:
        self._note("close")


class NodeInThread:
    """A node that runs in a thread of the test, with a recorder among its participants."""

    def __init__(self, role: str, directory: Path, variant: str, *own: str) -> None:
        self.recorder = Recorder()
        settings = node_arguments(ram="1M", variant=variant)
        options = parse_options([role, "--qmp", f"{directory}/{role}.qmp", *own, *settings])
        first = Primary if role == "primary" else Secondary
        self.runtime = NodeRuntime(options, first, (self.recorder,))
        self.recorder.runtime = self.runtime
        # Two nodes of one process must not compile at once.
        for _ in load(self.runtime.kernels):
            pass
        self._thread = threading.Thread(target=self.runtime.run, daemon=True)
        self._thread.start()

    def wait_until_ready(self) -> None:
        until(lambda: Path(self.runtime.options.qmp).exists())

    def execute(self, command: str, **arguments: object) -> object:
        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.runtime.side.commands()[command].call(given)

    def end(self) -> None:
        self.runtime.quit()
        self._thread.join()


def until(condition: Callable[[], bool]) -> None:
    """Look again and again until something that another thread does has happened."""
    never, deadline = threading.Event(), time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        never.wait(0.001)


@contextmanager
def pair(directory: Path, variant: str) -> Iterator[tuple[NodeInThread, NodeInThread]]:
    """Pair two nodes, up to the first moment in which both are in COLO and the primary runs."""
    address = f"unix:{directory}/colo"
    secondary = NodeInThread("secondary", directory, variant, "--incoming", address)
    primary = NodeInThread("primary", directory, variant)
    try:
        for node in (secondary, primary):
            node.wait_until_ready()
            capabilities = [{"capability": "x-colo", "state": True}]
            node.execute("migrate-set-capabilities", capabilities=capabilities)
        primary.execute("migrate-set-parameters", x_checkpoint_delay=2**32 - 1)
        primary.execute("migrate", uri=address)
        primary.recorder.wait_for(["begin", "start", "stop", "lead", "seal", "start"])
        ran = ["start"] if variant == "upstream" else []
        secondary.recorder.wait_for(["follow", "begin", "loaded", *ran])
        yield primary, secondary
    finally:
        primary.end()
        secondary.end()
        gc.unfreeze()


VARIANTS = pytest.mark.parametrize("variant", ["v12", "upstream"])


@VARIANTS
def test_checkpoint_stops_seals_commits_and_loads_in_order(tmp_path: Path, variant: str) -> None:
    with pair(tmp_path, variant) as (primary, secondary):
        for ask in (
            lambda: primary.execute("x-colo-checkpoint"),
            lambda: primary.recorder.request(CheckpointCause("overflow")),
        ):
            ask()
            primary.recorder.wait_for(["stop", "seal", "commit", "start"])
            runs = variant == "upstream"
            secondary.recorder.wait_for(["stop", "seal", "loaded", "start"] if runs else ["loaded"])
    assert primary.recorder.calls == ["close"]
    assert secondary.recorder.calls == ["close"]


@VARIANTS
@pytest.mark.parametrize("survivor", ["primary", "secondary"])
def test_failover_makes_the_survivors_participants_be_alone(
    tmp_path: Path, variant: str, survivor: str
) -> None:
    with pair(tmp_path, variant) as nodes:
        alive, dead = nodes if survivor == "primary" else nodes[::-1]
        dead.end()
        alive.execute("x-colo-lost-heartbeat")
        ran = survivor == "primary" or variant == "upstream"
        alive.recorder.wait_for([*["stop"] * ran, "alone", "start"])
        assert alive.runtime.guest.machine.running


@VARIANTS
def test_checkpoint_that_is_torn_is_neither_committed_nor_loaded(
    tmp_path: Path, variant: str
) -> None:
    with pair(tmp_path, variant) as (primary, secondary):
        primary.execute("x-colo-break", at="ram")
        primary.execute("x-colo-checkpoint")
        primary.recorder.wait_for(["stop", "seal"])
        primary.end()
        assert primary.recorder.calls == ["close"]
        secondary.execute("x-colo-lost-heartbeat")
        stopped = ["stop", "seal"] if variant == "upstream" else []
        secondary.recorder.wait_for([*stopped, "alone", "start"])


@VARIANTS
def test_refused_node_fences_its_participants_refuses_to_be_told_and_ends(
    tmp_path: Path, variant: str
) -> None:
    arbiter = FakeArbiter(tmp_path / "arbiter")
    with pair(tmp_path, variant) as (_, secondary):
        secondary.execute(
            "x-colo-heartbeat",
            pairing="pairing",
            node="secondary",
            peer="primary",
            listen=f"unix:{tmp_path}/beats",
            to=f"unix:{tmp_path}/nowhere",
            interval=10,
            limit=100,
            arbiter=f"unix:{tmp_path}/arbiter",
        )
        assert arbiter.asked.wait(WAIT)
        assert secondary.recorder.calls == []
        arbiter.answer(granted=False)
        secondary.recorder.wait_for(["fence", "close"])
        with pytest.raises(LocalError, match="the arbiter has granted primary, not us"):
            secondary.execute("x-colo-lost-heartbeat")
        assert secondary.runtime.exit_code == 1
    arbiter.join()
