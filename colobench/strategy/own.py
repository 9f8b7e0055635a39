"""A user's own trigger as a value: the source of its class, and the attributes of its instance."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from colobench.errors import LocalError
from colobench.fields.checks import check_integer, check_texts, check_type
from colobench.strategy.trigger import NEEDS, NEVER_MS, Answer, Situation, Trigger


@dataclass(frozen=True, slots=True)
class OwnTrigger(Trigger):
    """A user's trigger, which only a node runs.

    Attributes
    ----------
    name
        Name of the class.
    code
        Source of the class.
    file, line
        File, or cell, and the line in it where the source begins.
    state
        JSON object of the instance's attributes.
    needed
        Those of `NEEDS` that it looks at.
    maximum
        Milliseconds after which a checkpoint comes at the latest.
    """

    kind: ClassVar[str] = "own"

    name: str = ""
    code: str = ""
    file: str = ""
    line: int = 1
    state: str = "{}"
    needed: tuple[str, ...] = ()
    maximum: int = 1000

    def complete(self) -> None:
        """Check the types, as a file of settings may say anything."""
        for name in ("name", "code", "file", "state"):
            check_type(f"trigger: {name}", getattr(self, name), str)
        check_integer("trigger: line", self.line, 1)
        check_integer("maximum", self.maximum, 1, NEVER_MS, unit="ms")
        needed = tuple(check_texts("needs", self.needed))
        if not set(needed) <= set(NEEDS):
            raise LocalError(f"needs: expected some of {', '.join(NEEDS)}, found {needed}")
        # A set has another order in each process, and equal settings have to be equal texts.
        object.__setattr__(self, "needed", tuple(each for each in NEEDS if each in needed))

    @property
    def label(self) -> str:
        """Name of the class, and attributes of the instance, as Python writes a call."""
        state = json.loads(self.state)
        given = ", ".join(f"{name}={value!r}" for name, value in state.items())
        return f"{self.name}({given})"

    @property
    def longest_ms(self) -> int:
        """The maximum."""
        return self.maximum

    def ask(self, seen: Situation, memory: Any) -> Answer:
        """Refuse, with LocalError: a user's source runs in a node alone."""
        raise LocalError(f"trigger {self.name}: expected a node, which alone runs a user's source")

    def written(self) -> dict[str, Any]:
        """Give what JSON has of it; `read` makes the same of it."""
        return {**asdict(self), "needed": list(self.needed)}

    @classmethod
    def read(cls, found: dict[str, Any]) -> OwnTrigger:
        """Make a trigger of what JSON has of it.

        Raises
        ------
        LocalError
            If it is something else.
        """
        names = {each.name for each in fields(cls)}
        if not {"name", "code"} <= found.keys() <= names:
            raise LocalError(f"trigger: expected {', '.join(sorted(names))}, found {sorted(found)}")
        return cls(**found)
