"""One side's part in the way that pages travel: the interfaces of its sender and its receiver.

A RAM section is framed by the main stream (`colobench.wire.format`); its pages come in that stream,
or on connections of their own.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from colobench.memory.ram import PageMemory
from colobench.node.address import Address
from colobench.node.connection import Connection
from colobench.node.wait import Wait
from colobench.wire.format import SectionType
from colobench.wire.reading import PageSource

#: Page numbers over all RAM blocks, int32[n], ascending.
Pages = npt.NDArray[np.int32]


class PagePath:
    """The connections for pages alone that one side has besides the main one; here there are none.

    Attributes
    ----------
    connections
        They, in the order of their numbers.
    """

    def __init__(self) -> None:
        self.connections: Sequence[Connection] = ()

    @property
    def sent(self) -> int:
        """Bytes sent so far on connections for pages alone."""
        return sum(connection.sent for connection in self.connections)

    @property
    def moved(self) -> int:
        """Bytes that came or have arrived and that the main connection does not count."""
        return 0

    def shut_down(self) -> None:
        """End the connections both ways."""
        for connection in self.connections:
            connection.shut_down()

    def close(self) -> None:
        """Close the connections."""
        for connection in self.connections:
            connection.close()


@dataclass(slots=True)
class SectionStatistics:
    """Counts of one RAM section.

    Attributes
    ----------
    zero_pages
        Pages sent as ZERO.
    encoded_pages
        Pages sent as what changed in them, or not at all because nothing had changed.
    bytes_saved
        Bytes by which the encoded pages are shorter than they would be as they are.
    """

    zero_pages: int = 0
    encoded_pages: int = 0
    bytes_saved: int = 0

    def clear(self) -> None:
        """Set all counts to 0."""
        self.zero_pages = self.encoded_pages = self.bytes_saved = 0


class PageSender(PagePath, ABC):
    """The primary's side: sends RAM sections, each by `begin`, any number of `send`, and `end`.

    Parameters
    ----------
    memory
        The RAM that pages are sent from.

    Attributes
    ----------
    devices_first
        Whether a checkpoint's devices are saved before its pages are sent, as in patch 31. If not,
        they are saved while the secondary still takes pages in.
    section
        Counts of the section that was begun last.
    """

    devices_first: ClassVar[bool] = True

    def __init__(self, memory: PageMemory) -> None:
        super().__init__()
        self._memory = memory
        self.section = SectionStatistics()

    def connect(self, address: Address, wait: Wait) -> None:
        """Make the connections for pages alone.

        Raises
        ------
        LocalError
            If nobody answers.
        PeerLost, PeerStalled
        """

    @abstractmethod
    def begin(self, kind: SectionType, count: int) -> None:
        """Begin a PART or END section of `count` pages."""

    @abstractmethod
    def send(self, pages: Pages) -> None:
        """Send pages of the section that was begun.

        Raises
        ------
        PeerLost, PeerStalled
        """

    @abstractmethod
    def end(self) -> None:
        """End the section; its last bytes may wait for what follows in the main stream."""


class PageReceiver(PagePath, PageSource):
    """The secondary's side: fulfils what the loader of RAM sections asks for."""

    def __init__(self) -> None:
        PagePath.__init__(self)
        PageSource.__init__(self)

    def accept(self, listener: socket.socket, wait: Wait) -> None:
        """Wait for the connections for pages alone.

        Parameters
        ----------
        listener
            The socket that they come to; shutting it down ends the wait.
        wait
            The limit of the wait, and what else ends it.

        Raises
        ------
        PeerStalled
            If they do not come in time.
        HeaderError
            If one is not what it should be.
        PeerLost
        """
