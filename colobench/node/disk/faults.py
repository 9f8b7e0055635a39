"""Faults of a disk on purpose, below everything that uses it."""

from __future__ import annotations

import errno as codes
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from colobench.block.backend import BlockBackend, BlockData, BlockError
from colobench.block.request import DISK_SIZE_MAX, RequestKind
from colobench.errors import LocalError
from colobench.fields.checks import check_choice, check_integer, show

#: Numbers of errors that a rule may raise, by name.
FAULT_ERRNOS = {"EIO": codes.EIO, "ENOSPC": codes.ENOSPC, "EPERM": codes.EPERM}
#: Longest delay of a rule, milliseconds.
DELAY_MAX_MS = 60_000


@dataclass(frozen=True, slots=True)
class FaultRule:
    """A rule that requests of a disk meet.

    Attributes
    ----------
    kinds
        Kinds of requests that it is for.
    offset, length
        Range of the disk in bytes; a request meets the rule if it touches the range. A flush has
        no range and meets every rule of its kind.
    errno
        Number of the error, or 0 for a request that is only late.
    delay_ms
        Time before the request is done or fails, milliseconds.
    count
        Number of requests that meet the rule before it ends, or None if it never ends.
    torn
        Whether the first half of a change is done before it fails.
    """

    kinds: frozenset[RequestKind]
    offset: int = 0
    length: int = DISK_SIZE_MAX
    errno: int = codes.EIO
    delay_ms: int = 0
    count: int | None = None
    torn: bool = False

    @classmethod
    def from_json(cls, members: object) -> FaultRule:
        """Read a rule, as of the monitor's command.

        Parameters
        ----------
        members
            ``kinds`` (list of ``read``, ``write``, ``flush``, ``discard``, ``write-zeroes``), and
            as they are wanted ``offset``, ``length``, ``errno`` (a name such as ``EIO``, or ``0``),
            ``delay-ms``, ``count``, ``torn``.

        Raises
        ------
        LocalError
            If it is no object, or a member is unknown or out of range.
        """
        if not isinstance(members, Mapping):
            raise LocalError(f"fault: expected an object, found {show(members)}")
        unknown = members.keys() - _MEMBERS
        kinds = members.get("kinds")
        if unknown or not isinstance(kinds, list) or not kinds:
            raise LocalError(
                f"fault: expected the list kinds, and of {', '.join(sorted(_MEMBERS))} what is "
                f"wanted, found {show(dict(members))}"
            )
        names = {kind.name.lower().replace("_", "-"): kind for kind in RequestKind}
        values: dict[str, Any] = {
            "kinds": frozenset(names[check_choice("kinds", name, list(names))] for name in kinds)
        }
        for name, low, high in (
            ("offset", 0, DISK_SIZE_MAX),
            ("length", 1, DISK_SIZE_MAX),
            ("delay-ms", 0, DELAY_MAX_MS),
            ("count", 1, 1 << 31),
        ):
            if name in members:
                values[name.replace("-", "_")] = check_integer(name, members[name], low, high)
        if "errno" in members:
            number = members["errno"]
            none = number == 0 and type(number) is int
            values["errno"] = (
                0 if none else FAULT_ERRNOS[check_choice("errno", number, list(FAULT_ERRNOS))]
            )
        if not isinstance(members.get("torn", False), bool):
            raise LocalError(f"torn: expected true or false, found {show(members['torn'])}")
        return cls(**values, torn=members.get("torn", False))


_MEMBERS = {"kinds", "offset", "length", "errno", "delay-ms", "count", "torn"}


class FaultyBackend:
    """A backend whose requests meet rules. It is safe for threads if the backend is.

    Parameters
    ----------
    backend
        The disk.
    rules
        Rules from the start.

    Attributes
    ----------
    met
        Number of requests that met a rule.
    """

    def __init__(self, backend: BlockBackend, rules: Sequence[FaultRule] = ()) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._rules: list[tuple[FaultRule, int]] = []
        self.met = 0
        self.set_rules(rules)

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""
        return self._backend.size

    def set_rules(self, rules: Sequence[FaultRule]) -> None:
        """Replace all rules, while requests are in flight or not."""
        with self._lock:
            self._rules = [(rule, 0) for rule in rules]

    def read(self, offset: int, length: int) -> bytes:
        """Read, or fail."""
        self._meet(RequestKind.READ, offset, length)
        return self._backend.read(offset, length)

    def write(self, offset: int, data: BlockData, fua: bool = False) -> None:
        """Write, or fail, as a rule wants it after the first half."""
        write = self._backend.write
        self._meet(RequestKind.WRITE, offset, len(data), lambda half: write(offset, data[:half]))
        write(offset, data, fua)

    def flush(self) -> None:
        """Flush, or fail."""
        self._meet(RequestKind.FLUSH, 0, 0)
        self._backend.flush()

    def discard(self, offset: int, length: int) -> None:
        """Discard, or fail, as a rule wants it after the first half."""
        discard = partial(self._backend.discard, offset)
        self._meet(RequestKind.DISCARD, offset, length, discard)
        discard(length)

    def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeros, or fail, as a rule wants it after the first half."""
        write_zeroes = partial(self._backend.write_zeroes, offset)
        self._meet(RequestKind.WRITE_ZEROES, offset, length, write_zeroes)
        write_zeroes(length)

    def _meet(
        self,
        kind: RequestKind,
        offset: int,
        length: int,
        begin: Callable[[int], None] = lambda length: None,
    ) -> None:
        """Let a request meet a rule; `begin` does the first bytes of a change."""
        if not self._rules:
            return
        rule = self._take(kind, offset, length)
        if rule is None:
            return
        time.sleep(rule.delay_ms / 1000)
        if not rule.errno:
            return
        half = length // 1024 * 512
        if rule.torn and half:
            begin(half)
        raise BlockError(rule.errno, f"{kind.name} at offset {offset}: a fault that was asked for")

    def _take(self, kind: RequestKind, offset: int, length: int) -> FaultRule | None:
        """Find the first rule that a request meets, and count it."""
        with self._lock:
            for number, (rule, met) in enumerate(self._rules):
                touches = offset < rule.offset + rule.length and rule.offset < offset + length
                if kind not in rule.kinds or not (touches or kind is RequestKind.FLUSH):
                    continue
                self._rules[number] = rule, met + 1
                if rule.count is not None and met + 1 >= rule.count:
                    del self._rules[number]
                self.met += 1
                return rule
        return None
