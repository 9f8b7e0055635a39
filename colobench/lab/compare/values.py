"""Checks of the values in a line of results: a file may have anything in their place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: Columns of a calibration: those of records, and others; see `colobench.lab.compare.calibrate`.
OF_RECORDS = (
    *("cause", "pages", "bytes", "frames"),
    *("request_ms", "copy_ms", "pause_ms", "commit_ms", "loaded_ms"),
)
COMPUTED = ("run_ms", "last_pause_ms", "beside_ms", "work", "send_ms", "release_ms", "flush_ms")
#: Columns that need to know the pages: only some calibrations have them, and no older ones.
OF_PAGES = ("known_pages", "first_pages", "packets", "apart_packets", "age", "colo_work")
#: Column of an encoding that compares pages.
OF_HASHES = ("sent_pages",)
#: Numbers of a calibration's guest, unprotected and protected, and other numbers of a calibration.
_PACE = ("work_per_ms", "busy", "processor_ms_per_step")
_NUMBERS = (
    *("latency_ms", "latency_p99_ms", "protected_latency_ms", "protected_latency_p99_ms"),
    *("primary_memory_bytes", "secondary_memory_bytes"),
)


def is_number(value: object) -> bool:
    """Say whether a value is a finite number; an integer may be larger than any float."""
    try:
        is_finite = isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False
    return is_finite and not isinstance(value, bool)


def are_figures(found: object) -> bool:
    """Say whether a value has numbers by name, or None for those that are not known."""
    return isinstance(found, Mapping) and all(
        each is None or is_number(each) for each in found.values()
    )


def are_columns(found: object) -> bool:
    """Say whether a value has columns by name: equally long ones, each of numbers or of texts."""
    return (
        isinstance(found, Mapping)
        and all(isinstance(each, list) and _is_of_one_kind(each) for each in found.values())
        and len({len(each) for each in found.values()}) <= 1
    )


def are_numbers(values: list[Any]) -> bool:
    """Say whether a column has numbers alone."""
    return all(map(is_number, values))


def is_calibration(found: object) -> bool:
    """Say whether a value is what `colobench.lab.compare.calibrate.calibrate` returns."""
    if not isinstance(found, Mapping) or not {*_NUMBERS, "settings", "columns"} <= found.keys():
        return False
    columns, settings, curve = found["columns"], found["settings"], found.get("trace_curve")
    paces = [found.get(name) for name in ("unprotected", "protected")]
    return (
        are_figures({name: found[name] for name in _NUMBERS})
        and isinstance(settings, Mapping)
        and {"encoding", "capture", "transport", "guest"} <= settings.keys()
        and are_columns(columns)
        and {*OF_RECORDS, *COMPUTED} <= columns.keys()
        and all(are_numbers(columns[name]) for name in (*OF_RECORDS[1:], *COMPUTED))
        and all(are_numbers(columns.get(name, [])) for name in (*OF_PAGES, *OF_HASHES))
        and len(columns.keys() & {*OF_PAGES}) in (0, len(OF_PAGES))
        and all(_is_pace(each) for each in paces)
        and (curve is None or _is_curve(curve))
    )


def _is_pace(found: object) -> bool:
    return (
        are_figures(found)
        and isinstance(found, Mapping)
        and all(is_number(found.get(name)) for name in _PACE)
    )


def _is_curve(found: object) -> bool:
    return (
        isinstance(found, list)
        and len(found) > 0
        and all(isinstance(each, list) and len(each) == 2 and are_numbers(each) for each in found)
    )


def _is_of_one_kind(values: list[Any]) -> bool:
    """Say whether all known values are numbers, or all texts, or all true or false."""
    known = [each for each in values if each is not None]
    return (
        are_numbers(known)
        or all(isinstance(each, str) for each in known)
        or all(isinstance(each, bool) for each in known)
    )
