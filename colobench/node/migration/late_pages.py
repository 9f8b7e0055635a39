"""A planted bug of the transport `multifd`, see ``docs/bug-museum.md``."""

from __future__ import annotations

from colobench.node.migration.multifd import MultifdReceiver


class UnendedReceiver(MultifdReceiver):
    """Receiver whose page channels go on when COLO has ended (`Bug.PAGE_AFTER_CLOSE`)."""

    def shut_down(self) -> None:
        """Leave the channels open: whoever receives on them goes on."""
