"""The table of verbs: the name of each, what help says of it, and its module."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass
from typing import Protocol, cast


class _Module(Protocol):
    """A verb's module."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's options."""

    def run(self, options: argparse.Namespace) -> int:
        """Do what the options say; returns the exit status."""


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the command line.

    Attributes
    ----------
    summary
        What help says of it.
    runs_nodes
        Whether it starts processes with numba, for which limits of this one may be too low.
    takes_more
        Whether it hands on options that are not its own, to another program.
    """

    summary: str
    runs_nodes: bool = False
    takes_more: bool = False


VERBS = {
    "demo": Verb("checkpoints, a kill in the middle of one, takeover, the proof", runs_nodes=True),
    "run": Verb("serve real clients until Ctrl-C; kill either node meanwhile", runs_nodes=True),
    "status": Verb("say of each session that runs whether its guest is protected"),
    "torture": Verb("kill nodes of a serving pair, and judge what clients saw", runs_nodes=True),
    "lab": Verb("open JupyterLab at notebooks/00_index.ipynb", takes_more=True),
    "doctor": Verb("say what this machine offers, by testing its effect"),
    "warmup": Verb("compile all kernels, so that nothing is compiled later", runs_nodes=True),
    "bench": Verb("measure each figure beside its reference, in the same run", runs_nodes=True),
    "protocol": Verb("print the conversation's tables"),
}


def module_of(name: str) -> _Module:
    """Import a verb's module, which has its name."""
    return cast(_Module, importlib.import_module(f"colobench.cli.{name}"))
