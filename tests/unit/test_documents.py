"""Documents: the files and names of the package that they mention exist."""

from __future__ import annotations

import ast
import re

import pytest

from places import CLONE

DOCUMENTS = [*CLONE.glob("*.md"), *(CLONE / "docs").glob("*.md")]
#: A file in backticks, with names of it in backticks behind a colon.
NAMED = re.compile(r"`([a-z_./]+\.(?:py|js|c))`(?::((?: `[A-Za-z_.]+`,?)+))?")


def names_of(source: str) -> set[str]:
    """Give what a module defines: functions, classes, their methods, constants, what it imports."""
    names = set()

    def add(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    add(node.body, f"{node.name}.")
            targets = (
                node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            )
            names.update(prefix + each.id for each in targets if isinstance(each, ast.Name))

    add(ast.parse(source).body, "")
    return names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_names_that_a_document_mentions_exist(document):
    missing = []
    for path, names in NAMED.findall(document.read_text()):
        found = [base / path for base in (CLONE, CLONE / "colobench") if (base / path).is_file()]
        if not found:
            missing.append(path)
            continue
        for name in re.findall(r"`([^`]+)`", names):
            if name not in names_of(found[0].read_text()):
                missing.append(f"{path}: {name}")
    assert missing == []


def test_table_of_qemus_functions_names_ours_on_each_line():
    text = (CLONE / "ARCHITECTURE.md").read_text()
    table = text.partition("## QEMU's functions, and ours")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("|")][2:]
    steps = [(step.strip(), qemu, ours) for step, qemu, ours in rows if qemu.strip()]
    assert len(steps) > 25
    for step, qemu, ours in steps:
        assert re.search(r"`[a-z_]+`", qemu), step
        assert NAMED.search(ours), step
