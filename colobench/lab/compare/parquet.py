"""Parquet files of a comparison: a row for each checkpoint, and a row for each measurement."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.lab.compare.findings import Predictions
from colobench.lab.compare.measurement import Measurement
from colobench.lab.compare.metrics import METRICS
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


def write_parquet(
    path: Path | str, measurements: Sequence[Measurement], predictions: Predictions
) -> tuple[Path, Path]:
    """Write the checkpoints to `path`, and the measurements to `cells_path`.

    Each row names strategy, guest, link and round; rows of measurements have the pair's settings
    as JSON, their calibration, and what the models say of their cell.

    Raises
    ------
    LocalError
        If pyarrow is not installed, there is nothing to write, or a file cannot be written.
    """
    require_pyarrow()
    if not measurements:
        raise LocalError("parquet: expected at least one measurement, found none")
    of_cells = check_output_file(cells_path(path))
    write_table(Path(path), [row for each in measurements for row in checkpoint_rows(each)])
    rows = [measurement_row(each, predictions.get(each.key, {})) for each in measurements]
    write_table(of_cells, rows)
    return Path(path), of_cells


def _place(each: Measurement) -> dict[str, Any]:
    return {
        "strategy": each.strategy,
        "guest": each.guest,
        "link": each.link,
        "round": each.round,
    }


def checkpoint_rows(each: Measurement) -> list[dict[str, Any]]:
    """Give a row for each checkpoint of a measurement."""
    names, columns, place = list(each.checkpoints), each.checkpoints.values(), _place(each)
    return [place | dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def measurement_row(
    each: Measurement, predicted: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Give the row of a measurement, with all of its settings as JSON, and what models predict."""
    before, after = each.memcpy_gb_per_s
    models = {} if predicted is None else {one.name: predicted.get(one.name) for one in METRICS}
    return {
        **_place(each),
        **{f"predicted_{name}": value for name, value in models.items()},
        **each.figures,
        **{f"unprotected_{name}": value for name, value in each.unprotected.items()},
        "memcpy_before_gb_per_s": before,
        "memcpy_after_gb_per_s": after,
        "link_held_rate": each.held_rate,
        "link_held": None if each.held_rate is None else each.held,
        "calibration": None if each.calibration is None else json.dumps(each.calibration),
        "settings": json.dumps(each.settings),
        "comparison": json.dumps(each.comparison),
    }


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as Parquet; each may lack columns, which have no value there.

    Raises
    ------
    LocalError
        If the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    data = io.BytesIO()
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    pyarrow.parquet.write_table(pyarrow.table(columns), data)
    write_output_bytes(path, data.getvalue())
