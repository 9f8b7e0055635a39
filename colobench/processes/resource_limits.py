"""Limits of this process: the cores and memory of its cgroups, and its resource limits."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

from colobench.errors import LocalError

#: Address space of a process with numba and a guest without RAM (1.2 GiB measured), and a margin.
PROCESS_ADDRESSES = 1600 * 2**20
#: Open descriptors of a node, or of the process that starts it (20 measured), and a margin.
PROCESS_DESCRIPTORS = 32


def _cgroup_directories(controller: str, root: Path) -> Iterator[Path]:
    """Find the cgroups (v1 and v2) that this process is in, from its own up to the mount's root."""
    membership = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, cgroup = line.split(":", 2)
        membership.update(dict.fromkeys(controllers.split(","), cgroup))
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mounted, _, filesystem = line.partition(" - ")
        mount_root, mount_point = mounted.split()[3:5]
        kind, options = filesystem.split()[0], filesystem.split()[-1].split(",")
        if kind == "cgroup2":
            own = membership.get("", "/")
        elif kind == "cgroup" and controller in options:
            own = membership.get(controller, "/")
        else:
            continue
        top = directory = root / mount_point.lstrip("/")
        # A container without a cgroup namespace names its cgroup by a path outside of its mount.
        if PurePosixPath(own).is_relative_to(mount_root) and ".." not in own:
            directory = top / PurePosixPath(own).relative_to(mount_root)
        for path in (directory, *directory.parents):
            yield path
            if path == top:
                break


def _read(path: Path) -> str:
    """Return the contents of a file; "" if it is missing or unreadable, as in some sandboxes."""
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def cpu_quota(root: Path = Path("/")) -> float:
    """Give the number of cores that the cgroups of this process grant it.

    Parameters
    ----------
    root
        Directory that ``proc`` and ``sys`` are in.

    Returns
    -------
    float
        Cores (1.5 is one and a half), infinite without a limit.

    Notes
    -----
    The tightest of ``cpu.max`` (v2) and ``cpu.cfs_quota_us`` (v1) on the way up the hierarchy; see
    the Linux kernel's Documentation/admin-guide/cgroup-v2.rst.
    """
    quotas = [math.inf]
    for directory in _cgroup_directories("cpu", root):
        text = _read(directory / "cpu.max")
        if not text:
            text = _read(directory / "cpu.cfs_quota_us") + _read(directory / "cpu.cfs_period_us")
        match text.split():
            case [quota, period] if quota.isdigit():
                quotas.append(int(quota) / int(period))
    return min(quotas)


def memory_limit(root: Path = Path("/")) -> float:
    """Give the bytes of memory that the cgroups of this process grant it.

    Parameters
    ----------
    root
        Directory that ``proc`` and ``sys`` are in.

    Returns
    -------
    float
        Bytes, infinite without a limit: the tightest of ``memory.max`` (v2) and
        ``memory.limit_in_bytes`` (v1) on the way up the hierarchy.
    """
    limits = [math.inf]
    for directory in _cgroup_directories("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(directory / name).strip()
            # v1 says "no limit" by a number just below 2⁶³.
            if text.isdigit() and int(text) < 1 << 62:
                limits.append(int(text))
    return min(limits)


def usable_memory() -> float:
    """Give the bytes of memory that this process may use: the machine's, or its cgroups' limit."""
    return min(float(psutil.virtual_memory().total), memory_limit())


def free_memory() -> int:
    """Give the bytes of memory that may still be had, none beyond the cgroups' limit."""
    return int(min(float(psutil.virtual_memory().available), memory_limit()))


def _soft_limit(which: int) -> float:
    limit, _ = resource.getrlimit(which)
    return math.inf if limit == resource.RLIM_INFINITY else float(limit)


def address_limit() -> float:
    """Give the bytes of addresses that each process may have (``ulimit -v``), or infinity."""
    return _soft_limit(resource.RLIMIT_AS)


def file_limit() -> float:
    """Give the bytes that a file, or a memfd, may have (``ulimit -f``), or infinity."""
    return _soft_limit(resource.RLIMIT_FSIZE)


def check_limits_of_processes() -> None:
    """Refuse limits under which not even a small guest's processes run.

    Raises
    ------
    LocalError
        If there are too few addresses for numba, or too few descriptors.
    """
    addresses = address_limit()
    if addresses < PROCESS_ADDRESSES:
        raise LocalError(
            f"address space (ulimit -v): expected at least {PROCESS_ADDRESSES / 2**20:.0f} MiB for "
            f"a process with numba, found {addresses / 2**20:.0f} MiB"
        )
    descriptors = _soft_limit(resource.RLIMIT_NOFILE)
    if descriptors < PROCESS_DESCRIPTORS:
        raise LocalError(
            f"open files (ulimit -n): expected at least {PROCESS_DESCRIPTORS}, "
            f"found {descriptors:.0f}"
        )


def check_limits_for(ram_bytes: int, memfd_bytes: int, copies: int) -> None:
    """Refuse limits under which a guest does not fit into its processes.

    Parameters
    ----------
    ram_bytes
        Guest RAM.
    memfd_bytes
        Length of the memfd that it is in.
    copies
        Number of mappings or copies of RAM in one process.

    Raises
    ------
    LocalError
        As in `check_limits_of_processes`; also if RAM is too large for the addresses of a process,
        or for the limit of a file's length, which a memfd has, too.
    """
    check_limits_of_processes()
    most = (address_limit() - PROCESS_ADDRESSES) / copies
    if ram_bytes > most:
        raise LocalError(
            f"ram: expected at most {most / 2**20:.0f} MiB where a process may have "
            f"{address_limit() / 2**20:.0f} MiB of addresses (ulimit -v), found "
            f"{ram_bytes / 2**20:.0f} MiB"
        )
    if memfd_bytes > file_limit():
        raise LocalError(
            f"file size (ulimit -f): expected at least {memfd_bytes / 2**20:.1f} MiB for the memfd "
            f"that holds {ram_bytes / 2**20:.0f} MiB of RAM, found {file_limit() / 2**20:.1f} MiB"
        )
