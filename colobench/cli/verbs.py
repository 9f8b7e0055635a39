"""Table of verbs: name, summary and module of each."""

from __future__ import annotations

import argparse
import importlib
from typing import NamedTuple, Protocol, cast


class _Module(Protocol):
    """A verb's module."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's options."""

    def run(self, options: argparse.Namespace) -> int:
        """Do what the options say; returns the exit status."""


class Verb(NamedTuple):
    """A verb of the command line.

    Attributes
    ----------
    summary
        Its line in the list of verbs, and the first line of its help.
    runs_nodes
        Whether it starts processes with numba, so that limits of this process are checked first.
    takes_more
        Whether it passes unknown options on to another program.
    """

    summary: str
    runs_nodes: bool = False
    takes_more: bool = False


VERBS = {
    "compare": Verb("compare ways of checkpointing on the same work", runs_nodes=True),
    "sweep": Verb(
        "measure a grid of strategies, guests, links and settings, on workers of dask",
        runs_nodes=True,
    ),
    "miscompares": Verb(
        "count how often the answers of two guests differ, by each source of chance",
        runs_nodes=True,
    ),
    "demo": Verb(
        "take checkpoints, kill the primary in the middle of one, verify the takeover",
        runs_nodes=True,
    ),
    "run": Verb(
        "run a pair that serves real clients until Ctrl-C; you may kill either node",
        runs_nodes=True,
    ),
    "status": Verb("print for each running session whether its guest is protected"),
    "torture": Verb(
        "kill nodes of serving pairs, and check the answers that clients got", runs_nodes=True
    ),
    "disk": Verb("show, repair, serve and copy images of disks"),
    "lab": Verb("open JupyterLab at notebooks/00_index.ipynb", takes_more=True),
    "course": Verb("check the scores that students hand in; explain a word of the field"),
    "app": Verb("show the cockpit alone in a browser, without JupyterLab", takes_more=True),
    "doctor": Verb("list the features of this machine, each one tried out"),
    "warmup": Verb("compile all kernels now, so that none is compiled later", runs_nodes=True),
    "bench": Verb("measure the parts of a checkpoint, each next to a reference", runs_nodes=True),
    "reproduce": Verb(
        "measure published claims again, and say of each whether it holds here", runs_nodes=True
    ),
    "strategies": Verb("list the named ways of checkpointing, with their axes and sources"),
    "record": Verb("record the pages that a program writes, millisecond by millisecond"),
    "decode": Verb("explain each byte of a QEMU migration stream or of a COLO session"),
    "receive": Verb("be the COLO secondary of a real QEMU, and keep its last checkpoint in a file"),
    "send": Verb("send a recorded COLO session to a real QEMU, as its primary"),
    "protect": Verb("keep checkpoints of a real QEMU, and bring its guest back when it is killed"),
    "record-qemu": Verb("record the migration streams of a real QEMU with a guest of our own"),
    "protocol": Verb("print the tables of COLO's conversation, of a failover and of disks"),
}


def module_of(name: str) -> _Module:
    """Import a verb's module, which has its name, with an underscore for each hyphen."""
    return cast(_Module, importlib.import_module(f"colobench.cli.{name.replace('-', '_')}"))
