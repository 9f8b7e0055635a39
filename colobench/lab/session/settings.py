"""What a session was asked for: checked before anything starts, and told to the nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from colobench.errors import LocalError
from colobench.guest.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_path,
    check_texts,
    check_type,
)
from colobench.guest.configuration import (
    RAM_LIMIT,
    Configuration,
    Nondeterminism,
    block_sizes,
    parse_size,
)
from colobench.guest.programs import parse_program
from colobench.lab.session.services import Heartbeat
from colobench.memory.ram import lay_out, memory_bytes
from colobench.memory.tracker import TRACKERS
from colobench.net.compare_settings import CompareSettings
from colobench.net.output import Output, check_output
from colobench.node.bugs import check_bug
from colobench.node.grants import GrantsFile
from colobench.node.hostfwd import HostForward
from colobench.node.pcap_file import PcapWriter
from colobench.node.stall import check_stall_timeout
from colobench.node.transport import (
    Encoding,
    PageTransport,
    Transport,
    check_channels,
    check_encoding,
    check_layout,
)
from colobench.processes.resource_limits import check_limits_for, usable_memory

#: A delay (ms) that no session lives to see: checkpoints are taken on request alone.
NEVER_MS = 2**32 - 1
#: What the nodes and this process take beside guest RAM: numba is large.
PROCESSES_BYTES = 512 * 2**20
#: More records than any memory holds.
KEEP_LIMIT = 10**9
#: The settings that are on or off, one of a few names, objects of ours, or files.
FLAGS = ("verify", "capture", "report_pages", "spare", "serve_unprotected", "experiment")
CHOICES = {
    "layout": ("separated", "buffered"),
    "encoding": tuple(each.value for each in Encoding),
    "variant": ("v12", "upstream"),
    "tracker": tuple(TRACKERS),
    "output": tuple(each.value for each in Output),
}
OBJECTS = {"transport": Transport, "compare": CompareSettings, "nondeterminism": Nondeterminism}
FILES = ("pcap", "pcap_mirror", "arbiter_state")


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """The parameters of `colobench.lab.session.session.Session`, which describes them.

    Attributes
    ----------
    configuration
        The guest.
    channels
        How many connections there are for pages alone; None if there are none.
    forwards
        What `hostfwd` says.

    Raises
    ------
    LocalError
        If one of them is not what is expected, or does not go with another.
    """

    ram: str | int
    guest: str
    seed: int
    writes_per_tick: int
    working_set: int
    delay: int | None
    transport: Transport
    encoding: str
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
    hostfwd: str | Sequence[str]
    pcap: str | None
    pcap_mirror: str | None
    heartbeat: Heartbeat | None
    nondeterminism: Nondeterminism
    spare: bool
    serve_unprotected: bool
    arbiter_state: str | None
    keep_records: int | None
    bug: str | None
    experiment: bool
    configuration: Configuration = field(init=False)
    channels: int | None = field(init=False)
    forwards: tuple[HostForward, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._check_each()
        pages = self.transport.pages
        self._set("channels", check_channels(pages, self.multifd_channels))
        check_layout(pages, self.layout)
        check_encoding(pages, self.encoding)
        self._check_capture(pages)
        check_output(Output(self.output), self.variant == "upstream")
        self._check_network()
        ram_bytes = _parse_ram(self.ram)
        configuration = Configuration(
            ram_bytes,
            parse_program(self.guest),
            self.seed,
            self.writes_per_tick,
            self.working_set,
            self.nondeterminism,
        )
        _check_memory(ram_bytes, self.layout, self.tracker, self.encoding)
        self._set("ram", str(self.ram))
        self._set("configuration", configuration)

    def _set(self, name: str, value: object) -> None:
        # How a frozen dataclass sets what follows from its fields.
        object.__setattr__(self, name, value)

    def _check_each(self) -> None:
        """Check each setting by itself."""
        for name in FLAGS:
            check_flag(name, getattr(self, name))
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name, expected in OBJECTS.items():
            check_type(name, getattr(self, name), expected)
        if self.heartbeat is not None:
            check_type("heartbeat", self.heartbeat, Heartbeat)
        for name in FILES:
            if getattr(self, name) is not None:
                self._set(name, check_path(name, getattr(self, name)))
        if self.delay is not None:
            check_integer("delay", self.delay, 0, NEVER_MS, unit="ms", or_none=True)
        if self.keep_records is not None:
            check_integer("keep_records", self.keep_records, 1, KEEP_LIMIT, or_none=True)
        check_stall_timeout(self.stall_timeout)
        check_bug(self.bug, self.experiment)

    def _check_network(self) -> None:
        self._set("hostfwd", check_texts("hostfwd", self.hostfwd))
        forwards = tuple(HostForward.parse(rule) for rule in self.hostfwd)
        ports = [str(each.host) for each in forwards if not each.takes_any_port()]
        twice = [port for port in ports if ports.count(port) > 1]
        if twice:
            raise LocalError(
                f"hostfwd: expected each port of the host once, found {twice[0]} twice"
            )
        self._set("forwards", forwards)
        if self.pcap is not None and not forwards:
            raise LocalError("pcap: expected a hostfwd, whose switch writes it, found none")
        if self.pcap is not None and self.pcap == self.pcap_mirror:
            raise LocalError(f"pcap_mirror: expected another file than pcap's, found {self.pcap!r}")
        if self.arbiter_state is not None and self.heartbeat is None:
            raise LocalError("arbiter_state: expected a heartbeat, found none: nobody asks")

    def check_places(self) -> None:
        """Check that the ports and files that are named can be had, as they will be.

        Raises
        ------
        LocalError
            If one of them cannot.
        """
        for forward in self.forwards:
            reserved, _ = forward.reserve()
            reserved.close()
        for name in ("pcap", "pcap_mirror"):
            path = getattr(self, name)
            if path is not None:
                with _named(name):
                    PcapWriter(path).close()
        if self.arbiter_state is not None:
            with _named("arbiter_state"):
                GrantsFile(self.arbiter_state).close()

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
            "encoding": self.encoding,
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
        ram = str(self.configuration.ram_bytes)
        arguments = ["--ram", ram, "--variant", self.variant, "--layout", self.layout]
        arguments += ["--tracker", self.tracker, "--transport", self.transport.pages.value]
        arguments += ["--encoding", self.encoding]
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


def _parse_ram(ram: str | int) -> int:
    if not isinstance(ram, str):
        return check_integer("ram", ram, 1, RAM_LIMIT, expected="a size such as 64M, or in bytes")
    with _named("ram"):
        return parse_size(ram)


@contextlib.contextmanager
def _named(setting: str) -> Iterator[None]:
    """Name the setting in an error that does not."""
    try:
        yield
    except LocalError as error:
        raise LocalError(f"{setting}: {error}") from error


def _check_memory(ram_bytes: int, layout: str, tracker: str, encoding: str) -> None:
    """Refuse a guest with which the machine would run out of memory.

    RAM is there on both sides, the RAM cache on one, and `Session.verify` makes another. A buffered
    checkpoint is on both sides, in the worst case all of RAM. So is what the tracker `shadow` has.
    With XBZRLE the primary has a cache of no more than RAM.
    """
    copies = 4 + 2 * (layout == "buffered") + 2 * (tracker == "shadow") + (encoding == "xbzrle")
    check_limits_for(ram_bytes, memory_bytes(lay_out(block_sizes(ram_bytes))), copies)
    usable = usable_memory()
    limit = max(0.0, usable - PROCESSES_BYTES) / copies
    if ram_bytes > limit:
        raise LocalError(
            f"ram: expected at most {limit / 2**20:.0f} MiB where {usable / 2**20:.0f} MiB of "
            f"memory may be used, found {ram_bytes >> 20} MiB"
        )
