"""Interfaces of the sender and the receiver of pages, one pair of which exists for each transport.

A RAM section is framed by the main stream (`colobench.wire.format`); its pages come in that stream,
or on connections of their own.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

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
    """One side's connections that carry only pages; this base class has none.

    Attributes
    ----------
    connections
        The connections, ordered by channel number.
    """

    def __init__(self) -> None:
        self.connections: Sequence[Connection] = ()

    @property
    def sent(self) -> int:
        """Bytes sent so far on these connections."""
        return sum(connection.sent for connection in self.connections)

    @property
    def moved(self) -> int:
        """Bytes received here or by the peer that the main connection does not count."""
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
        Pages sent as ZERO records.
    encoded_pages
        Pages sent compressed, as their changed bytes, or not at all because nothing had changed.
    bytes_saved
        Difference in bytes between these pages' whole records and the records sent.
    """

    zero_pages: int = 0
    encoded_pages: int = 0
    bytes_saved: int = 0

    def clear(self) -> None:
        """Set all counts to 0."""
        self.zero_pages = self.encoded_pages = self.bytes_saved = 0


class PageSender(PagePath, ABC):
    """Sends RAM sections on the primary, each by `begin`, any number of `send`, and `end`.

    Parameters
    ----------
    memory
        The RAM that pages are sent from.

    Attributes
    ----------
    section
        Counts of the current or last section.
    """

    def __init__(self, memory: PageMemory) -> None:
        super().__init__()
        self._memory = memory
        self.section = SectionStatistics()

    def connect(self, address: Address, wait: Wait) -> None:
        """Make the connections that carry only pages.

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
    """Fulfils the requests for pages of the secondary's loader."""

    def __init__(self) -> None:
        PagePath.__init__(self)
        PageSource.__init__(self)

    def accept(self, listener: socket.socket, wait: Wait) -> None:
        """Wait for the connections that carry only pages.

        Parameters
        ----------
        listener
            Listening socket for them; shutting it down ends the wait.
        wait
            Time limit of the wait, and other events that end it.

        Raises
        ------
        PeerStalled
            If the primary does not connect in time.
        HeaderError
            If one is not what it should be.
        PeerLost
        """
