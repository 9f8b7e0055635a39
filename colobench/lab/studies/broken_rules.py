"""The explorer of split brain, for the rules of the protocol by name."""

from __future__ import annotations

from colobench.errors import LocalError
from colobench.lab.interrupt import interruptible
from colobench.lab.progress import bar
from colobench.protocol.exploration.rules import BROKEN_RULES, Rules
from colobench.protocol.exploration.search import Exploration, explore


def broken_rules() -> list[str]:
    """Give the names of the protocols with one rule broken."""
    return list(BROKEN_RULES)


@interruptible("nothing is kept")
def explore_protocol(broken: str | None = None) -> Exploration:
    """Walk every state that a pair and its arbiter can reach, until one is wrong.

    Parameters
    ----------
    broken
        Name of a broken rule, one of `broken_rules`; None is the protocol as it is, with all rules.

    Raises
    ------
    LocalError
        If there is no such rule.
    """
    if broken is not None and broken not in BROKEN_RULES:
        raise LocalError(f"rule: expected one of {'; '.join(BROKEN_RULES)}, found {broken!r}")
    rules = Rules() if broken is None else BROKEN_RULES[broken]
    with bar("exploring", "worlds") as progress:
        return explore(rules, progress=progress)
