"""Parquet files of a comparison: a row for each checkpoint, and a row for each measurement."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.lab.compare.measurement import Measurement
from colobench.lab.output_file import check_output_file, write_output_bytes


def require_pyarrow() -> None:
    """Refuse, with LocalError, to write Parquet without pyarrow."""
    if find_spec("pyarrow") is None:
        raise LocalError(
            "parquet needs pyarrow, which is not installed: pip install 'colobench[parquet]'"
        )


def cells_path(path: Path | str) -> Path:
    """Name the file with a row for each measurement, beside the one of checkpoints."""
    path = Path(path)
    return path.with_name(f"{path.stem}-cells{path.suffix}")


def write_parquet(path: Path | str, measurements: Sequence[Measurement]) -> tuple[Path, Path]:
    """Write the checkpoints to `path`, and the measurements to `cells_path`.

    Each row names strategy, guest, link and round; rows of measurements have the pair's settings
    as JSON.

    Raises
    ------
    LocalError
        If pyarrow is not installed, there is nothing to write, or a file cannot be written.
    """
    require_pyarrow()
    if not measurements:
        raise LocalError("parquet: expected at least one measurement, found none")
    of_cells = check_output_file(cells_path(path))
    _write(Path(path), _checkpoints(measurements))
    _write(of_cells, [_row(each) for each in measurements])
    return Path(path), of_cells


def _place(each: Measurement) -> dict[str, Any]:
    return {
        "strategy": each.strategy,
        "guest": each.guest,
        "link": each.link,
        "round": each.round,
    }


def _checkpoints(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    rows = []
    for each in measurements:
        names, columns = list(each.checkpoints), list(each.checkpoints.values())
        place = _place(each)
        rows += [
            place | dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)
        ]
    return rows


def _row(each: Measurement) -> dict[str, Any]:
    before, after = each.memcpy_gb_per_s
    return {
        **_place(each),
        **each.figures,
        **{f"unprotected_{name}": value for name, value in each.unprotected.items()},
        "memcpy_before_gb_per_s": before,
        "memcpy_after_gb_per_s": after,
        "settings": json.dumps(each.settings),
        "comparison": json.dumps(each.comparison),
    }


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    data = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data)
    write_output_bytes(path, data.getvalue())
