"""Cells of a notebook that are written from its lesson: exercises, and solutions that fold."""

from __future__ import annotations

from colobench.lab.course.lesson import Lesson

HEAD = "## Exercises"
INTRODUCTION = (
    "The check takes your answer, and says *right*, or gives a hint that fits it. It computes what "
    "is right from a running system, so give it a few seconds. `cb.scores()` adds up your points, "
    'and `cb.scores().export("scores.json", name="…")` writes them for a teacher.'
)


def exercises_markdown(lesson: Lesson) -> str:
    """Write a notebook's exercises as Markdown, each with its folded solution."""
    parts = [HEAD, INTRODUCTION]
    for each in lesson.exercises:
        begin = f'**{each.number}** {each.question} `cb.exercise("{each.number}").check(…)` takes '
        parts += [
            f"{begin}{each.answer}.",
            "<details><summary>Solution</summary>",
            f"```python\n{each.solution}\n```",
            *([each.because] if each.because else []),
            "</details>",
        ]
    return "\n\n".join(parts)
