"""Services of a session beside its pair: clients' switch, the arbiter, and the nodes' link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from colobench.processes.process import NodeProcess
from colobench.processes.qmp import Event
from colobench.settings.link import Link


def start_switch(
    directory: Path,
    hostfwd: Sequence[str],
    pcap: str | None,
    hold: bool,
    deliver: Callable[[str, Event], None],
    known: Callable[[NodeProcess], None],
) -> NodeProcess:
    """Start a switch that listens for nodes at ``DIRECTORY/switch``.

    Parameters
    ----------
    directory
        Directory of the session.
    hostfwd
        Forwarding rules in QEMU's form ``tcp:127.0.0.1:PORT-:6379``.
    pcap
        File for the guest's frames, or None.
    hold
        Whether clients are refused until the switch is told ``x-hostfwd-listen``.
    deliver
        Function that is called with its events.
    known
        See `NodeProcess`.
    """
    arguments = ["--listen", f"unix:{directory / 'switch'}"]
    for each in hostfwd:
        arguments += ["--hostfwd", each]
    arguments += [] if pcap is None else ["--pcap", pcap]
    arguments += ["--hold"] if hold else []
    return NodeProcess("switch", directory, arguments, deliver, known=known)


def start_arbiter(
    directory: Path,
    grants: str | None,
    deliver: Callable[[str, Event], None],
    known: Callable[[NodeProcess], None],
) -> NodeProcess:
    """Start an arbiter that listens at ``DIRECTORY/arbiter``.

    Parameters
    ----------
    directory
        Directory of the session.
    grants
        File for its grants; None is one in the session's directory, removed with it.
    deliver
        Function that is called with its events.
    known
        See `NodeProcess`.
    """
    arguments = ["--listen", f"unix:{directory / 'arbiter'}"]
    arguments += ["--state", grants or str(directory / "arbiter.grants")]
    return NodeProcess("arbiter", directory, arguments, deliver, known=known)


def start_link(
    directory: Path,
    link: Link,
    deliver: Callable[[str, Event], None],
    known: Callable[[NodeProcess], None],
) -> NodeProcess:
    """Start the link between the nodes.

    Parameters
    ----------
    directory
        Directory of the session.
    link
        Rate, delay and jitter.
    deliver
        Function that is called with its events.
    known
        See `NodeProcess`.
    """
    arguments = ["--link", str(link)]
    files = [directory / f"link-{name}" for name in ("colo", "mirror", "disks")]
    return NodeProcess("link", directory, arguments, deliver, files=files, known=known)


def forwarded(switch: NodeProcess) -> list[tuple[int, tuple[str, int]]]:
    """Give the guest's ports that are forwarded, each with host and port for clients."""
    found: list[dict[str, Any]] = switch.execute("query-hostfwd")
    return [(each["guest-port"], (each["host-address"], each["host-port"])) for each in found]
