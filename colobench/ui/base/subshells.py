"""Subshells of a kernel: threads that handle messages of pages, and end with them."""

from __future__ import annotations

import functools
import sys
from typing import Any


def skip_ended_subshells(kernel: Any) -> None:
    """Let no widget's messages go to a subshell that has ended.

    JupyterLab has a subshell for each page, and ends it when the page is closed or reloaded.
    ipykernel 7.4 gives all messages for a widget to the subshell that the widget last sent
    something in, whichever page they come from, even if that subshell has ended. So after a reload
    a widget hears no page any more. Here such a message goes to the subshell that it names.

    Parameters
    ----------
    kernel
        This process's kernel. Nothing is changed in one without subshells, or of another version.
    """
    widgets: Any = getattr(sys.modules.get("ipykernel.comm.comm"), "BaseComm", None)
    choose = getattr(widgets, "_reply_subshell_for", None)
    channel = getattr(kernel, "shell_channel_thread", None)
    if choose is None or channel is None or hasattr(choose, "__wrapped__"):
        return

    @functools.wraps(choose)
    def choose_living(comm: Any, data: Any, named: str | None) -> str | None:
        chosen: str | None = choose(comm, data, named)
        living = chosen is None or chosen in channel.manager.list_subshell()
        return chosen if living else named

    widgets._reply_subshell_for = choose_living
