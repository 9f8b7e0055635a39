"""The benchmark: fair comparisons, honest rows, and every case of it run on something tiny."""

from __future__ import annotations

import ctypes
import json
import math
import re
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from browser import needs_chromium, open_page
from colobench.errors import LocalError, RemoteError
from colobench.kernels import bitmap, xbzrle
from colobench.lab.bench import markdown, text
from colobench.lab.bench.case import (
    SUBJECTS,
    TWO_CORES,
    Case,
    Subject,
    at_least,
    at_most,
    judge,
    quartiles,
)
from colobench.lab.bench.context import PAGE_SIZE, BenchContext
from colobench.lab.bench.measured import Measured, Unavailable
from colobench.lab.bench.page import write_bench_page
from colobench.lab.bench.reference import ENVIRONMENT_VARIABLE, INSTRUCTION_SETS, References
from colobench.lab.bench.run import as_json, run, subjects
from colobench.lab.bench.subjects import bitmaps
from colobench.lab.bench.subjects import xbzrle as xbzrle_subject
from colobench.lab.bench.subjects.checkpoints import Pair
from colobench.lab.bench.timing import MOST_TIMES, alternate, timed
from colobench.processes.hostinfo import describe_everything
from places import CLONE
from share import amount, some

pytestmark = pytest.mark.usefixtures("nothing_left")

KEYS = [
    *("name", "case", "ours", "reference", "unit", "ratio", "target", "met", "note"),
    *("ours_spread", "reference_spread", "two_threads", "settings"),
]
MACHINE = {
    "processor": "Abacus 9000",
    "cores": 2,
    "caches": {"L1 Data": "32K"},
    "kernel": "6.1",
    "python": "3.11",
    "numba": "0.61",
    "memcpy_gb_per_s": 10.0,
    "memcpy_two_threads_gb_per_s": 19.0,
    "date": "2026-01-02T03:04:05+00:00",
    "commit": None,
}

positive = st.floats(1e-6, 1e6)
samples = st.lists(positive, min_size=1, max_size=20)


def row(ours=1.0, reference=2.0, *, name="subject", case="case, peer", cores=(), **options):
    """Make a row as if so much had been measured."""
    theirs = () if reference is None else [reference]
    measured = Measured([ours], theirs, cores, options.pop("note", ""))
    return judge(name, Case(case, "ms", lambda: measured, **options), measured)


@pytest.fixture
def only(monkeypatch):
    """Give what replaces all subjects by one with these cases."""
    subjects()

    def replace(*cases, name="made up"):
        monkeypatch.setitem(SUBJECTS, name, Subject(name, "", lambda _: list(cases)))
        for other in set(SUBJECTS) - {name}:
            monkeypatch.delitem(SUBJECTS, other)

    return replace


# -- Comparing ---------------------------------------------------------------------------------


def test_samples_are_taken_round_about_and_nobody_always_follows_the_same_other():
    taken = []

    def sampler(name):
        return lambda: taken.append(name) or float(len(taken))

    first, second, third = alternate([sampler("a"), sampler("b"), sampler("c")], 3)
    # The first of each warms up and is thrown away.
    assert "".join(taken) == "abc" + "abc" + "cba" + "abc"
    assert (first, second, third) == ([4, 9, 10], [5, 8, 11], [6, 7, 12])


def test_quick_samples_get_more_rounds_but_not_without_end():
    assert len(alternate([lambda: 1.0], 3, enough_seconds=math.inf)[0]) == MOST_TIMES * 3


def test_work_with_a_preparation_is_done_once_for_each_preparation():
    done = []
    sampler = timed(lambda: done.append("work"), lambda: done.append("preparation"))
    assert all(sampler() > 0 for _ in range(5))
    assert done == ["preparation", "work"] * 5


def test_short_work_is_timed_many_times_in_one_sample():
    done = []
    sampler = timed(lambda: done.append(1))
    sampler()
    before = len(done)
    sampler()
    assert len(done) - before > 10


def test_what_the_thread_waits_for_counts_only_on_a_clock_that_goes_on():
    def wait():
        threading.Event().wait(0.05)

    assert timed(wait)() < timed(wait, clock=time.perf_counter)()


@given(samples, samples)
def test_figures_are_medians_and_quartiles_and_their_ratio(ours, theirs):
    found = judge("subject", Case("case", "ms", lambda: None), Measured(ours, theirs))
    assert found.ours == pytest.approx(np.median(ours))
    assert found.reference == pytest.approx(np.median(theirs))
    assert found.ratio == pytest.approx(np.median(ours) / np.median(theirs))
    assert found.ours_spread == pytest.approx(np.percentile(ours, [25, 75]))
    assert quartiles([]) is None


# -- Judging -----------------------------------------------------------------------------------


@given(positive, positive, positive)
def test_a_bound_is_met_on_its_own_side_and_on_it(ours, reference, bound):
    ratio = ours / reference
    assert row(ours, reference, target=at_most(bound)).met is (ratio <= bound)
    assert row(ours, reference, target=at_least(bound)).met is (ratio >= bound)
    assert row(ours, reference, target=at_most(bound, "ms")).met is (ours <= bound)
    assert row(ours, reference, target=at_most(ratio)).met is True


def test_bounds_read_as_one_writes_them():
    bounds = at_most(1.1), at_least(25), at_least(1.0), at_most(1.2, "ms")
    assert [str(bound) for bound in bounds] == ["≤ 1.1", "≥ 25", "≥ 1.0", "≤ 1.2 ms"]


@pytest.mark.parametrize(
    ("cores", "one_core", "met", "target", "says"),
    [
        ((), None, True, "≤ 1.0", ""),
        ([1.7, 1.9, 0.5], None, True, "≤ 1.0", ""),
        ([1.2, 1.9, 1.1], None, None, "≤ 1.0", "the machine gives 1.2 cores at the moment"),
        ([TWO_CORES], None, None, "≤ 1.0", "not judged"),
        ([1.9], at_most(0.4), True, "≤ 1.0", ""),
        ([1.2], at_most(0.4), False, "≤ 0.4", "the target for one core is judged"),
        ([1.2], at_most(0.6), True, "≤ 0.6", "the target for one core is judged"),
        ([1.2], at_most(1.0), True, "≤ 1.0", ""),
    ],
)
def test_what_needs_two_cores_is_judged_only_where_there_are_two(
    cores, one_core, met, target, says
):
    found = row(1, 2, cores=cores, target=at_most(1.0), one_core=one_core)
    assert (found.met, found.target) == (met, target)
    assert says in found.note
    assert bool(says) == bool(found.note)
    assert found.two_threads == (np.median(cores) if len(cores) else None)


def test_what_is_not_judged_says_why():
    assert row(1, 2).note == "no target"
    assert row(1, 2, note="so far").note == "so far; no target"
    assert row(1, None, target=at_most(1.0)).met is None


# -- Running -----------------------------------------------------------------------------------


def failing(error):
    def measure():
        raise error

    return Case("case", "ms", measure, at_most(1.0))


def test_what_is_missing_has_a_row_that_says_so_and_what_failed_is_counted(only):
    fine = Case("fine", "ms", lambda: Measured([1.0], [2.0]), at_most(1.0))
    only(failing(Unavailable("no anvil")), failing(RemoteError("it fell\non my foot")), fine)
    with BenchContext() as context:
        rows = list(run([], context))
        assert context.failures == ["made up, case: it fell"]
    assert [each.note for each in rows] == ["not measured: no anvil", "failed: it fell", ""]
    assert [each.met for each in rows] == [None, None, True]
    assert rows[0].target == "≤ 1.0"
    assert rows[0].ours is rows[0].reference is rows[0].ratio is None


def test_progress_tells_each_row_before_it_is_measured(only):
    told = []
    only(*(Case(f"case {i}", "ms", lambda: Measured([float(len(told))])) for i in range(3)))
    with BenchContext() as context:
        rows = list(run([], context, lambda *progress: told.append(progress)))
    assert told == [(f"made up: case {i}", i, 3) for i in range(3)]
    assert [each.ours for each in rows] == [1, 2, 3]


def test_json_has_exactly_these_keys_and_four_digits(only):
    only(Case("case", "ms", lambda: Measured([1.23456789, 2], [3], [1.9]), at_most(1.1)))
    with BenchContext() as context:
        found = json.loads(json.dumps(as_json(MACHINE, list(run([], context)))))
    assert list(found) == ["machine", "results"]
    assert found["machine"] == MACHINE
    (result,) = found["results"]
    assert list(result) == KEYS
    assert result["ours"] == 1.617
    assert result["ours_spread"] == [1.426, 1.809]
    assert result["two_threads"] == 1.9
    assert result["met"] is True


@pytest.mark.parametrize("name", some(sorted(subjects()), 12))
def test_every_case_runs(name, only):
    with BenchContext(rounds=amount(1, 2), shrink=256) as context:
        cases = list(subjects()[name].cases(context))
        if name == "checkpoint":
            # Each starts a pair.
            cases = some(cases, 5)
            only(*cases, name=name)
        planned = [each.case for each in cases]
        rows = list(run([name], context))
        assert context.failures == []
    assert [each.case for each in rows] == planned
    for each in rows:
        assert each.name == name
        if each.ours is None:
            assert each.note.startswith("not measured: ")
            assert each.met is None
        else:
            assert each.ours > 0
            assert (each.ratio is None) == (each.reference is None)


def test_a_machine_without_a_compiler_still_measures_what_needs_none(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with BenchContext(rounds=1, shrink=4096) as context:
        rows = list(run(["bitmap"], context))
    missing = "not measured: no C compiler (no-such-compiler) on PATH"
    assert {each.note for each in rows if "C with" in each.case or "C for" in each.case} == {
        missing
    }
    assert all(each.ratio for each in rows if "numpy" in each.case)


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'out of ink' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    references = References()
    with pytest.raises(Unavailable, match=r"cannot compile bitmap\.c: out of ink"):
        references.function("bitmap.list_runs")
    references.close()


def test_a_function_that_was_not_compiled_for_this_processor_is_missing():
    references = References()
    with pytest.raises(Unavailable, match="lacks what C's levitate needs"):
        references.function("bitmap.levitate")
    references.close()


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_references_use_the_instructions_asked_for_and_their_cases_say_which(name, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, name)
    try:
        context = BenchContext(rounds=1, shrink=4096)
    except LocalError as error:
        pytest.skip(str(error))
    with context:
        for subject_name in ("bitmap", "runs", "zero", "xbzrle"):
            rows = [row for row in run([subject_name], context) if "numpy" not in row.case]
            assert {row.case.rpartition(", ")[2] for row in rows} <= {
                each.words for each in INSTRUCTION_SETS.values()
            }
            assert all(row.ratio for row in rows)
        best = next(iter(rows)).case
    assert best.endswith(INSTRUCTION_SETS[name].words)


def test_instructions_that_there_are_not_are_refused():
    with pytest.raises(LocalError, match=r"expected one of .*plain, found 'abacus'"):
        References("abacus")


def test_a_machine_without_xxhash_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "xxhash", None)
    with BenchContext(rounds=1, shrink=4096) as context:
        (found,) = run(["digest"], context)
    assert found.note == "not measured: the package xxhash is not installed: pip install xxhash"


def test_a_machine_with_too_little_memory_says_how_much_it_takes(monkeypatch):
    monkeypatch.setattr("colobench.lab.bench.context.usable_memory", lambda: 2.0**29)
    with BenchContext(rounds=1) as context:
        rows = list(run(["flush", "ram_size"], context))
    assert {each.name for each in rows} == {"flush", "ram_size"}
    assert all(re.match(r"not measured: .* GiB of memory, where", each.note) for each in rows)


# -- Measuring the same thing ------------------------------------------------------------------


@pytest.fixture(scope="module")
def references():
    held = References()
    # Compiled here and not in a test, whose temporary directory is to be empty at its end.
    for name in ("bitmap.list_runs", "xbzrle.xbzrle_decode_pages"):
        with suppress(Unavailable):
            held.function(name)
    yield held
    held.close()


def refer(references, name, *arguments):
    try:
        return references.function(name, *arguments, result=ctypes.c_int64)()
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("density", bitmaps.DENSITIES)
@pytest.mark.parametrize(
    ("kernel", "reference", "arrays"),
    [("list_pages", "list_pages_{}", 1), ("list_runs", "list_runs", 2)],
)
def test_lists_in_c_are_those_of_the_kernels(references, density, kernel, reference, arrays):
    words = bitmaps.dirty(64_000, density)
    assert bitmap.popcount(words) == round(64_000 * density)
    ours, theirs = np.full((2, arrays, 64_000 + bitmap.LIST_SLACK), -1, dtype=np.int32)
    count = getattr(bitmap, kernel)(words, *ours)
    best = references.best("avx512", "avx2").name
    assert (
        refer(references, f"bitmap.{reference}".format(best), words, len(words), *theirs)
        == count
        > 0
    )
    assert np.array_equal(ours[:, :count], theirs[:, :count])


@pytest.mark.parametrize(("percent", "cluster"), xbzrle_subject.CHANGES)
def test_pages_are_encoded_in_c_as_by_the_kernel_and_decoded_by_both(references, percent, cluster):
    count = 8
    old = np.random.default_rng(1).integers(0, 256, count * PAGE_SIZE, dtype=np.uint8)
    new = xbzrle_subject.change(old, percent, cluster)
    assert np.count_nonzero(old != new) == round(PAGE_SIZE / cluster * percent / 100) * cluster * 8
    numbers, lengths = np.arange(count, dtype=np.int32), np.zeros((2, count), dtype=np.int32)
    ours, theirs = np.zeros((2, count * PAGE_SIZE + xbzrle.SLACK), dtype=np.uint8)
    size = xbzrle.encode_pages(old, new, numbers, count, ours, lengths[0])
    best = references.best("avx512", "avx2", "neon").name
    name = f"xbzrle.xbzrle_encode_pages_{best}"
    assert refer(references, name, old, new, numbers, count, theirs, lengths[1]) == size
    assert np.array_equal(*lengths)
    assert np.array_equal(ours[:size], theirs[:size])
    here, there = old.copy(), old.copy()
    encoded = ours[:size]
    xbzrle_subject.decode_pages(here, numbers, count, encoded, lengths[0])
    refer(references, "xbzrle.xbzrle_decode_pages", there, numbers, count, encoded, lengths[0])
    assert np.array_equal(here, there)
    if (lengths[0] != xbzrle.OVERFLOW).all():
        assert np.array_equal(here, new)


def test_a_pair_stands_still_unless_it_takes_a_checkpoint_of_all_its_pages():
    with BenchContext() as context, Pair(context, 500, "stream", 16) as pair:
        for _ in range(3):
            assert pair.sample() > 0
            for node in pair.session.nodes.values():
                assert psutil.Process(node.pid).status() == psutil.STATUS_STOPPED
        assert all(record.pages >= 500 for record in pair.session.records[-3:])


def test_a_pair_that_cannot_be_is_refused_before_it_starts():
    with BenchContext() as context, pytest.raises(LocalError, match="pigeon"):
        Pair(context, 500, "pigeon", 16)


# -- Showing -----------------------------------------------------------------------------------


def made_up_rows():
    return [
        row(1.0, 2.0, name="copy", case="small, peer", target=at_most(0.9)),
        row(1500.0, 1000.0, name="copy", case="large, peer", target=at_most(0.9)),
        row(8.0, 2.0, name="speed", case="only <this>, peer", target=at_least(2.5)),
        row(8.0, 2.0, name="speed", case="unjudged, peer", cores=[1.2], target=at_least(2.5)),
        row(3.0, None, name="start", case="first", target=at_most(5, "ms")),
        row(3.0, 1.0, name="start", case="unbounded"),
    ]


def test_the_terminal_table_is_aligned_and_grouped():
    lines = text.render(made_up_rows()).splitlines()
    assert lines[-1] == "3 of 4 targets met, 1 more could not be judged; 6 rows"
    assert [line for line in lines if line and line[0] != " "][:-1] == ["copy", "speed", "start"]
    cases = [line for line in lines if re.match(r"  \w", line)]
    assert len({line.index(" ms ") for line in cases[1:]}) == 1
    assert "1,500" in lines[3]
    assert "✗" in lines[3]
    assert "two threads' memcpy: 1.20 × one's" in lines[6]


def test_the_table_of_the_readme_tells_the_worst_of_each_bound():
    table = markdown.bench_table(as_json(MACHINE, made_up_rows())).splitlines()
    assert table[0].startswith("Measured 2026-01-02 on 2 cores of Abacus 9000")
    assert table[2].count("|") == table[3].count("|") == 8
    assert table[4:] == [
        "| copy | large, peer | 1,500 ms | 1,000 ms | 1.50 | ≤ 0.9 | 1 of 2 |",
        "| speed | only <this>, peer | 8.00 ms | 2.00 ms | 4.00 | ≥ 2.5 | 1 of 1, 1 not judged |",
        "| start | first | 3.00 ms | – | – | ≤ 5 ms | 1 of 1 |",
    ]


def test_the_table_of_pauses_has_a_line_for_each_number_of_pages_with_its_ratios():
    rows = [
        row(
            ours, 10.0, name="peers", case=f"{pages}k pages, {transport}, QEMU", target=at_most(0.5)
        )
        for pages, transport, ours in (
            (50, "multifd", 5.0),
            (50, "memfd", 2.0),
            (1, "multifd", 1.0),
        )
    ]
    rows.append(row(0.5, 12.0, name="peers", case="1k pages, memfd, QEMU", target=at_most(0.5)))
    assert markdown.pause_table(as_json(MACHINE, rows)).splitlines()[2:] == [
        "| 1,000 | 1.00 ms (ratio 0.100) | 0.500 ms (ratio 0.0417) | 10.0 to 12.0 ms |",
        "| 50,000 | 5.00 ms (ratio 0.500) | 2.00 ms (ratio 0.200) | 10.0 to 10.0 ms |",
    ]


def test_the_figures_in_the_readme_are_those_of_the_newest_run_kept():
    runs = [json.loads(path.read_text()) for path in (CLONE / "datasets/bench").glob("*.json")]
    newest = max(runs, key=lambda each: each["machine"]["date"])
    readme = (CLONE / "README.md").read_text("utf-8")
    for name, table in markdown.TABLES.items():
        shown = readme.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]
        assert shown.strip() == table(newest)


def test_tables_are_written_between_their_comments_and_nowhere_else(tmp_path):
    run, readme = tmp_path / "run.json", tmp_path / "README.md"
    run.write_text(json.dumps(as_json(MACHINE, made_up_rows())))
    readme.write_text("above\n<!-- bench -->\nold\n<!-- end of bench -->\nbelow\n")
    assert markdown.main([str(run), str(readme)]) == 0
    table = markdown.bench_table(json.loads(run.read_text()))
    assert readme.read_text() == f"above\n<!-- bench -->\n{table}\n<!-- end of bench -->\nbelow\n"
    assert markdown.main([]) == 2


def test_the_machine_is_described():
    found = describe_everything()
    assert found.keys() >= MACHINE.keys()
    assert found["memcpy_two_threads_ratio"] > 0
    assert found["numpy"] == np.__version__
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("rows", [[], made_up_rows()], ids=["nothing", "rows"])
def test_the_page_loads_nothing_and_shows_every_row(tmp_path, rows):
    page = write_bench_page(tmp_path / "page.html", MACHINE, rows).read_text("utf-8")
    outside = re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!data:,)', outside)
    assert "Abacus 9000" in page
    assert "only &lt;this&gt;" in page or not rows
    assert "$" not in outside


@pytest.mark.parametrize("dark", [False, True])
class TestInChromium:
    pytestmark = needs_chromium

    def test_the_page_draws_its_plots(self, tmp_path, dark):
        path = write_bench_page(tmp_path / "page.html", MACHINE, made_up_rows())
        with open_page() as page:
            page.unroute_all()
            page.emulate_media(color_scheme="dark" if dark else "light")
            page.goto(path.as_uri())
            page.wait_for_function("Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle")
            assert page.evaluate("Bokeh.documents[0].roots().length") == 3
            assert page.locator(".results tr").count() == 1 + 3 + 6
