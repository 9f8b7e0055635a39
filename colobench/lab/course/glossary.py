"""Glossary: each word of the field that the notebooks use, explained once."""

from __future__ import annotations

from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.text_table import align


@dataclass(frozen=True, slots=True)
class Term:
    """A word of the field.

    Attributes
    ----------
    name
        The word.
    meaning
        Explanation, in one or two sentences.
    notebook
        Number of the notebook that shows it first.
    also
        Other words for it.
    """

    name: str
    meaning: str
    notebook: str
    also: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Name of its heading in docs/glossary.md, as a link has it."""
        return self.name.casefold().replace(" ", "-")

    def __repr__(self) -> str:
        also = f" (also: {', '.join(self.also)})" if self.also else ""
        return f"{self.name}{also}: {self.meaning} Notebook {self.notebook} shows it."


class Glossary(tuple[Term, ...]):
    """All terms, in alphabetical order; printed as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(align([(each.name, each.meaning) for each in self]))

    def as_markdown(self) -> str:
        """Write the glossary as a document, with a heading for each term."""
        parts = [MARKDOWN_HEAD]
        for each in self:
            also = f" Also: {', '.join(each.also)}." if each.also else ""
            parts.append(f"## {each.name}\n\n{each.meaning}{also} Shown in {each.notebook}.\n")
        return "\n".join(parts)


MARKDOWN_HEAD = """# Glossary

Words of the field, as the notebooks use them. `cb.term("flush")` prints one, `cb.glossary()` all.
This file is written by `tools/course`, from `lab/course/glossary.py`.
"""

_TERMS = (
    Term(
        "active layer",
        "Sectors of a secondary's disk that its own guest has written since the last checkpoint.",
        "12",
    ),
    Term(
        "arbiter",
        "A third process that decides which node goes on when the nodes lose each other. It grants "
        "each pair once, so two machines never both serve.",
        "06",
    ),
    Term(
        "capture",
        "The way in which a checkpoint takes the state of RAM: the guest stands still until all "
        "pages are sent, or only until they are copied or protected.",
        "07",
    ),
    Term(
        "checkpoint",
        "The state of the guest, RAM and devices, at one instant, and its transfer to the "
        "secondary.",
        "01",
    ),
    Term(
        "cluster",
        "A piece of 64 KiB of a disk, the unit that the hidden layer keeps.",
        "12",
    ),
    Term(
        "COLO",
        "Coarse-grained lock-stepping: a secondary virtual machine follows a primary from "
        "checkpoint to checkpoint, and takes over when the primary dies.",
        "00",
    ),
    Term(
        "commit point",
        "The instant at which the secondary has received a whole checkpoint and says "
        "VMSTATE_RECEIVED. A primary that dies before it costs that checkpoint; after it, none.",
        "01",
    ),
    Term(
        "committed",
        "Said of a checkpoint that is whole on the secondary, so that the secondary goes on from "
        "it if the primary dies.",
        "01",
    ),
    Term(
        "degradation",
        "The share of its work that a guest loses because it is protected.",
        "07",
    ),
    Term(
        "device state",
        "The state of the guest's processor and devices, without RAM. It is small, and travels in "
        "a buffer whose size is sent first.",
        "01",
    ),
    Term(
        "digest",
        "A hash over RAM, devices or a disk. If it is equal on both sides, so are the bytes.",
        "00",
    ),
    Term(
        "dirty page",
        "A page of RAM that the guest has written since the last checkpoint.",
        "02",
    ),
    Term(
        "encoding",
        "The bytes as which a page travels: as it is, compressed, or what has changed in it.",
        "04b",
    ),
    Term(
        "epoch",
        "The time from one checkpoint to the next, in which the guest runs.",
        "02",
    ),
    Term(
        "failover",
        "The change to the surviving node after the other has died or was given up: its takeover, "
        "and the clients' way to it.",
        "06",
    ),
    Term(
        "flush",
        "The copy of pages from the RAM cache to RAM on the secondary, after the commit point.",
        "03",
    ),
    Term(
        "guest",
        "The protected virtual machine: its processor, RAM and devices, and the program in it.",
        "00",
    ),
    Term(
        "heartbeat",
        "A message that the nodes send each other regularly. A node that receives none for a limit "
        "asks the arbiter.",
        "06",
    ),
    Term(
        "hidden layer",
        "The bytes at the last checkpoint of each cluster that the primary has overwritten "
        "since. A takeover writes them back.",
        "12",
    ),
    Term(
        "history",
        "The clients' log of requests and answers with their times. The checker judges a failover "
        "by it.",
        "06",
    ),
    Term(
        "host",
        "The machine that a node runs on. In the notebooks both nodes run on the same one.",
        "00",
    ),
    Term(
        "interval",
        "Of checkpoints, the time from one to the next. Of a measured figure, the range in which "
        "it lies with 95 % confidence, by resampling of the rounds.",
        "07",
    ),
    Term(
        "layout",
        "The place of RAM in a checkpoint: in one buffer with the devices (buffered), or directly "
        "in the stream (separated).",
        "04",
    ),
    Term(
        "linearizable",
        "Said of a history that one order of all requests explains, in which each takes effect "
        "between its sending and its answer.",
        "06",
    ),
    Term(
        "miscompare",
        "A byte at which the output of primary and secondary differs. It asks for a checkpoint.",
        "05",
    ),
    Term(
        "node",
        "A process that has a guest: the primary or the secondary.",
        "00",
    ),
    Term(
        "output commit",
        "The rule that output leaves only when the state that it depends on is safe.",
        "05",
    ),
    Term(
        "page",
        "A piece of 4,096 bytes of RAM, the unit that trackers note and checkpoints send.",
        "02",
    ),
    Term(
        "pause",
        "The time for which the guest stands still for a checkpoint.",
        "01",
    ),
    Term(
        "preset",
        "A strategy with a name, most of them after a publication.",
        "07",
    ),
    Term(
        "primary",
        "The node whose guest the clients see. It sends checkpoints.",
        "00",
    ),
    Term(
        "QMP",
        "QEMU's monitor protocol: commands and events as JSON, by which a node is controlled.",
        "00",
    ),
    Term(
        "RAM cache",
        "The secondary's second copy of the guest's RAM. It receives the pages of a checkpoint, "
        "and RAM stays that of the last committed checkpoint.",
        "03",
    ),
    Term(
        "record",
        "The figures of one checkpoint, from which tables and plots are made.",
        "01",
    ),
    Term(
        "release",
        "The sending of output that was held: at the next commit point, or when both guests have "
        "sent the same.",
        "05",
    ),
    Term(
        "resync",
        "The migration of a survivor's guest to a new secondary, so that it is protected again.",
        "06",
    ),
    Term(
        "secondary",
        "The node that receives checkpoints, and takes over when the primary dies.",
        "00",
    ),
    Term(
        "section",
        "A part of QEMU's migration stream: a type, an id, and the state of RAM or of a device.",
        "01",
    ),
    Term(
        "SIGKILL",
        "The signal by which Linux ends a process at once, without a chance to finish anything.",
        "00",
    ),
    Term(
        "stage",
        "The part of a conversation that a loader is in. It decides which sections may come.",
        "09",
    ),
    Term(
        "standing",
        "A node's state towards its peer: paired, asking the arbiter, alone, or out.",
        "11",
    ),
    Term(
        "strategy",
        "A choice for each independent question of checkpointing: trigger, capture, transport, "
        "encoding, layout, output and variant.",
        "07",
    ),
    Term(
        "stream",
        "The bytes from primary to secondary on their main connection, in QEMU's migration format.",
        "00",
    ),
    Term(
        "switch",
        "The process that connects clients to the node that has the guest.",
        "05",
    ),
    Term(
        "takeover",
        "The step by which a secondary discards an unfinished checkpoint, goes on from the last "
        "committed one, and runs alone.",
        "00",
    ),
    Term(
        "torn checkpoint",
        "A checkpoint of which only a part has arrived when the primary dies.",
        "03",
    ),
    Term(
        "tracker",
        "The means by which a node finds dirty pages.",
        "02",
    ),
    Term(
        "transport",
        "The way of the pages from primary to secondary: in the stream over a socket, on several "
        "connections, or in shared memory.",
        "04b",
    ),
    Term(
        "trigger",
        "The rule that asks for the next checkpoint: by the clock, by dirty pages, by output that "
        "waits or differs.",
        "07",
    ),
    Term(
        "variant",
        "The behaviour of the secondary's guest between checkpoints: it stands still (v12), or "
        "runs on the same input (upstream).",
        "03",
    ),
    Term(
        "verdict",
        "The checker's judgement of a history: linearizable or not, with the fewest operations "
        "that no order explains.",
        "06",
    ),
)
_GLOSSARY = Glossary(sorted(_TERMS, key=lambda term: term.name.casefold()))


def glossary() -> Glossary:
    """Give all terms, in alphabetical order."""
    return _GLOSSARY


def meaning_of(label: str) -> str | None:
    """Give the meaning of a control's label for its tooltip; None if it is no word of the glossary.

    Parameters
    ----------
    label
        Label, perhaps with a unit in brackets behind it.
    """
    wanted = label.partition(" (")[0].casefold()
    return next((each.meaning for each in _GLOSSARY if each.name.casefold() == wanted), None)


def term(name: str) -> Term:
    """Look up a word, whatever its case.

    Raises
    ------
    LocalError
        If the glossary does not have it.
    """
    wanted = str(name).strip().casefold()
    for each in _GLOSSARY:
        if wanted in (each.name.casefold(), *map(str.casefold, each.also)):
            return each
    near = [each.name for each in _GLOSSARY if wanted and wanted in each.meaning.casefold()]
    known = ", ".join(near or (each.name for each in _GLOSSARY))
    raise LocalError(f"term: expected a word of the glossary ({known}), found {name!r}")
