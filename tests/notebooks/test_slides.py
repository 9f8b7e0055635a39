"""The lecture's slides: one file with all pictures in it, each of which has words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat

from places import CLONE

LECTURE = CLONE / "docs" / "lecture.ipynb"


def test_the_slides_are_one_file_with_all_pictures_in_it(tmp_path: Path) -> None:
    options = ["--to", "slides", "--embed-images", "--output-dir", str(tmp_path)]
    command = [sys.executable, "-m", "nbconvert", *options, str(LECTURE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [page] = [path.read_text("utf-8") for path in tmp_path.iterdir()]
    cells = nbformat.read(LECTURE, as_version=4).cells
    slides = [cell for cell in cells if cell.metadata.slideshow.slide_type == "slide"]
    assert page.count("<section><section>") == len(slides)
    pictures = re.findall(r"<img\b[^>]*>", page)
    assert len(pictures) == sum(cell.source.count("![") for cell in cells)
    for each in pictures:
        assert 'src="data:image/' in each
        assert re.search(r'alt="[^"]{20,}"', each), each[:200]
