"""A real VM in a study: live where there are QEMU and KVM, and the same from a recording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from colobench.lab.session.record import Records
from colobench.lab.studies import real_vm
from colobench.lab.studies.real_vm import RecordedVM
from colobench.peers.qemu import QEMUUnavailable
from colobench.ui import RealVMPlot


@pytest.fixture(params=["live", "recorded"])
def vm(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[real_vm.RealVM]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def unavailable() -> list[str]:
        raise QEMUUnavailable("no KVM")

    if request.param == "recorded":
        monkeypatch.setattr(real_vm, "example_command", unavailable)
    with closing(real_vm.real_vm()) as found:
        if request.param == "live" and isinstance(found, RecordedVM):
            pytest.skip(found.source)
        yield found
    assert list(tmp_path.iterdir()) == []


def test_killed_vm_comes_back_from_its_last_committed_checkpoint(vm: real_vm.RealVM) -> None:
    checkpoints = vm.run(5)
    assert len(checkpoints) >= 4
    # A live guest without a core writes fewer.
    assert 0 < max(each.pages for each in checkpoints) <= 24
    assert vm.source.startswith("QEMU") or {each.pages for each in checkpoints} == {24}
    plot = RealVMPlot(vm, Records())
    assert len(plot.figure_data().tables["real VM"]["pause"]) == len(vm.checkpoints)
    plot.close()
    vm.kill()
    committed = vm.receiver.committed
    back = vm.bring_back()
    assert back.number == committed
    assert back.later > back.counter > 0
