"""Settings of a torture run: clients, checker, and the settings of its pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import check_integer
from colobench.fields.kinds import Integer, Number, Size
from colobench.fields.part import Part, part, setting
from colobench.fields.sizes import write_size
from colobench.guest.programs import Program
from colobench.lab.checker.linearizability import Effort
from colobench.lab.session.serving import serving_settings
from colobench.lab.torture.kill_plan import Kill
from colobench.settings.checkpoint import Capture
from colobench.settings.heartbeat import HeartbeatSettings
from colobench.settings.settings import Settings
from colobench.strategy.trigger import NEVER_MS

#: The settings of a pair that each kill, or the way of output, decides on.
DECIDED = ("transport", "multifd_channels", "output", "variant", "delay")
#: Milliseconds between checkpoints where nobody is killed.
CLEAN_DELAY_MS = 5
#: Least milliseconds between checkpoints where passes come between them, also on a busy machine.
PASSES_DELAY_MS = 100
USUAL_PAIR = serving_settings(heartbeat=HeartbeatSettings(limit_ms=200), spare=True)


@dataclass(frozen=True, slots=True)
class TortureSettings(Part):
    """Settings that all kills of a run have in common.

    Attributes
    ----------
    pair
        Settings of its pairs, without those of `DECIDED`.
    """

    title = "torture"

    clients: int = setting(Integer(1, 10**6), 8, "clients that send requests at the same time")
    buffer_delay_ms: int = setting(
        Integer(0, NEVER_MS, "ms"), 20, "time between checkpoints if output is buffered"
    )
    compare_delay_ms: int = setting(
        Integer(0, NEVER_MS, "ms"), 500, "longest time between checkpoints if output is compared"
    )
    patience: float = setting(
        Number(0.001, 1e6), 20.0, "time after which an answer or a takeover counts as missing"
    )
    checker_seconds: int = setting(
        Integer(1, 10**9, "s"), 60, "time limit for the check of a history"
    )
    checker_memory: int = setting(
        Size(1, 2**52), 512 << 20, "memory limit for the check of one key of a history"
    )
    pair: Settings = part(Settings, default=USUAL_PAIR)

    def own_json(self) -> dict[str, Any]:
        """Give the settings that are not those of a pair, as JSON has them."""
        of_pair = self.pair.values()
        return {name: each for name, each in self.as_json().items() if name not in of_pair}

    def limit_ms(self) -> int:
        """Give the heartbeat's limit, in milliseconds."""
        assert self.pair.heartbeat is not None
        return self.pair.heartbeat.limit_ms

    def complete(self) -> None:
        """Check that the nodes notice a kill by themselves, and that clients can be served."""
        if self.pair.heartbeat is None:
            raise LocalError("heartbeat: expected one, by which a kill is noticed, found none")
        program = self.pair.guest.program
        if not self.serves and not program.needs_disk:
            raise LocalError(
                "guest: expected kv, which serves clients, or a program that writes sectors, "
                f"found {program.label}"
            )
        if self.serves and not self.pair.network.hostfwd:
            raise LocalError("hostfwd: expected one, by which clients come, found none")

    @property
    def serves(self) -> bool:
        """Whether the guest serves clients; otherwise it writes sectors to its disks."""
        return self.pair.guest.program is Program.KV

    def effort(self) -> Effort:
        """Give what the checker may take for the history of a kill."""
        return Effort(self.checker_seconds, self.checker_memory)

    def of_kill(self, kill: Kill) -> Settings:
        """Give the settings of a pair that suffers a kill."""
        found = self.of_output(kill.output, transport=kill.transport)
        # After two kills nobody joins.
        return found if kill.second is None else found.override(spare=False)

    def of_result(self, kill: Kill) -> dict[str, Any]:
        """Give the settings that a kill's result tells, by name, as JSON has them."""
        return {**self.of_kill(kill).as_json(), **self.own_json()}

    def of_output(
        self, output: str, *, transport: str = "stream", delay: int | None = None
    ) -> Settings:
        """Give the settings of a pair whose output is buffered, or compared."""
        if delay is None:
            delay = self.compare_delay_ms if output == "compare" else self.buffer_delay_ms
        if self.pair.checkpoint.capture is Capture.GAP_PRECOPY:
            delay = max(delay, PASSES_DELAY_MS)
        elif self.pair.checkpoint.capture is Capture.TWO_EPOCHS:
            delay = 0
        changes: dict[str, Any] = {"transport": transport, "multifd_channels": None}
        changes |= {"output": output, "variant": None}
        if not self.pair.checkpoint.has_own_trigger():
            changes["delay"] = delay
        return self.pair.override(**changes)

    def go_with(self, output: str, transport: str) -> bool:
        """Say whether a pair with this output and transport is possible."""
        try:
            self.of_output(output, transport=transport)
        except LocalError:
            return False
        return True

    def without_kills(self, output: str) -> Settings:
        """Give the settings of a pair that nobody kills; its transport is that of `pair`."""
        transport = str(self.pair.checkpoint.transport)
        return self.of_output(output, transport=transport, delay=CLEAN_DELAY_MS)

    def check_room(self) -> None:
        """Check that the guest has room for the clients, and for one more that reads all keys.

        Raises
        ------
        LocalError
            If it has not.
        """
        if not self.serves:
            return
        # These bring numba.
        from colobench.guest.rings import BYTES_PER_CONNECTION, MAX_CONNECTIONS

        ram_bytes = self.pair.guest.ram_bytes
        most = min(MAX_CONNECTIONS, ram_bytes // BYTES_PER_CONNECTION) - 1
        room = f"at most {most} of a guest with {write_size(ram_bytes)} of RAM"
        check_integer("clients", self.clients, 1, most, expected=room)
