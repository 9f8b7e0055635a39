"""Costs of a checkpoint over its dirty pages, fitted to the checkpoints of a calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
class ByteCosts:
    """Bytes of a checkpoint.

    Attributes
    ----------
    base, per_page, per_work
        Bytes of a checkpoint, of each page, and of each step of work since the last checkpoint.
        An encoding that sends what has changed in a page sends more the more was written to it.
    per_packet, packet_pages
        Bytes of each packet whatever is in it, and most pages of one; 0 if pages are sent without.
    apart
        Pages that have a packet of their own, as those of the screen have: one, or none.
    """

    base: float
    per_page: float
    per_work: float
    per_packet: float = 0.0
    packet_pages: int = 0
    apart: int = 0

    def at(self, pages: float, work: float) -> float:
        """Give the bytes of a checkpoint; no less than without any page."""
        sent = self.base + self.per_page * pages + self.per_work * work
        if self.packet_pages:
            sent += self.per_packet * math.ceil(max(0.0, pages - self.apart) / self.packet_pages)
        return max(self.base, sent)


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
    bytes_by_work
        Whether bytes may depend on work, too: not if whole pages are sent.
    packet_pages
        Most pages of a packet; 0 if pages are sent without.
    threads_from
        Least number of pages that several threads copy.
    """

    flushes_in_pause: bool = True
    bytes_by_work: bool = True
    packet_pages: int = 0
    threads_from: float = math.inf


def fit_costs(
    columns: Mapping[str, Sequence[float]], known: KnownOfCosts = KnownOfCosts()
) -> CheckpointCosts:
    """Fit the costs to the checkpoints of a calibration.

    Parameters
    ----------
    columns
        For each checkpoint: ``pages``, ``work`` (since the last one), ``bytes``, and those of
        `TIMES` and `COPIES` with ``_ms`` behind, in milliseconds, all of them whole.
    known
        How it is made.
    """
    found = {name: np.asarray(each, dtype=np.float64) for name, each in columns.items()}
    pages, work = found["pages"], found["work"]
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
        sent=_fit_bytes(pages, work, found["bytes"], known),
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


def _fit_bytes(pages: Numbers, work: Numbers, sent: Numbers, known: KnownOfCosts) -> ByteCosts:
    """Fit bytes over pages, packets and, if wanted and that leaves errors, work.

    Bytes have no noise, so by least squares. Relative errors count, so that short intervals count
    like long ones. A packet has the same size whatever is in it; one that is begun counts whole.
    """
    weights = 1 / np.maximum(sent, 1.0)
    plain = {"base": np.ones_like(pages), "per_page": pages}
    choices = {0: plain}
    if known.packet_pages:
        for apart in (0, 1):
            packets = np.ceil(np.maximum(pages - apart, 0) / known.packet_pages)
            choices[apart] = {**plain, "per_packet": packets}
    fits = {apart: _least_squares(each, sent, weights) for apart, each in choices.items()}
    apart = min(fits, key=lambda n: _errors(choices[n], fits[n], sent, weights).sum())
    columns, found = choices[apart], fits[apart]
    off = _errors(columns, found, sent, weights)
    if known.bytes_by_work and np.median(off) > 1e-3 and len(pages) >= 4:
        found = _least_squares({**columns, "per_work": work}, sent, weights)
    return ByteCosts(
        found["base"],
        found["per_page"],
        found.get("per_work", 0.0),
        found.get("per_packet", 0.0),
        known.packet_pages,
        apart,
    )


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
