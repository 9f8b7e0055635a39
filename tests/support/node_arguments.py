"""Arguments of nodes that tests start by themselves."""

from __future__ import annotations

from typing import Any

from colobench.lab.session.session_processes import settings_arguments
from colobench.settings.settings import Settings


def node_arguments(*own: str, **settings: Any) -> list[str]:
    """Give what stands on a node's command line: settings by name, and what is the node's own."""
    return [*settings_arguments(Settings().override(**settings)), *own]
