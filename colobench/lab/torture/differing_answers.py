"""Answers of one connection that differ between both guests: a checkpoint has to release each.

Nothing else releases them here, because no checkpoint is the timer's.
"""

from __future__ import annotations

from colobench.lab.clients.closed_loop import ClientsStalled
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.session.session import Session
from colobench.settings.settings import Settings

#: Answers that are asked for, and seconds for each.
ANSWERS, PATIENCE = 3, 4.0


def differing_answers(settings: Settings) -> int:
    """Ask a pair for the time, which both guests tell differently; count the answers that come.

    Parameters
    ----------
    settings
        Settings of the pair, whose output is compared.

    Returns
    -------
    int
        Number of answers before the first one that did not come, at most `ANSWERS`.
    """
    came = 0
    with Session(settings) as session, StoreConnection(session.address(), PATIENCE) as store:
        try:
            while came < ANSWERS:
                store.ask(b"TIME")
                came += 1
        except ClientsStalled:
            pass
    return came
