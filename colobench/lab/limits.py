"""What this process is granted: the cores and the memory of its cgroups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil


def _cgroup_directories(controller: str, root: Path) -> Iterator[Path]:
    """Find the cgroups (v1 and v2) that this process is in, from its own up to the mount's root."""
    membership = {}
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, cgroup = line.split(":", 2)
        membership.update(dict.fromkeys(controllers.split(","), cgroup))
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
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
    return path.read_text() if path.exists() else ""


def cpu_quota(root: Path = Path("/")) -> float:
    """Give the number of cores that the cgroups of this process grant it.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` are.

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
        Where ``proc`` and ``sys`` are.

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
