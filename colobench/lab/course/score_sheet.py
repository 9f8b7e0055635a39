"""Score sheet: what was earned of what can be earned, by notebook; and its file for a teacher."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import show
from colobench.lab.course.lesson import lesson, lesson_numbers
from colobench.lab.course.score_book import ScoredAnswer, book
from colobench.text_table import align

FORMAT = "colobench scores 1"
NOTE = (
    "The hash shows a change by accident. It is not secure: everybody can compute it, so it does "
    "not prove who solved anything."
)
#: Bytes; a file of scores has about 10,000.
SIZE_LIMIT = 1_000_000
#: Characters of a name.
NAME_LIMIT = 60
#: Tries that this process has put into files, by file, kind and number: the next export to the
#: same file adds those since.
_exported: dict[tuple[Path, str, str], int] = {}


@dataclass(frozen=True, slots=True)
class ScoreSheet:
    """Scores of one student.

    Attributes
    ----------
    name
        Name of the student; empty without one.
    scores
        Scores in the order of their numbers.
    """

    name: str
    scores: tuple[ScoredAnswer, ...]

    def earned(self, notebook: str) -> float:
        """Sum up the points of a notebook."""
        return sum(score.points for score in self.scores if score.notebook == notebook)

    @property
    def total(self) -> float:
        """Sum of all points."""
        return sum(score.points for score in self.scores)

    def export(self, path: str | os.PathLike[str], *, name: str = "") -> Path:
        """Write the scores into a JSON file, with a hash over it.

        Scores that the file has already are kept, so one file can collect a whole course, from
        many kernels: of an exercise the best answer counts, of a prediction the first, which is the
        file's. The file has no times.

        Parameters
        ----------
        path
            File to write.
        name
            Name of the student, if wanted.

        Raises
        ------
        LocalError
            If the file exists and is no file of scores, or cannot be written.
        """
        target = Path(path)
        kept = read_scores(target) if target.exists() else ScoreSheet("", ())
        merged = {(each.kind, each.number): each for each in kept.scores}
        for each in self.scores:
            key = each.kind, each.number
            merged[key] = _after(merged[key], each, target) if key in merged else each
        scores = [_as_json(merged[key]) for key in sorted(merged)]
        known = _legible(str(name or self.name or kept.name))
        content = {"format": FORMAT, "note": NOTE, "name": known, "scores": scores}
        text = json.dumps(content | {"sha256": _hash(content)}, indent=1, ensure_ascii=False)
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            fresh.write_text(f"{text}\n", encoding="utf-8")
            fresh.replace(target)
        except OSError as error:
            raise LocalError(f"scores: {target} cannot be written: {error.strerror}") from error
        for each in self.scores:
            _exported[target.resolve(), each.kind, each.number] = each.tries
        return target

    def __repr__(self) -> str:
        if not self.scores:
            return "No answer so far."
        rows = [("notebook", "points", "of", "answered", "of")]
        for notebook in sorted({score.notebook for score in self.scores}):
            answered = sum(score.notebook == notebook for score in self.scores)
            most = possible(notebook)
            rows.append((notebook, f"{self.earned(notebook):g}", most, str(answered), most))
        return "\n".join(align(rows, right={1, 2, 3, 4}))


def _after(kept: ScoredAnswer, own: ScoredAnswer, target: Path) -> ScoredAnswer:
    """Add to a file's score what this process has not put into the file yet."""
    earlier = _exported.get((target.resolve(), own.kind, own.number), 0)
    # Fewer tries than were exported are those of a book that was emptied in between.
    tries = own.tries - earlier if own.tries >= earlier else own.tries
    return kept.after(own.points, tries)


def possible(notebook: str) -> str:
    """Give the points that a notebook has, as text."""
    return str(len(lesson(notebook).numbers()))


def scores() -> ScoreSheet:
    """Give the scores of all answers in this process.

    Examples
    --------
    >>> cb.scores().export("scores.json", name="Ada")
    """
    return ScoreSheet("", book.all())


def read_scores(path: str | os.PathLike[str]) -> ScoreSheet:
    """Read a file of scores, and check its hash.

    Raises
    ------
    LocalError
        If it cannot be read, is no file of scores, or was changed.
    """
    source = Path(path)
    try:
        if source.stat().st_size > SIZE_LIMIT:
            raise LocalError(f"{source}: expected at most {SIZE_LIMIT:,} bytes of scores")
        content = json.loads(source.read_text(encoding="utf-8"))
        claimed = content.pop("sha256", None) if isinstance(content, dict) else None
        found = _hash(content)
    except OSError as error:
        raise LocalError(f"{source}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LocalError(f"{source}: expected JSON, found {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise LocalError(f"{source}: expected the format {FORMAT!r}, found another")
    if claimed != found:
        raise LocalError(f"{source}: expected the hash of its contents, found another: was changed")
    try:
        return ScoreSheet(_legible(str(content["name"])), tuple(_read_all(content["scores"])))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise LocalError(f"{source}: expected scores, found {show(error)}") from error


def _legible(name: str) -> str:
    """Leave out of a name what a terminal would obey."""
    return "".join(each for each in name if each.isprintable())[:NAME_LIMIT]


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{FORMAT}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()


def _as_json(score: ScoredAnswer) -> dict[str, Any]:
    return {
        "kind": score.kind,
        "number": score.number,
        "points": score.points,
        "tries": score.tries,
    }


def _read_all(rows: Iterable[Mapping[str, Any]]) -> Iterable[ScoredAnswer]:
    seen = set()
    for row in rows:
        score = ScoredAnswer(
            str(row["kind"]), str(row["number"]), float(row["points"]), int(row["tries"])
        )
        if not _is_known(score.kind, score.number):
            raise ValueError(f"unknown: {score.kind} {score.number}")
        if not 0 <= score.points <= 1 or score.tries < 1:
            raise ValueError(f"impossible: {score}")
        if (score.kind, score.number) in seen:
            raise ValueError(f"{score.kind} {score.number} occurs twice")
        seen.add((score.kind, score.number))
        yield score


def _is_known(kind: str, number: str) -> bool:
    notebook = number.partition(".")[0]
    return notebook in lesson_numbers() and (kind, number) in lesson(notebook).numbers()
