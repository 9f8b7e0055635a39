"""Disks in a comparison: each pair has images of its own, and results name those of the user."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from colobench.errors import RemoteError
from colobench.lab.compare import calibrate, measure
from colobench.lab.compare.cells import make_cells
from colobench.lab.compare.comparison import Comparison
from colobench.lab.compare.models import Calibrations
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.session.disk_images import identify_disks
from measurements import make_calibration, make_measurement


@pytest.fixture
def sessions(monkeypatch):
    """Settings of the sessions that are made; starting one of them fails."""
    made = []

    def fail(**_):
        raise RemoteError("expected a pair, found none")

    def make(settings):
        made.append(settings)
        for disk in settings.guest.disk_settings():
            assert os.path.isdir(os.path.dirname(os.path.abspath(disk.image)))
        return SimpleNamespace(
            settings=identify_disks(settings), start=fail, close=lambda: None, records=()
        )

    for module in (measure, calibrate):
        monkeypatch.setattr(module, "Session", make)
    monkeypatch.setattr(measure, "check_machine", lambda: 10.0)
    return made


def make_cell(*disks):
    settings = ComparisonSettings().override(disks=list(disks))
    [cell] = make_cells(["colo_v12"], ["kv,ram=16M"], [], settings.pair)
    return cell, settings


def test_each_pair_has_new_images_where_there_are_none(sessions, tmp_path):
    cell, settings = make_cell(f"{tmp_path}/store.img,size=1M")
    for number in (1, 2):
        for run in (measure.measure_cell, calibrate.calibrate):
            with pytest.raises(measure.CellFailed):
                run(cell, number, settings)
    paths = {disk.image for each in sessions for disk in each.guest.disk_settings()}
    assert len(paths) == 4
    assert f"{tmp_path}/store.img" not in paths
    assert not list(tmp_path.iterdir())


def test_an_image_that_is_there_is_used(sessions, tmp_path):
    (tmp_path / "store.img").write_bytes(bytes(1 << 20))
    cell, settings = make_cell(f"{tmp_path}/store.img")
    with pytest.raises(measure.CellFailed):
        measure.measure_cell(cell, 1, settings)
    assert sessions == [cell.settings]


def test_a_calibration_counts_for_the_disks_that_the_user_named(sessions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.img").write_bytes(bytes(1 << 20))
    cell, settings = make_cell("old.img", "new.img,size=1M")
    columns = {name: each for name, each in make_calibration(cell).items() if name != "settings"}
    monkeypatch.setattr(calibrate, "_run", lambda *_: columns)
    found = calibrate.calibrate(cell, 1, settings)
    assert Calibrations([found]).of_pair(cell.settings)


def test_models_are_not_judged_by_a_guest_with_disks(tmp_path):
    cell, settings = make_cell(f"{tmp_path}/store.img,size=1M")
    comparison = Comparison((cell,), settings)
    comparison.add(make_measurement(cell, 1, settings, calibration=make_calibration(cell)))
    assert "because they leave out the disks of its guest: colo_v12 on kv" in repr(comparison)
    assert "%) !" not in repr(comparison)
