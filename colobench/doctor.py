"""Checks of the machine by trying each feature's effect: `colobench doctor`."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from colobench.errors import LocalError
from colobench.memory.kvm import API_VERSION, require_kvm
from colobench.memory.tracker import TrackerUnavailable, tracker_class
from colobench.memory.tracker_names import ALL_TRACKERS
from colobench.processes.resource_limits import (
    PROCESS_ADDRESSES,
    address_limit,
    check_limits_of_processes,
    cpu_quota,
    file_limit,
    memory_limit,
    usable_memory,
)
from colobench.text_table import align
from colobench.wire.compression import METHODS, compressor, decompressor

#: Bytes that `colobench demo` needs with its defaults: three processes with numba, RAM, RAM cache.
DEMO_BYTES = 1 << 30
#: Bytes of the demo's guest RAM, and the most mappings of it in one process.
DEMO_RAM_BYTES, DEMO_COPIES = 64 << 20, 4
#: Time limit in seconds for a program's answer.
PROGRAM_TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes
    ----------
    name
        Feature of the machine.
    available
        True if it works here, False if it does not, None if that could not be tested.
    detail
        One line: the amount or version found, or why the feature is not available.
    """

    name: str
    available: bool | None
    detail: str


class MissingPart(LocalError):
    """A feature of the machine is missing or broken."""


Check = Callable[[], Finding]

#: Every check by the name of its finding, in the order of the report.
CHECKS: dict[str, Check] = {}


def check(name: str, *, kernels: bool = False) -> Callable[[Callable[[], str]], Check]:
    """Turn a function that returns a detail, or raises, into a check that never raises.

    Parameters
    ----------
    name
        Feature that is checked.
    kernels
        True if the check runs kernels. Then the limits of processes are checked first, because
        LLVM aborts the process if address space runs out.
    """

    def decorate(probe: Callable[[], str]) -> Check:
        @functools.wraps(probe)
        def checked() -> Finding:
            try:
                if kernels:
                    check_limits_of_processes()
                return Finding(name, True, probe())
            except (LocalError, OSError, subprocess.SubprocessError) as error:
                return Finding(name, False, str(error))
            except Exception as error:
                return Finding(name, None, f"could not be tested: {error!r}")

        CHECKS[name] = checked
        return checked

    return decorate


def examine(announce: Callable[[str], None] = lambda name: None) -> Iterator[Finding]:
    """Run every check, which takes a few seconds in all.

    Parameters
    ----------
    announce
        Called with the name of each check before it runs.

    Yields
    ------
    Finding
        Result of each check, as soon as the check is done.
    """
    for name, checked in CHECKS.items():
        announce(name)
        yield checked()


def render(findings: Iterable[Finding]) -> str:
    """Format findings as text, one line each."""
    words = {True: "yes", False: "no", None: "?"}
    rows = [(finding.name, words[finding.available], finding.detail) for finding in findings]
    return "\n".join(align(rows))


def render_json(findings: Iterable[Finding]) -> str:
    """Format findings as a JSON object: name → {"available", "detail"}."""
    objects = {finding.name: asdict(finding) for finding in findings}
    for value in objects.values():
        del value["name"]
    return json.dumps(objects, indent=2)


# -- Cores and memory --------------------------------------------------------------------------


def _hash_rate(threads: int, seconds: float) -> float:
    """Measure the blocks per second that threads hash in parallel (hashlib releases the GIL)."""
    block = bytes(1 << 18)
    counts = [0] * threads

    def work(index: int) -> None:
        while time.perf_counter() < end:
            hashlib.sha256(block).digest()
            counts[index] += 1

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    begin = time.perf_counter()
    end = begin + seconds
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - begin)


@check("cores")
def check_cores() -> str:
    """Count the usable cores, and measure the speedup of two threads."""
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    # Longer than a cgroup's period of 0.1 s: a quota has no effect within one period.
    gain = _hash_rate(2, 0.25) / _hash_rate(1, 0.25)
    granted = "no cgroup quota" if math.isinf(quota) else f"cgroup quota {quota:g}"
    return (
        f"{min(allowed, quota):g} usable ({os.cpu_count()} online, {allowed} allowed, {granted}); "
        f"two threads do {gain:.1f} times the work of one"
    )


@check("memory")
def check_memory() -> str:
    """Compare the usable memory with the demo's need."""
    physical = psutil.virtual_memory().total
    limit = memory_limit()
    usable = usable_memory()
    granted = "no cgroup limit" if math.isinf(limit) else f"cgroup limit {limit / 2**30:.1f} GiB"
    detail = f"{usable / 2**30:.1f} GiB usable ({physical / 2**30:.1f} GiB physical, {granted})"
    addresses, length = address_limit(), file_limit()
    if addresses < math.inf:
        detail += f"; {addresses / 2**30:.2f} GiB of addresses a process (ulimit -v)"
    if length < math.inf:
        detail += f"; {length / 2**20:.1f} MiB of RAM at most (ulimit -f)"
    if usable < DEMO_BYTES:
        raise MissingPart(f"{detail}; the demo takes {DEMO_BYTES / 2**30:.1f} GiB")
    needed = PROCESS_ADDRESSES + DEMO_COPIES * DEMO_RAM_BYTES
    if addresses < needed:
        raise MissingPart(f"{detail}; the demo takes {needed / 2**30:.2f} GiB of addresses")
    if length <= DEMO_RAM_BYTES:
        raise MissingPart(f"{detail}; the demo takes {DEMO_RAM_BYTES / 2**20:.0f} MiB of RAM")
    return detail


# -- What the kernel offers --------------------------------------------------------------------


@check("KVM")
def check_kvm() -> str:
    """Create a virtual machine and close it again."""
    require_kvm(())
    return f"created a VM (API version {API_VERSION})"


@check("guest kvm", kernels=True)
def check_kvm_guest() -> str:
    """Boot a guest of KVM."""
    from colobench.guest.kvm.trial import try_guest
    from colobench.memory.kvm import KVMUnavailable

    try:
        return try_guest()
    except KVMUnavailable as error:
        raise MissingPart(str(error)) from error


def _try_tracker(name: str) -> str:
    """Try a tracker on a small RAM."""
    try:
        return tracker_class(name).try_effect()
    except TrackerUnavailable as error:
        raise MissingPart(str(error)) from error


@check("zstd and lz4")
def check_compression() -> str:
    """Compress a page with the library of each encoding, and decompress it again."""
    page = bytes(range(256)) * 16
    for method in METHODS:
        compressed = compressor(method, 1).compress(memoryview(page))
        found = decompressor(method).decompress(compressed, len(page))
        if found != page:
            raise MissingPart(f"{method}: expected the page that was compressed, found another")
    return f"a page compressed and decompressed with {' and '.join(METHODS)}"


@check("userfaultfd + PAGEMAP_SCAN", kernels=True)
def check_userfaultfd() -> str:
    """Try the tracker `userfault` with pages written by the process and by the kernel."""
    return _try_tracker("userfault")


for _name in ALL_TRACKERS:
    if _name != "userfault":
        check(f"tracker {_name}", kernels=True)(functools.partial(_try_tracker, _name))


@check("recording of programs")
def check_recording() -> str:
    """Record a program that writes known pages."""
    from colobench.lab.traces.trial import try_recording

    return try_recording()


#: AVX-512F code: broadcasts the first argument to the 16 lanes of zmm0, stores them at the second.
AVX512_CODE = "62f27d487cc7 62f17e487f06 c5f877 c3"
AVX512_PROGRAM = f"""
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex({AVX512_CODE!r}))
lanes = (ctypes.c_uint32 * 16)()
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_void_p)(address)(0xC0105EED, lanes)
assert list(lanes) == [0xC0105EED] * 16, list(lanes)
"""


@check("AVX-512")
def check_avx512() -> str:
    """Execute an AVX-512 instruction in a process of its own, which SIGILL may end."""
    if platform.machine() != "x86_64":
        raise MissingPart(f"a {platform.machine()} processor has none")
    done = subprocess.run(
        [sys.executable, "-I", "-c", AVX512_PROGRAM],
        capture_output=True,
        text=True,
        timeout=PROGRAM_TIMEOUT,
    )
    if done.returncode == -signal.SIGILL:
        raise MissingPart("illegal instruction: the processor or the hypervisor lacks it")
    if done.returncode:
        raise RuntimeError(_last_line(done.stderr) or f"exit status {done.returncode}")
    words = itertools.chain.from_iterable(
        line.split() for line in Path("/proc/cpuinfo").read_text().splitlines()
    )
    extensions = sorted(
        {word.removeprefix("avx512").lstrip("_") for word in words if "avx512" in word}
    )
    target = os.environ.get("NUMBA_CPU_NAME", "this processor")
    return f"executed ({' '.join(extensions)}); kernels are compiled for {target}"


# -- Programs ----------------------------------------------------------------------------------


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def _find(*names: str) -> str:
    """Return the path of the first of these programs that is installed."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    raise MissingPart(f"no {' or '.join(names)} on PATH")


def _output(command: list[str]) -> str:
    """Run a program in a process group of its own, kill the group, and return the output."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, complaints = process.communicate(timeout=PROGRAM_TIMEOUT)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise MissingPart(
            f"{command[0]} ended with status {process.returncode}: {_last_line(complaints)}"
        )
    return output


@check("QEMU")
def check_qemu() -> str:
    """Run QEMU, and read its version."""
    path = _find("qemu-system-x86_64")
    output = _output([path, "--version"])
    if not output.startswith("QEMU emulator version "):
        raise MissingPart(f"{path}: expected 'QEMU emulator version …', found {output[:60]!r}")
    return f"{path}, {output.splitlines()[0].removeprefix('QEMU emulator ')}"


#: Programs of others that read and write disks by NBD, with the package of each in Debian.
NBD_PROGRAMS = {
    "nbdinfo": "libnbd-bin",
    "nbdcopy": "libnbd-bin",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
}


@check("NBD programs")
def check_nbd_programs() -> str:
    """Run each of the programs that speak NBD, and read their versions."""
    missing = {package for name, package in NBD_PROGRAMS.items() if shutil.which(name) is None}
    if missing:
        raise MissingPart(f"expected those of Debian's {' and '.join(sorted(missing))}")
    versions = [_output([_find(name), "--version"]).splitlines()[0] for name in NBD_PROGRAMS]
    return f"{versions[0]}; {versions[2]}"


#: Options with which Chromium runs without a window, also as root and with a small /dev/shm.
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
)


@check("Chromium")
def check_chromium() -> str:
    """Let Chromium, without a window, run a script in a page and print the page."""
    path = _find("chromium", "chromium-browser", "google-chrome")
    script = "<script>document.write(6*7)</script>"
    profile = tempfile.mkdtemp(prefix="colobench-doctor-")
    try:
        page = _output(
            [
                path,
                *CHROMIUM_FLAGS,
                f"--user-data-dir={profile}",
                "--dump-dom",
                f"data:text/html,{script}",
            ]
        )
    finally:
        shutil.rmtree(profile, ignore_errors=True)
    if "<body>42</body>" not in page:
        raise MissingPart(f"{path}: expected a page that says 42, found {page[:60]!r}")
    return f"{path} ran a page's script"


#: Bytes written on trial: more than the largest kernel's.
KERNEL_BYTES = 1 << 20


@check("numba cache", kernels=True)
def check_numba_cache() -> str:
    """Look for every kernel in its cache, and try whether the cache can be written."""
    from colobench.kernels.cache import CacheState
    from colobench.kernels.cache_directory import PREFIX, REMEDY, can_write
    from colobench.kernels.warmup import directory, kernels_in, state
    from colobench.node.kernels import all_kernel_modules

    kernels = kernels_in(all_kernel_modules())
    directories = sorted(set(filter(None, map(directory, kernels))))
    found = [state(kernel) for kernel in kernels]
    ready = sum(each is CacheState.READY for each, _ in found)
    damaged = [file.name for _, file in found if file is not None]
    private = [each for each in directories if PREFIX in str(each)]
    if private or not directories:
        raise MissingPart(f"numba has no writable cache, so each run compiles kernels: {REMEDY}")
    # In numba's usual cache each package of kernels has a directory of its own.
    several = len(directories) > 1
    place = f"below {os.path.commonpath(directories)}" if several else f"in {directories[0]}"
    detail = f"{ready} of {len(found)} kernels are {place}"
    if damaged:
        detail += f"; damaged, and compiled anew when needed: {', '.join(damaged)}"
    full = [str(each) for each in directories if not can_write(each, KERNEL_BYTES)]
    if full:
        raise MissingPart(f"{detail}; nothing can be written to {' and '.join(full)}: {REMEDY}")
    if ready < len(found) and not damaged:
        detail += "; colobench warmup compiles the others"
    return detail


@check("kernel compiler", kernels=True)
def check_kernel_compiler() -> str:
    """Compile a kernel of two parts on trial."""
    from colobench.kernels.jit import obstacle

    reason = obstacle()
    if reason is not None:
        raise MissingPart(f"compiling takes twice as long in numba's own way: {reason}")
    return "compiles parts of kernels once"
