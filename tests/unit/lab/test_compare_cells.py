"""Cells of a comparison: texts become settings, and all are checked before anything starts."""

from __future__ import annotations

import pytest

from colobench.cli.main import main
from colobench.errors import LocalError
from colobench.guest.programs import Program
from colobench.lab.compare import run
from colobench.lab.compare.cells import in_rounds, make_cells, read_guest
from colobench.lab.compare.run import begin_comparison
from colobench.lab.compare.settings import USUAL_PAIR
from colobench.lab.session import places
from colobench.memory.trace_file import file_digest
from colobench.settings.checkpoint import Strategy
from traces import trace_file


def cells(*strategies, guests=("hotcold",), links=()):
    return make_cells(strategies, guests, links, USUAL_PAIR)


def test_each_strategy_meets_each_guest():
    found = cells("colo_v12", "memfd,delay=5", guests=("hotcold", "kv,ram=16M"))
    assert [(each.strategy, each.guest) for each in found] == [
        ("colo_v12", "hotcold"),
        ("memfd,delay=5", "hotcold"),
        ("colo_v12", "kv,ram=16M"),
        ("memfd,delay=5", "kv,ram=16M"),
    ]
    assert found[1].settings.checkpoint.delay == 5
    assert found[3].settings.guest.ram_bytes == 16 << 20
    assert not any(each.settings.checkpoint.verify for each in found)


def test_a_guest_that_serves_can_be_reached_before_it_is_protected():
    [found] = cells("colo_v12", guests=("kv",))
    assert found.settings.guest.program is Program.KV
    assert found.serves
    assert found.settings.network.hostfwd
    assert found.settings.network.serve_unprotected


def test_rounds_go_forth_and_back():
    found = cells("memfd,delay=1", "memfd,delay=2", "memfd,delay=3")
    order = [(number, cell.settings.checkpoint.delay) for number, cell in in_rounds(found, 3)]
    assert order == [(1, 1), (1, 2), (1, 3), (2, 3), (2, 2), (2, 1), (3, 1), (3, 2), (3, 3)]


def test_strategy_is_a_text_or_a_value():
    value = Strategy().override(transport="memfd", delay=20)
    [text, same] = cells("memfd,delay=20", value)
    assert text.settings == same.settings
    assert "delay=20" in same.strategy


class Patient:
    """A user's own trigger."""

    maximum = 300

    def __init__(self, pages):
        self.pages = pages

    def ask(self, seen):
        """Never ask for a checkpoint."""
        return 5


def test_a_users_own_trigger_is_a_strategy_whose_other_axes_are_usual():
    [plain, own] = cells("colo_v12", Patient(7))
    assert own.strategy == "Patient(pages=7)"
    found = own.settings.checkpoint
    assert (found.trigger.name, found.trigger.maximum) == ("Patient", 300)
    assert found.transport == plain.settings.checkpoint.transport


def test_a_strategy_with_a_users_own_trigger_is_named_by_it_and_by_its_axes():
    [own] = cells(Strategy().override(trigger=Patient(7), transport="memfd"))
    assert own.strategy.startswith("Patient(pages=7),transport=memfd+unix")


def test_anything_else_is_no_strategy():
    with pytest.raises(LocalError, match="expected a Strategy or a text, found 3"):
        cells(3)


@pytest.mark.parametrize("one", ["memfd", Strategy(transport="memfd"), Patient(7)])
def test_a_single_strategy_is_a_list_of_it(one):
    assert begin_comparison(one).cells == begin_comparison([one]).cells


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"strategies": None}, "compare: expected a list of strategies, found None"),
        ({"guest": None}, "guest: expected a list of texts, found None"),
        ({"guest": [5]}, r"guest: expected a list of texts, found \[5\]"),
        ({"link": 5}, "link: expected a list of texts, found 5"),
    ],
    ids=str,
)
def test_what_is_no_list_is_refused(wrong, words):
    with pytest.raises(LocalError, match=words):
        begin_comparison(**{"strategies": ["colo_v12"], **wrong})


def test_a_strategy_sets_all_axes_so_none_is_given_beside():
    with pytest.raises(LocalError, match="expected delay in each strategy"):
        begin_comparison(["colo_v12"], delay=20)


def test_guest_may_have_settings():
    assert read_guest("hotcold,writes_per_tick=200,ram=16M") == {
        "guest": "hotcold",
        "writes_per_tick": 200,
        "ram": "16M",
    }


@pytest.mark.parametrize(
    ("strategies", "guests", "words"),
    [
        (["nonsense"], ["hotcold"], "nonsense"),
        (["colo_v12,delay=soon"], ["hotcold"], "delay: expected a whole number"),
        (["colo_v12,delay=5,delay=6"], ["hotcold"], "expected each axis once, found delay twice"),
        (["colo_v12"], ["hotcold,ram=16M,ram=32M"], "each setting once, found ram twice"),
        (["multifd,layout=buffered"], ["hotcold"], "expected transport stream"),
        (["colo_v12"], ["windows"], "windows"),
        (["colo_v12"], ["hotcold,delay=3"], "guest: expected ram="),
        (["colo_v12", "colo_v12"], ["hotcold"], "colo_v12 on hotcold twice"),
        ([], ["hotcold"], "at least one strategy"),
    ],
)
def test_mistakes_are_refused_by_name(strategies, guests, words):
    with pytest.raises(LocalError, match=words):
        cells(*strategies, guests=guests)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--strategies", "memfd", "memfd"], "compare: expected each cell once"),
        (["reproduce", "nothing"], "reproduce: expected one of"),
        (["reproduce", "xbzrle", "--rounds", "0"], "reproduce: "),
    ],
)
def test_error_of_a_verb_names_it_once(arguments, words, capsys):
    assert main(arguments) != 0
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"colobench {words}")
    assert line.count(f"{arguments[0]}: ") == 1


def test_no_output_replaces_another(tmp_path, capsys):
    file, cells = tmp_path / "found.parquet", tmp_path / "found-cells.parquet"
    for options in (
        ["compare", "--results", f"{file}", "--html", f"{tmp_path}/./found.parquet"],
        ["reproduce", "xbzrle", "--json", f"{file}", "--html", f"{file}"],
        ["bench", "--json", f"{file}", "--html", f"{file}"],
    ):
        assert main(options) != 0
        assert "found.parquet: expected a file each, found it for" in capsys.readouterr().err
    stream = tmp_path / "stream"
    stream.write_bytes(b"QEVM")
    link = tmp_path / "link-of-stream"
    link.hardlink_to(stream)
    for name in (stream, link):
        for options in (["--html", f"{name}"], ["--extract", f"pc.ram={name}"]):
            assert main(["decode", f"{stream}", *options]) != 0
            assert "stream: expected a file each" in capsys.readouterr().err
    assert stream.read_bytes() == b"QEVM"
    pytest.importorskip("pyarrow")
    cells.mkdir()
    assert main(["compare", "--parquet", f"{file}"]) != 0
    assert "found-cells.parquet: expected a file that can be written" in capsys.readouterr().err


def test_a_trace_is_known_by_its_contents_before_anything_is_measured(tmp_path):
    path = tmp_path / "sort.npz"
    guest = f"replay,ram=8M,trace={path}"
    with pytest.raises(LocalError, match=r"colo_v12 on replay.*: trace .* cannot be read"):
        cells("colo_v12", guests=[guest])
    found = []
    for pages in ([1], [2, 3]):
        trace_file(path, [pages])
        found += cells("colo_v12", guests=[guest])
    digests = [each.settings.guest.trace_sha256 for each in found]
    assert digests[0] != digests[1] == file_digest(path)
    path.write_text("no trace")
    with pytest.raises(LocalError, match="expected a NumPy archive"):
        cells("colo_v12", guests=[guest])


def test_what_a_cell_lacks_is_found_before_another_is_measured(monkeypatch):
    def missing(found):
        raise LocalError(f"{found}: not installed")

    monkeypatch.setattr("colobench.lab.session.places.library", missing)
    monkeypatch.setattr(run, "calibrate", None)
    monkeypatch.setattr(run, "measure_cell", None)
    comparison = begin_comparison(["colo_v12", "multifd_zstd"])
    with pytest.raises(LocalError, match="zstd: not installed"):
        run.measure_missing(comparison)


@pytest.mark.parametrize(
    ("strategy", "copies"), [("colo_v12", 4), ("remus", 5), ("cow", 6), ("cow2", 8)]
)
def test_memory_for_copies_counts(monkeypatch, strategy, copies):
    usable = places.PROCESSES_BYTES + copies * (16 << 20)
    monkeypatch.setattr(places, "usable_memory", lambda: usable)
    cells(strategy, guests=["hotcold,ram=16M"])
    with pytest.raises(LocalError, match="ram: expected at most 16 MiB where"):
        cells(strategy, guests=["hotcold,ram=20M"])
