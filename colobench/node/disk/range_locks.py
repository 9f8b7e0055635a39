"""Locks on ranges of a disk: what overlaps is done one after the other, in the order of arrival."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

#: A range that is held: its beginning and its end. Equal ones are different claims.
Claim: TypeAlias = tuple[int, int]


class RangeLocks:
    """Locks of one disk. Few are held at a time, so they are a list."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._claims: list[Claim] = []

    @contextmanager
    def hold(self, offset: int, length: int) -> Iterator[None]:
        """Hold a range of bytes, once those that came before and overlap are done."""
        claim = (offset, offset + length)
        with self._changed:
            self._claims.append(claim)
            try:
                while self._overlaps_earlier(claim):
                    self._changed.wait()
            except BaseException:
                self._remove(claim)
                raise
        try:
            yield
        finally:
            with self._changed:
                self._remove(claim)

    def claim(self, offset: int, length: int) -> Claim | None:
        """Claim a range of bytes until `release`, or return None if it is not free."""
        claim = (offset, offset + length)
        with self._changed:
            self._claims.append(claim)
            if not self._overlaps_earlier(claim):
                return claim
            self._remove(claim)
            return None

    def release(self, claim: Claim) -> None:
        """Give a claimed range back."""
        with self._changed:
            self._remove(claim)

    def _overlaps_earlier(self, claim: Claim) -> bool:
        begin, end = claim
        for each in self._claims:
            if each is claim:
                return False
            if each[0] < end and begin < each[1]:
                return True
        return False

    def _remove(self, claim: Claim) -> None:
        self._claims = [each for each in self._claims if each is not claim]
        self._changed.notify_all()
