"""Names of the package: one word for one thing, and private names stay in their module."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import colobench

PACKAGE = Path(colobench.__file__).parent
PALETTE = PACKAGE / "lab" / "report" / "palette.py"
#: A colour as CSS writes it: #rgb, #rgba, #rrggbb or #rrggbbaa.
COLOUR = re.compile(r"#(?:[0-9a-fA-F]{3,4}){1,2}\b")


def test_no_two_public_classes_have_the_same_name():
    places = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    doubles = {name: found for name, found in places.items() if len(found) > 1}
    assert doubles == {}


def test_no_module_imports_private_names_of_another():
    found = {
        f"{path.relative_to(PACKAGE)}: {node.module}.{alias.name}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("colobench")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    }
    assert found == set()


def test_all_colours_of_python_of_the_browsers_side_and_of_pages_stand_in_the_palette():
    found = {
        f"{path.relative_to(PACKAGE)}: {colour}"
        for kind in ("py", "js", "html")
        for path in PACKAGE.rglob(f"*.{kind}")
        if path != PALETTE
        for colour in COLOUR.findall(path.read_text())
    }
    # An example in a docstring names one that anybody may choose.
    assert found <= {"ui/views/page_sets.py: #3377ee"}
