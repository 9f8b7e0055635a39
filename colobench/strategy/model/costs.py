"""Costs of a checkpoint over its dirty pages, fitted to the checkpoints of a calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.strategy.model.spread import NO_SPREAD, Spread

#: Most points of a fit, which looks at each pair of them.
_POINTS = 400

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LinearCost:
    """A cost that is a straight line over the dirty pages.

    Attributes
    ----------
    base, per_page
        Cost without pages and cost of each, not below 0.
    """

    base: float
    per_page: float

    def at(self, pages: float) -> float:
        """Give the cost of so many pages."""
        return self.base + self.per_page * pages


#: No cost.
NOTHING = LinearCost(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class DividedCost:
    """A cost of copying pages, which several threads share if there are many.

    Attributes
    ----------
    alone, together
        Costs of one thread, and of several.
    threads_from
        Least number of pages that several threads copy.
    """

    alone: LinearCost = NOTHING
    together: LinearCost = NOTHING
    threads_from: float = math.inf

    def at(self, pages: float) -> float:
        """Give the cost of so many pages."""
        return (self.together if pages >= self.threads_from else self.alone).at(pages)


@dataclass(frozen=True, slots=True)
class PagePackets:
    """Packets into which pages are divided: whole ones, and a last one for each block of RAM.

    Attributes
    ----------
    most_pages
        Most pages of one; 0 if pages are sent without.
    apart_steps, most_apart
        Steps of work between two writes to a block other than the first, such as the screen, and
        most packets that such blocks need. Each has one packet, as it is small.
    spread
        Single numbers of pages beside the curve's: a page more or less may be a packet more.
    """

    most_pages: int = 0
    apart_steps: float = math.inf
    most_apart: float = 0.0
    spread: Spread = NO_SPREAD

    def at(self, pages: float, work: float) -> float:
        """Give the mean number of packets of so many pages, after so much work."""
        if not self.most_pages:
            return 0.0
        # A block that is written at regular distances is written by chance in a shorter time.
        apart = min(self.most_apart, work / self.apart_steps)
        ratios = self.spread.near(pages) or (1.0,)
        counts = (math.ceil(max(0.0, each * pages - apart) / self.most_pages) for each in ratios)
        return sum(counts) / len(ratios) + apart


@dataclass(frozen=True, slots=True)
class ByteCosts:
    """Bytes of a checkpoint.

    An encoding by contents sends fewer bytes of a page that it has sent before than of others, and
    more of them the more was written to it: since the last checkpoint (XBZRLE), or ever (zstd,
    LZ4), as a guest's writes fill pages that were empty. One that compares pages sends a hash of
    each, and whole those that differ, which here are the pages that were not sent before.

    Attributes
    ----------
    base, per_page, per_first
        Bytes of a checkpoint, of each page that was sent before, and of each that was not; without
        an encoding by contents `per_page` counts for all pages.
    per_work, per_age
        Bytes of each step of work since the last checkpoint, and of each page that was sent before
        and each step of work that the guest has done in all.
    per_packet, packets
        Bytes of each packet whatever is in it, and the packets.
    """

    base: float
    per_page: float
    per_work: float
    per_packet: float = 0.0
    packets: PagePackets = PagePackets()
    per_first: float | None = None
    per_age: float = 0.0

    def at(self, pages: float, work: float, first: float = 0.0, age: float = 0.0) -> float:
        """Give the bytes of a checkpoint; no less than without any page.

        Parameters
        ----------
        pages, work
            Dirty pages, and steps of work since the last checkpoint.
        first
            Those of the pages that are sent for the first time, or because they differ.
        age
            Steps of work that the guest has done in all.
        """
        sent = self.base + self.of_pages(pages, first, age) + self.per_work * work
        return max(self.base, sent + self.per_packet * self.packets.at(pages, work))

    def of_pages(self, pages: float, first: float = 0.0, age: float = 0.0) -> float:
        """Give the bytes of the pages alone."""
        if self.per_first is None:
            return self.per_page * pages
        first = min(first, pages)
        return self.per_first * first + (self.per_page + self.per_age * age) * (pages - first)


@dataclass(frozen=True, slots=True)
class CheckpointCosts:
    """Costs of a checkpoint on the machine that was calibrated, without a link; in milliseconds.

    Attributes
    ----------
    request
        From when a checkpoint is due until the guest stops.
    pause
        Time that the guest stands still, without that of copying pages.
    send
        From the first byte until the secondary has committed: the part that a link can lengthen.
    commit, release
        From the stop until the secondary has committed, and until output is released.
    loaded
        From the stop until the next checkpoint can begin, without the flush.
    sent
        Bytes.
    copy
        Time in which the primary copies the pages while its guest stands still: a part of the
        pause, and before all that is sent.
    flush
        Time in which the secondary copies the pages from its RAM cache into RAM, after the commit.
    """

    request: LinearCost
    pause: LinearCost
    send: LinearCost
    commit: LinearCost
    release: LinearCost
    loaded: LinearCost
    sent: ByteCosts
    copy: DividedCost = DividedCost()
    flush: DividedCost = DividedCost()


#: Columns of a calibration that are lines over the pages.
TIMES = ("request", "pause", "send", "commit", "release", "loaded")
#: Columns of times of copying, which may be divided between threads.
COPIES = ("copy", "flush")
#: Points below which there is no line of its own for several threads.
_LEAST_POINTS = 6


@dataclass(frozen=True, slots=True)
class KnownOfCosts:
    """Knowledge of how a checkpoint is made, which its costs need not be asked for.

    Attributes
    ----------
    flushes_in_pause
        Whether the guest stands still during the flush.
    by_contents
        Whether bytes may depend on contents: not if whole pages are sent.
    packets
        Packets into which pages are divided.
    threads_from
        Least number of pages that several threads copy.
    """

    flushes_in_pause: bool = True
    by_contents: bool = True
    packets: PagePackets = PagePackets()
    threads_from: float = math.inf


def fit_costs(
    columns: Mapping[str, Sequence[float]], known: KnownOfCosts = KnownOfCosts()
) -> CheckpointCosts:
    """Fit the costs to the checkpoints of a calibration.

    Parameters
    ----------
    columns
        For each checkpoint: ``pages``, ``work`` (since the last one), ``bytes``, and those of
        `TIMES` and `COPIES` with ``_ms`` behind, in milliseconds, all of them whole. If pages are
        in packets, ``packets``; and of an encoding by contents ``first_pages``, those that were
        sent for the first time or differed, and ``age``, the steps of work of the guest in all.
    known
        How it is made.
    """
    found = {name: np.asarray(each, dtype=np.float64) for name, each in columns.items()}
    pages = found["pages"]
    copy, flush = (found[f"{name}_ms"] for name in COPIES)
    rest = {name: found[f"{name}_ms"] for name in TIMES}
    for name in ("pause", "commit", "release", "loaded"):
        rest[name] = rest[name] - copy
    rest["loaded"] = rest["loaded"] - flush
    if known.flushes_in_pause:
        rest["pause"] = rest["pause"] - flush
    lines: dict[str, Any] = {name: fit_line(pages, each) for name, each in rest.items()}
    return CheckpointCosts(
        **lines,
        sent=_fit_bytes(found, known),
        copy=_fit_divided(pages, copy, known.threads_from),
        flush=_fit_divided(pages, flush, known.threads_from),
    )


def _fit_divided(pages: Numbers, times: Numbers, threads_from: float) -> DividedCost:
    """Fit a line for one thread, and one for several, where there are enough points for both."""
    several = pages >= threads_from
    if min(several.sum(), (~several).sum()) < _LEAST_POINTS:
        line = fit_line(pages, times)
        return DividedCost(line, line)
    alone = fit_line(pages[~several], times[~several])
    return DividedCost(alone, fit_line(pages[several], times[several]), threads_from)


def fit_line(x: Numbers, y: Numbers) -> LinearCost:
    """Fit a line that few disturbed points do not move, with no negative cost.

    The slope is the median of the slopes between all pairs of points, weighted by their distance;
    the base is the median of what the slope leaves (H. Theil, "A rank-invariant method of linear
    and polynomial regression analysis", 1950; P. K. Sen, Journal of the American Statistical
    Association 63, 1968; weights: L. Jaeckel, Annals of Mathematical Statistics 43, 1972).

    Parameters
    ----------
    x, y
        float64[points] each, at least one.
    """
    step = -(-len(x) // _POINTS) or 1
    x, y = x[::step], y[::step]
    one, other = np.triu_indices(len(x), 1)
    distance = x[other] - x[one]
    apart = distance != 0
    slope = 0.0
    if apart.any():
        slopes = (y[other] - y[one])[apart] / distance[apart]
        slope = max(0.0, _weighted_median(slopes, np.abs(distance[apart])))
    base = float(np.median(y - slope * x))
    if base < 0:
        # Through the origin; the slope of each point counts as its distance from there.
        positive = x > 0
        if not positive.any():
            return LinearCost(0.0, 0.0)
        slope = _weighted_median(y[positive] / x[positive], x[positive])
        return LinearCost(0.0, max(0.0, slope))
    return LinearCost(base, slope)


def _weighted_median(values: Numbers, weights: Numbers) -> float:
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(sums, sums[-1] / 2)])


def _fit_bytes(found: Mapping[str, Numbers], known: KnownOfCosts) -> ByteCosts:
    """Fit bytes over pages, packets and, if that leaves errors, what contents depend on.

    Bytes have no noise, so by least squares. Relative errors count, so that short intervals count
    like long ones; but those of contents grow as the root of their sum, as the errors of a sum do.
    A packet has the same size whatever is in it; one that is begun counts whole.
    """
    pages, sent, nothing = found["pages"], found["bytes"], np.zeros_like(found["pages"])
    weights = 1 / np.maximum(sent, 1.0)
    plain = {"base": np.ones_like(pages), "per_page": pages}
    if known.packets.most_pages:
        plain["per_packet"] = found["packets"]
    fitted = _least_squares(plain, sent, weights)
    off = _errors(plain, fitted, sent, weights)
    if known.by_contents and np.median(off) > 1e-3 and len(pages) >= 4:
        first = found.get("first_pages", nothing)
        before = pages - first
        contents = {"per_page": before, "per_first": first, "per_work": found["work"]}
        contents["per_age"] = before * found.get("age", nothing)
        fitted = {"per_first": 0.0} | _least_squares({**plain, **contents}, sent, np.sqrt(weights))
    return ByteCosts(**{"per_work": 0.0} | fitted, packets=known.packets)


def _errors(
    columns: Mapping[str, Numbers], factors: Mapping[str, float], y: Numbers, weights: Numbers
) -> Numbers:
    fitted = sum((factors[name] * each for name, each in columns.items()), np.zeros_like(y))
    return np.abs(fitted - y) * weights


def _least_squares(
    columns: Mapping[str, Numbers], y: Numbers, weights: Numbers
) -> dict[str, float]:
    """Give the factors of least squares that are not below 0, by the names of the columns.

    Source: C. Lawson and R. Hanson, "Solving Least Squares Problems", 1974, chapter 23, in the
    simple form that leaves out the column whose factor is lowest, as long as one is below 0.
    """
    left = dict(columns)
    while left:
        scales = {name: float(np.abs(each).max()) or 1.0 for name, each in left.items()}
        matrix = np.stack([each / scales[name] * weights for name, each in left.items()], axis=1)
        factors = np.linalg.lstsq(matrix, y * weights, rcond=None)[0]
        found = {name: float(f) / scales[name] for name, f in zip(left, factors, strict=True)}
        lowest = min(found, key=lambda name: found[name] * scales[name])
        if found[lowest] >= 0:
            return dict.fromkeys(columns, 0.0) | found
        del left[lowest]
    return dict.fromkeys(columns, 0.0)
