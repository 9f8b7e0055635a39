"""What a session was asked for: checked before anything starts, and told to the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from colobench.errors import LocalError
from colobench.guest.configuration import (
    Configuration,
    Nondeterminism,
    parse_program,
    parse_size,
)
from colobench.lab.limits import usable_memory
from colobench.lab.outside import Heartbeat
from colobench.memory.tracker import check_tracker
from colobench.net.compare_settings import CompareSettings
from colobench.net.output import Output, check_output
from colobench.node.bugs import check_bug
from colobench.node.transport import PageTransport, Transport, check_channels, check_layout

#: A delay (ms) that no session lives to see: checkpoints are taken on request alone.
NEVER_MS = 2**32 - 1
#: What the nodes and this process take beside guest RAM: numba is large.
PROCESSES_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """The parameters of `colobench.lab.session.Session`, which describes them.

    Attributes
    ----------
    configuration
        The guest.
    channels
        How many connections there are for pages alone; None if there are none.

    Raises
    ------
    LocalError
        If one of them is not what is expected, or does not go with another.
    """

    ram: str
    guest: str
    seed: int
    writes_per_tick: int
    working_set: int
    delay: int | None
    transport: Transport
    multifd_channels: int | None
    layout: str
    variant: str
    verify: bool
    capture: bool
    report_pages: bool
    tracker: str
    stall_timeout: float
    output: str
    compare: CompareSettings
    hostfwd: Sequence[str]
    pcap: str | None
    pcap_mirror: str | None
    heartbeat: Heartbeat | None
    nondeterminism: Nondeterminism
    spare: bool
    bug: str | None
    experiment: bool
    configuration: Configuration = field(init=False)
    channels: int | None = field(init=False)

    def __post_init__(self) -> None:
        check_bug(self.bug, self.experiment)
        pages = self.transport.pages
        channels = check_channels(pages, self.multifd_channels)
        _check_choice("layout", self.layout, ("separated", "buffered"))
        _check_choice("variant", self.variant, ("v12", "upstream"))
        _check_delay(self.delay)
        check_layout(pages, self.layout)
        self._check_capture(pages)
        check_tracker(self.tracker)
        _check_choice("output", self.output, ("buffer", "compare"))
        check_output(Output(self.output), self.variant == "upstream")
        configuration = Configuration(
            parse_size(self.ram),
            parse_program(self.guest),
            self.seed,
            self.writes_per_tick,
            self.working_set,
            self.nondeterminism,
        )
        _check_memory(configuration.ram_bytes, self.layout, self.tracker)
        # How a frozen dataclass sets what follows from its fields.
        object.__setattr__(self, "configuration", configuration)
        object.__setattr__(self, "channels", channels)

    def _check_capture(self, pages: PageTransport) -> None:
        if self.capture and pages is not PageTransport.STREAM:
            raise LocalError(
                f"capture: expected transport stream, whose bytes are all on one connection, "
                f"found {pages.value}"
            )
        if self.pcap_mirror is not None and self.output != "compare":
            raise LocalError("pcap_mirror: expected output compare, found buffer: nothing is there")
        if self.compare != CompareSettings() and self.output != "compare":
            raise LocalError("compare: expected output compare, found buffer: nothing is compared")

    def by_name(self) -> dict[str, Any]:
        """Give what a report says of a session."""
        return {
            "ram": self.ram,
            "guest": self.guest,
            "seed": self.seed,
            "writes_per_tick": self.writes_per_tick,
            "working_set": self.working_set,
            "delay": self.delay,
            "transport": str(self.transport),
            "multifd_channels": self.channels,
            "layout": self.layout,
            "variant": self.variant,
            "tracker": self.tracker,
            "verify": self.verify,
            "stall_timeout": self.stall_timeout,
            "output": self.output,
            "quirks": list(self.compare.quirks),
            "bug": self.bug,
            "heartbeat_limit_ms": self.heartbeat.limit_ms if self.heartbeat else None,
            **asdict(self.nondeterminism),
        }

    def node_arguments(self) -> list[str]:
        """Give what the command lines of both nodes say."""
        arguments = ["--ram", self.ram, "--variant", self.variant, "--layout", self.layout]
        arguments += ["--tracker", self.tracker, "--transport", self.transport.pages.value]
        arguments += ["--output", self.output, "--stall-timeout", str(self.stall_timeout)]
        arguments += self.compare.arguments() if self.output == "compare" else []
        arguments += ["--bug", self.bug, "--experiment"] if self.bug else []
        arguments += ["--multifd-channels", str(self.channels)] if self.channels else []
        arguments += [] if self.verify else ["--no-verify"]
        return arguments

    def guest_arguments(self) -> list[str]:
        """Give what a primary's says of the guest; a secondary gets its own by migration."""
        dials = self.nondeterminism
        return [
            *("--guest", self.guest, "--seed", str(self.seed)),
            *("--writes-per-tick", str(self.writes_per_tick)),
            *("--working-set", str(self.working_set)),
            *("--clock-us", str(dials.clock_us), "--jitter-us", str(dials.jitter_us)),
            *("--shuffle", str(dials.shuffle)),
        ]


def _check_choice(what: str, found: str, choices: tuple[str, ...]) -> None:
    if found not in choices:
        raise LocalError(f"{what}: expected {' or '.join(choices)}, found {found!r}")


def _check_delay(delay: int | None) -> None:
    if delay is not None and (not isinstance(delay, int) or not 0 <= delay <= NEVER_MS):
        raise LocalError(f"delay: expected 0 to {NEVER_MS} ms or None, found {delay!r}")


def _check_memory(ram_bytes: int, layout: str, tracker: str) -> None:
    """Refuse a guest with which the machine would run out of memory.

    RAM is there on both sides, the RAM cache on one, and `Session.verify` makes another. A buffered
    checkpoint is on both sides, in the worst case all of RAM. So is what the tracker `shadow` has.
    """
    copies = 4 + 2 * (layout == "buffered") + 2 * (tracker == "shadow")
    usable = usable_memory()
    limit = max(0.0, usable - PROCESSES_BYTES) / copies
    if ram_bytes > limit:
        raise LocalError(
            f"RAM: expected at most {limit / 2**20:.0f} MiB where {usable / 2**20:.0f} MiB of "
            f"memory may be used, found {ram_bytes / 2**20:.0f} MiB"
        )
