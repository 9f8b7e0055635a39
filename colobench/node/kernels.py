"""Modules with the kernels that a node needs for its settings, and their compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from colobench.guest.programs import Program
from colobench.kernels.note import is_noted, note
from colobench.settings.checkpoint import Capture
from colobench.settings.settings import Settings
from colobench.settings.transport import Encoding, PageTransport, usable_cores

if TYPE_CHECKING:
    from colobench.kernels.warmup import Step

#: Modules that all settings need: the host's side of a CPU; RAM between guest, cache and socket.
_ALWAYS = (
    "colobench.guest.numba.command_cpu",
    *(
        f"colobench.kernels.{name}"
        for name in ("bitmap", "digest", "pages", "page_records", "socket_io")
    ),
)
_PACKETS, _TRACKING = "colobench.kernels.multifd", "colobench.kernels.tracking"
_COMPRESSED_PACKETS = "colobench.kernels.compressed_packets"
#: Kernels of experiments and of the reader of streams, which no node runs.
_OF_NO_NODE = (
    "colobench.kernels.bitmap_walks",
    "colobench.lab.checker.append_only_log",
)
#: Trackers that have no kernels of their own.
_WITHOUT_KERNELS = {"marked", "kvm"}
_PAGE_HASHES = "colobench.kernels.page_hashes"
_COPY_ON_WRITE = "colobench.kernels.copy_on_write"
_XBZRLE = ("colobench.kernels.xbzrle", "colobench.kernels.xbzrle_records")
_OF_ENCODINGS = {Encoding.XBZRLE: _XBZRLE, Encoding.DIVERGENT: (_PAGE_HASHES,)}


def kernel_modules(
    programs: Iterable[Program],
    transport: PageTransport,
    trackers: Iterable[str],
    encoding: Encoding = Encoding.NONE,
    capture: Capture = Capture.STOP_AND_SEND,
) -> tuple[str, ...]:
    """Return the modules with the kernels of guests and of values of the axes.

    The modules with the longest compilation come first.
    """
    of_guests = (module for program in programs for module in program.modules)
    of_transport: tuple[str, ...] = () if transport is PageTransport.STREAM else (_PACKETS,)
    if encoding.compression is not None and transport is PageTransport.MULTIFD:
        of_transport = (_COMPRESSED_PACKETS,)
    of_trackers = () if set(trackers) <= _WITHOUT_KERNELS else (_TRACKING,)
    of_encoding = _OF_ENCODINGS.get(encoding, ())
    of_capture = (_COPY_ON_WRITE,) if capture.freezes else ()
    return (*of_guests, *of_transport, *_ALWAYS, *of_trackers, *of_encoding, *of_capture)


def modules_for(settings: Settings, with_guest: bool = True) -> tuple[str, ...]:
    """Name the modules with the kernels that a node with these settings runs."""
    programs, checkpoint = [settings.guest.program] if with_guest else [], settings.checkpoint
    pages, trackers = checkpoint.transport.pages, [checkpoint.tracker]
    return kernel_modules(programs, pages, trackers, checkpoint.encoding, checkpoint.capture)


def all_kernel_modules() -> tuple[str, ...]:
    """Return all modules with kernels, those with the longest compilation first."""
    programs = sorted(Program, key=lambda program: -len(program.modules))
    of_guests = dict.fromkeys(module for program in programs for module in program.modules)
    of_axes = (_TRACKING, _PAGE_HASHES, *_XBZRLE, _COPY_ON_WRITE)
    return (*of_guests, _PACKETS, _COMPRESSED_PACKETS, *_ALWAYS, *of_axes, *_OF_NO_NODE)


def compile_kernels(modules: Sequence[str], progress: Callable[[Step], None]) -> None:
    """Compile the kernels of modules that are not in the cache, on all usable cores.

    Parameters
    ----------
    modules
        Names of the modules, those with the longest compilation first.
    progress
        Function that is called when kernels become ready.
    """
    if is_noted(modules):
        return
    from colobench.kernels.warmup import compile_missing  # It takes numba.

    for step in compile_missing(modules, usable_cores()):
        progress(step)
    note(modules)
