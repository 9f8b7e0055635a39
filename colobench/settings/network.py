"""Settings of the guest's network: forwarded ports, and files of frames."""

from __future__ import annotations

from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.fields.kinds import File, Flag, Texts
from colobench.fields.part import Part, part, setting
from colobench.settings.compare import CompareSettings
from colobench.settings.forward import ForwardRule


@dataclass(frozen=True, slots=True)
class NetworkSettings(Part):
    """Forwarded ports, and files of frames."""

    title = "network"

    hostfwd: tuple[str, ...] = setting(
        Texts(ForwardRule.parse, "RULE"),
        (),
        "port of this host that is forwarded to a port of the guest: "
        "tcp:127.0.0.1:6379-:6379; port 0: any free one",
        qemu="hostfwd",
    )
    serve_unprotected: bool = setting(
        Flag(),
        False,
        "let clients in before the pair is protected; if the primary dies then, their data is lost",
    )
    pcap: str | None = setting(File(), None, "file for the frames on the guest's links")
    pcap_mirror: str | None = setting(
        File(), None, "file for the frames between the nodes, if output is compared"
    )
    compare: CompareSettings = part(CompareSettings, by_name=True)

    def complete(self) -> None:
        """Check that each port is forwarded once, and that each file has a source of frames."""
        ports = [str(each) for each in self.forwards() if not each.takes_any_port()]
        hosts = [each.rpartition("-")[0] for each in ports]
        twice = [host for host in hosts if hosts.count(host) > 1]
        if twice:
            raise LocalError(
                f"hostfwd: expected each port of the host once, found {twice[0]} twice"
            )
        if self.pcap is not None and not self.hostfwd:
            raise LocalError("pcap: expected a hostfwd, whose switch writes it, found none")
        if self.pcap is not None and self.pcap == self.pcap_mirror:
            raise LocalError(f"pcap_mirror: expected another file than pcap's, found {self.pcap!r}")

    def forwards(self) -> tuple[ForwardRule, ...]:
        """Return the rules of `hostfwd`."""
        return tuple(ForwardRule.parse(rule) for rule in self.hostfwd)
