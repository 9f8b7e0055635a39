"""Status of a session, published by its process in a file and read by others.

The process that runs a session writes ``session.json`` into the session's directory whenever the
status changes. ``colobench status`` reads it, and asks each node for its own.
"""

from __future__ import annotations

import enum
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from colobench.block.generation import ImageState
from colobench.errors import ColobenchError, LocalError
from colobench.processes.errors import NodeGone
from colobench.processes.qmp import QMPConnection
from colobench.processes.session_directory import is_running, running

FILE = "session.json"
#: Seconds that a node may take to answer; one that is stopped never does.
ANSWER_SECONDS = 1.0


class PairState(enum.StrEnum):
    """State of a session's guest."""

    #: A secondary is receiving the guest; the primary serves unprotected, or not yet.
    JOINING = "joining"
    #: If either node dies, the other goes on with all that clients were told.
    PROTECTED = "protected"
    #: There is one node, and none to take its place.
    ALONE = "alone"


def publish(directory: Path, description: Mapping[str, Any]) -> None:
    """Write the present status; a full disk is ignored, since it must not end a session."""
    told = {"pid": os.getpid(), "since": time.time()} | dict(description)
    aside = directory / f"{FILE}.new"
    with suppress(OSError):
        aside.write_text(json.dumps(told), "utf-8")
        aside.replace(directory / FILE)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Status of a node.

    Attributes
    ----------
    role, pid
        Role in the session, and process id.
    alive, answers
        Whether the process runs, and whether it has answered; a stopped one does not.
    mode
        Mode that it reports: ``primary`` or ``secondary`` in a pair, otherwise ``none``.
    running
        Whether its guest runs.
    checkpoint, checkpoint_age
        Number of the last checkpoint that is committed there, and the seconds since then.
    disks
        State of each of its images, and bytes of its layers, as ``x-query-disks`` gives them.
    """

    role: str
    pid: int
    alive: bool
    answers: bool = False
    mode: str | None = None
    running: bool | None = None
    checkpoint: int | None = None
    checkpoint_age: float | None = None
    disks: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """Status of a session.

    Attributes
    ----------
    directory, pid
        Its directory, and the process that runs it.
    state
        State of the guest. A dead node counts as dead, even if the process has not said so yet.
    since
        Seconds since the process has published it.
    settings
        Settings of the session, whole, as JSON has them.
    serves
        Whether clients are admitted.
    nodes
        Status of each node.
    others
        Process ids of the switch and the arbiter, by role.
    forwards
        Ports that lead to the guest: host, port, and the guest's port.
    """

    directory: str
    pid: int
    state: PairState
    since: float
    settings: Mapping[str, Any]
    serves: bool
    nodes: tuple[NodeStatus, ...]
    others: dict[str, int]
    forwards: tuple[tuple[str, int, int], ...]

    def as_json(self) -> dict[str, Any]:
        """Give it as a JSON object, with hyphens in the names as QMP has them.

        The names of ``settings`` are as they are read again.
        """
        return dict(_hyphens(asdict(self))) | {"settings": dict(self.settings)}


def find(names: Iterable[str] = ()) -> list[Path]:
    """Find the directories of sessions that run.

    Parameters
    ----------
    names
        Paths or names of directories, or process ids of sessions; without any, all sessions of this
        user.

    Raises
    ------
    LocalError
        If no session has that name.
    """
    there = running()
    wanted = list(names)
    return there if not wanted else [_find_one(name, there) for name in wanted]


def _find_one(name: str, there: list[Path]) -> Path:
    for path in there:
        if name == path.name or (name.isdigit() and _read(path).get("pid") == int(name)):
            return path
    if is_running(Path(name)):
        return Path(name)
    raise LocalError(
        f"session: expected one that runs, by its directory or its process's pid, found {name!r}"
    )


def examine(directory: Path) -> SessionStatus | None:
    """Look at a session; None if it has just begun, and has no nodes yet, or has just ended."""
    told = _read(directory)
    if not told:
        return None
    nodes = tuple(_ask(role, node) for role, node in told["nodes"].items())
    state = PairState(told["state"])
    if state is PairState.PROTECTED and not all(node.alive for node in nodes):
        state = PairState.ALONE
    return SessionStatus(
        directory=str(directory),
        pid=told["pid"],
        state=state,
        since=max(0.0, time.time() - told["since"]),
        settings=told["settings"],
        serves=told["lets-clients-in"],
        nodes=nodes,
        others={role: other["pid"] for role, other in told["others"].items()},
        forwards=tuple((host, port, of_guest) for of_guest, host, port in told["ports"]),
    )


def render(status: SessionStatus) -> str:
    """Write a status for people."""
    lines = [f"{status.state} for {status.since:.0f} s: {status.directory}, pid {status.pid}"]
    for node in status.nodes:
        lines += [f"  {_describe(node)}", *(f"    {_describe_disk(disk)}" for disk in node.disks)]
    lines += [f"  {role} pid {pid}" for role, pid in status.others.items()]
    for host, port, of_guest in status.forwards:
        closed = "" if status.serves else ", once the pair is protected"
        lines.append(f"  the guest's port {of_guest} is at {host}:{port}{closed}")
    return "\n".join(lines)


def _describe(node: NodeStatus) -> str:
    words = f"{node.role} pid {node.pid}: "
    if not node.alive:
        return words + "dead"
    if not node.answers:
        return words + f"no answer within {ANSWER_SECONDS:g} s"
    words += "the guest runs" if node.running else "the guest stands"
    if node.checkpoint_age is None:
        return words + ", no checkpoint yet"
    return words + f", checkpoint {node.checkpoint}, {node.checkpoint_age:.1f} s ago"


def _describe_disk(disk: Mapping[str, Any]) -> str:
    words = f"disk {disk['disk']}, {disk['image']}: {disk['state']}"
    if disk["state"] != ImageState.FOLLOWING.value:
        return f"{words}, {disk['changed-bytes'] >> 10:,} KiB changed since the checkpoint"
    return (
        f"{words}, hidden layer {disk['hidden-bytes'] >> 10:,} KiB, active layer "
        f"{disk['active-bytes'] >> 10:,} KiB, {disk['buffer-bytes'] / disk['buffer-limit']:.0%} of "
        "their buffer"
    )


def _read(directory: Path) -> dict[str, Any]:
    try:
        told = json.loads((directory / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(told)


def _ask(role: str, node: Mapping[str, Any]) -> NodeStatus:
    pid = node["pid"]
    if not _is_alive(pid):
        return NodeStatus(role, pid, alive=False)
    try:
        with QMPConnection(node["qmp"], timeout=ANSWER_SECONDS) as qmp:
            qmp.connect(lambda: _is_alive(pid), timeout=ANSWER_SECONDS)
            colo, guest = qmp.execute("query-colo-status"), qmp.execute("x-query-guest")
            runs = qmp.execute("query-status")["running"]
            disks = qmp.execute("x-query-disks")
    except (ColobenchError, NodeGone):
        return NodeStatus(role, pid, alive=_is_alive(pid))
    return NodeStatus(
        role,
        pid,
        alive=True,
        answers=True,
        mode=colo["mode"],
        running=runs,
        checkpoint=guest["checkpoint"],
        checkpoint_age=guest["checkpoint-age"],
        disks=tuple(disks),
    )


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _hyphens(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name).replace("_", "-"): _hyphens(each) for name, each in value.items()}
    return [_hyphens(each) for each in value] if isinstance(value, list | tuple) else value
