"""The notebooks, as they are kept: readable without running them, small, and kept to their form."""

from __future__ import annotations

import re

import nbformat
import pytest

from places import CLONE

DIRECTORY = CLONE / "notebooks"
NOTEBOOKS = sorted(DIRECTORY.glob("*.ipynb"))
SIZE_LIMIT = 300_000

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    return [each for each in nbformat.read(path, as_version=4).cells if each.cell_type == kind]


def outputs(path):
    return [output for cell in cells(path, "code") for output in cell.outputs]


def test_it_is_small(path):
    assert path.stat().st_size < SIZE_LIMIT


def test_it_was_run_from_top_to_bottom_without_an_error_or_a_warning(path):
    counts = [cell.execution_count for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))
    for output in outputs(path):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"


def test_it_keeps_no_output_that_is_dead_without_a_kernel(path):
    kinds = {kind for output in outputs(path) for kind in output.get("data", {})}
    assert kinds <= {"text/plain", "text/html", "image/png"}
    assert all(
        "<script" not in output.get("data", {}).get("text/html", "") for output in outputs(path)
    )


def test_its_outputs_name_no_directory_of_the_machine_that_ran_it(path):
    texts = [output.get("text", "") for output in outputs(path)]
    texts += [output.get("data", {}).get("text/plain", "") for output in outputs(path)]
    # The files of a distribution are at the same place for each reader.
    for text in texts:
        assert not re.findall(r"(?:^|[\s'\"(=])(/(?!usr/|dev/|proc/|sys/)\w[\w.-]*/\S+)", text)


def test_a_picture_says_that_it_is_one_and_what_it_shows(path):
    for cell in cells(path, "code"):
        if "picture" not in cell.metadata:
            continue
        *_, words, picture = cell.outputs
        assert len(cell.metadata.alt.split()) > 5
        assert picture.data["text/plain"] == cell.metadata.alt
        assert words.data["text/plain"].startswith("A picture")
        assert words.data["text/plain"].endswith("Run the cell for the live one.")


def test_every_claim_that_is_checked_has_an_output_to_check_against(path):
    checked = [
        cell
        for cell in cells(path, "code")
        if "nbval-check-output" in cell.metadata.get("tags", [])
    ]
    assert checked
    for cell in checked:
        assert cell.outputs
        text = "".join(output.text for output in cell.outputs)
        assert "False" not in text


def test_it_says_what_it_is_for_and_ends_with_exercises_and_a_way_on(path):
    text = [cell.source for cell in cells(path, "markdown")]
    assert text[0].startswith("# ")
    assert "Time" in text[0] or "to run" in text[0]
    assert "Needs" in text[0] or "needs" in text[0]
    assert "## Exercises" in text[-1]
    assert re.search(r"(Next|Back): \[", text[-1])


def test_its_links_lead_somewhere(path):
    for cell in cells(path, "markdown"):
        for link in re.findall(r"\]\(([^)#]+)\)", cell.source):
            assert link.startswith("https://") or (DIRECTORY / link).is_file(), link


def test_it_imports_only_what_users_import(path):
    code = "\n".join(cell.source for cell in cells(path, "code"))
    imports = [line for line in code.splitlines() if re.match(r"\s*(import|from)\b", line)]
    allowed = {
        "import tempfile",
        "import colobench as cb",
        "from colobench import ui",
        "from colobench import doctor, ui",
    }
    assert set(imports) <= allowed


def test_its_text_states_no_ratio_that_the_next_run_may_contradict(path):
    for cell in cells(path, "markdown"):
        assert not re.search(r"[\d.]+ ×", cell.source), cell.source


def test_running_all_of_it_does_not_play_the_readers_round(path):
    made = [cell.source for cell in cells(path, "code")]
    for number, source in enumerate(made):
        for name in re.findall(r"^(\w+) = ui\.FlushGuess\(", source, re.M):
            assert not any(re.search(rf"\b{name}\.", later) for later in made[number:])
