"""Checks that this machine has what settings ask for: memory, ports and files."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from colobench.errors import LocalError
from colobench.memory.ram import PAGE_SIZE, lay_out, memory_bytes
from colobench.memory.trace_file import file_digest
from colobench.node.grants import GrantsFile
from colobench.node.hostfwd import HostForward
from colobench.node.pcap_file import PcapWriter
from colobench.processes.resource_limits import check_limits_for, usable_memory
from colobench.settings.checkpoint import Capture, Layout
from colobench.settings.settings import Settings
from colobench.settings.transport import Encoding
from colobench.wire.compression import library

#: Memory of the nodes and this process beside guest RAM: numba is large.
PROCESSES_BYTES = 512 * 2**20
#: Memory as large as RAM that the primary may need for captures that send a copy.
_COPIES = {Capture.COPY_THEN_SEND: 1, Capture.COPY_ON_WRITE: 2, Capture.TWO_EPOCHS: 4}


def check_memory(settings: Settings) -> None:
    """Check that the machine has enough memory for a guest.

    There is RAM on both sides, a RAM cache on one, and another copy for `Session.verify`. A
    buffered checkpoint is on both sides, in the worst case all of RAM; so is the copy of the
    tracker `shadow`.
    With XBZRLE the primary has a cache of no more than RAM. A capture that sends a copy has memory
    as large as RAM for each open checkpoint, and as much for pages that the guest copies aside.

    Raises
    ------
    LocalError
        If there is not enough memory for that.
    """
    ram_bytes, checkpoint = settings.guest.ram_bytes, settings.checkpoint
    copies = 4 + 2 * (checkpoint.layout is Layout.BUFFERED) + 2 * (checkpoint.tracker == "shadow")
    copies += checkpoint.encoding is Encoding.XBZRLE
    copies += _COPIES.get(checkpoint.capture, 0)
    check_limits_for(ram_bytes, memory_bytes(lay_out(settings.guest.block_sizes())), copies)
    usable = usable_memory()
    limit = max(0.0, usable - PROCESSES_BYTES) / copies
    if ram_bytes > limit:
        raise LocalError(
            f"ram: expected at most {limit / 2**20:.0f} MiB where {usable / 2**20:.0f} MiB of "
            f"memory may be used, found {ram_bytes >> 20} MiB"
        )


def check_libraries(settings: Settings) -> None:
    """Check that the library of the encoding is installed.

    Raises
    ------
    LocalError
        If it is not; the message says how to get it.
    """
    compression = settings.checkpoint.encoding.compression
    if compression is not None:
        library(compression)


def identify_trace(settings: Settings) -> Settings:
    """Give settings with the SHA-256 of the trace that the guest replays, if there is one.

    Raises
    ------
    LocalError
        If its file cannot be read, is another one than the settings say, or is no trace that fits
        into RAM.
    """
    guest = settings.guest
    if guest.trace is None:
        return settings
    found = file_digest(guest.trace)
    _check_trace(guest.trace, guest.trace_sha256, found, guest.ram_bytes, guest.working_set)
    return settings.override(trace_sha256=found)


@functools.lru_cache(maxsize=100)
def _check_trace(
    path: str, sha256: str | None, found: str, ram_bytes: int, working_set: int
) -> None:
    """Check the trace in a file whose SHA-256 was found; many cells of a comparison have the same.

    Raises
    ------
    LocalError
        See `identify_trace`.
    """
    from colobench.guest.replay_table import encode_table, load_trace  # It takes numba.

    encode_table(load_trace(path, sha256 or found), ram_bytes // PAGE_SIZE, working_set)


def check_places(settings: Settings) -> None:
    """Check that the ports and files that are named can be had, as they will be.

    Raises
    ------
    LocalError
        If one of them cannot.
    """
    for rule in settings.network.hostfwd:
        reserved, _ = HostForward.parse(rule).reserve()
        reserved.close()
    for name in ("pcap", "pcap_mirror"):
        path = getattr(settings.network, name)
        if path is not None:
            with _named(name):
                PcapWriter(path).close()
    if settings.experiment.arbiter_state is not None:
        with _named("arbiter_state"):
            GrantsFile(settings.experiment.arbiter_state).close()


@contextlib.contextmanager
def _named(setting: str) -> Iterator[None]:
    """Name the setting in an error that does not."""
    try:
        yield
    except LocalError as error:
        raise LocalError(f"{setting}: {error}") from error
