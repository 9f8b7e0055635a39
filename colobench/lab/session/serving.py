"""Settings of pairs that serve clients: the store, and a free port that leads to it."""

from __future__ import annotations

from typing import Any

from colobench.settings.settings import Settings


def serving_settings(**overrides: Any) -> Settings:
    """Give settings of a pair that serves clients at any free port of this machine.

    Parameters
    ----------
    overrides
        Settings by name, which go before these.
    """
    chosen = {"guest": "kv", "ram": "16M", "hostfwd": "tcp:127.0.0.1:0-:6379"}
    return Settings().override(**chosen | overrides)
