"""A form with all settings of a session, generated from their declarations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from colobench.lab.cockpit.form import FormField, SettingsForm
from colobench.lab.report.palette import BAD_COLOUR
from colobench.ui.base.feed import LiveView, read_module

#: Groups that are open at first, by their titles.
OPEN_GROUPS = ("guest", "checkpoints", "link")


class SettingsFormView(LiveView):
    """Shows a `SettingsForm`, and takes the choices that are made in it.

    Parameters
    ----------
    form
        The form.
    chosen
        Function that is called with the name and the text of a choice, in the kernel's thread; it
        returns soon, and lets `show` be called.
    """

    _esm = read_module("settings_form.js")

    def __init__(self, form: SettingsForm, chosen: Callable[[str, str], None]) -> None:
        super().__init__()
        self.form = form
        self._chosen = chosen
        self.feed.told = self._hear

    def __repr__(self) -> str:
        return f"<SettingsFormView, {len(self.form.changes)} settings changed>"

    def show(self) -> None:
        """Show the present choices, and what they refuse."""
        # Also if nothing is new: a page may show a choice that was refused.
        self.feed.put({"groups": _groups(self.form.fields()), "bad": BAD_COLOUR})

    def _hear(self, message: dict[str, Any]) -> None:
        name, text = message.get("setting"), message.get("text")
        if isinstance(name, str) and isinstance(text, str):
            self._chosen(name, text)


def _groups(fields: list[FormField]) -> list[dict[str, Any]]:
    """Give the groups in the order of the declarations, each with its fields."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in fields:
        written = asdict(each) | {"kind": each.kind.value}
        found.setdefault(each.title, []).append(written)
    return [
        {"title": title, "open": title in OPEN_GROUPS, "fields": of_group}
        for title, of_group in found.items()
    ]
