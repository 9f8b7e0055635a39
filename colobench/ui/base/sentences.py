"""Sentences of panels, those about a takeover and its survivor among them."""

from __future__ import annotations

from colobench.lab.report.run_summary import milliseconds
from colobench.lab.session.takeover import TakeoverRecord


def begin_sentence(text: str) -> str:
    """Begin a sentence with a text; the names in it stay as they are."""
    return f"{text[:1].upper()}{text[1:]}"


def tell_takeover(takeover: TakeoverRecord) -> str:
    """Say which node goes on from which checkpoint, and whether its state is right."""
    number = takeover.checkpoint
    if takeover.role == "primary":
        sentence = f"The primary, after {number or 'no'} checkpoints, went on alone"
    elif number:
        sentence = f"The secondary took over from checkpoint {number}"
    else:
        sentence = "The secondary took over from the state that migration brought"
    if takeover.takeover_ms is not None:
        sentence += f" in {milliseconds(takeover.takeover_ms)}"
    if takeover.equal is not None:
        sentence += f", its state {'is' if takeover.equal else 'is NOT'} that of the checkpoint"
    before, after = takeover.work_at_takeover, takeover.work_after
    if after > before:
        return f"{sentence}; work goes on: {before:,} → {after:,}."
    return f"{sentence}; its work does NOT go on, it stands at {before:,}."


def tell_ram(same: bool) -> str:
    """Say whether the survivor's RAM is what it has to be."""
    return f"Its RAM is {'' if same else 'NOT '}that of a guest never migrated."
