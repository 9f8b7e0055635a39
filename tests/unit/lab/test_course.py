"""The course: scores add up and travel unchanged, and nothing runs before an answer."""

from __future__ import annotations

import json
import re

import pytest

import colobench as cb
from colobench.cli.main import main
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import Feedback, Grade, judge_number, near, right, wrong
from colobench.lab.course.glossary import meaning_of
from colobench.lab.course.lesson import exercise, lesson, lesson_numbers, predicted_experiment
from colobench.lab.course.notebook_cells import exercises_markdown
from colobench.lab.course.prediction import (
    ChoiceAnswer,
    CurveAnswer,
    NumberAnswer,
    PredictedExperiment,
)
from colobench.lab.course.score_book import EXERCISE, PREDICTION, ScoreBook, book
from colobench.lab.course.score_sheet import NOTE, ScoreSheet, read_scores
from colobench.ui.base.controls import dropdown, slider
from places import CLONE

LESSONS = lesson_numbers()
#: Words that the notebooks cannot do without.
WORDS = (
    *("committed", "flush", "RAM cache", "output commit", "miscompare", "epoch", "degradation"),
    *("checkpoint", "commit point", "takeover", "failover", "release", "dirty page", "tracker"),
    *("layout", "capture", "arbiter", "heartbeat", "trigger", "strategy", "variant"),
)


@pytest.fixture(autouse=True)
def empty_book():
    book.forget()
    yield
    book.forget()


def notebook_of(number):
    (path,) = (CLONE / "notebooks").glob(f"{number}_*.ipynb")
    return json.loads(path.read_text())


def sheet(*judged):
    own = ScoreBook()
    for kind, number, feedback in judged:
        own.note(kind, number, feedback)
    return ScoreSheet("", own.all())


def test_an_exercise_counts_with_its_best_answer_and_a_prediction_with_its_first():
    scores = sheet(
        (EXERCISE, "03.1", wrong("")),
        (EXERCISE, "03.1", right()),
        (EXERCISE, "03.1", wrong("")),
        (PREDICTION, "03.1", near("")),
        (PREDICTION, "03.1", right()),
        (PREDICTION, "04.1", Feedback(Grade.NONE, "")),
    ).scores
    assert [(each.kind, each.points, each.tries) for each in scores] == [
        (EXERCISE, 1.0, 3),
        (PREDICTION, 0.5, 2),
    ]


def test_a_file_of_scores_collects_the_notebooks_and_has_no_times(tmp_path):
    file = tmp_path / "scores.json"
    sheet((EXERCISE, "03.1", right())).export(file, name="Ada")
    sheet((EXERCISE, "04.1", wrong("")), (PREDICTION, "04.1", right())).export(file)
    found = read_scores(file)
    assert (found.name, found.total) == ("Ada", 2.0)
    assert (found.earned("03"), found.earned("04")) == (1.0, 1.0)
    assert sorted(json.loads(file.read_text())) == ["format", "name", "note", "scores", "sha256"]
    assert "not secure" in NOTE
    assert [each.name for each in tmp_path.iterdir()] == ["scores.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"points": 0.0', '"points": 1.0'),
        lambda text: text.replace("Ada", "Bob"),
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: "",
    ],
)
def test_a_changed_file_of_scores_is_refused_by_its_name(tmp_path, capsys, change):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    for file in (good, bad):
        sheet((EXERCISE, "03.1", wrong(""))).export(file, name="Ada")
    bad.write_text(change(bad.read_text()))
    assert main(["course", "scores", str(good), str(bad), str(tmp_path / "none.json")]) == 1
    printed = capsys.readouterr()
    assert re.search(r"good\.json +Ada +0 +0", printed.out)
    assert "bad.json: expected" in printed.err
    assert "none.json: cannot be read" in printed.err


def test_scores_of_many_students_are_a_table_and_csv(tmp_path, capsys):
    files = []
    for name, points in (("Ada", right()), ("", near(""))):
        files.append(str(sheet((PREDICTION, "03.1", points)).export(tmp_path / f"{name}.json")))
    sheet((EXERCISE, "03.1", right())).export(files[0], name="Ada")
    assert main(["course", "scores", *files, "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("file,name,03 (of ")
    assert [line.split(",", 1)[1] for line in lines[1:]] == ["Ada,2,2", "–,0.5,0.5"]


def test_a_name_cannot_command_the_terminal(tmp_path):
    file = sheet((EXERCISE, "03.1", right())).export(tmp_path / "s.json", name="A\x1b[2Jda\n")
    assert read_scores(file).name == "A[2Jda"


def test_the_same_score_twice_is_refused(tmp_path):
    score = ScoreSheet("", sheet((EXERCISE, "03.1", right())).scores)
    file = score.export(tmp_path / "s.json")
    content = json.loads(file.read_text())
    content["scores"] *= 2
    doubled = ScoreSheet("", tuple(score.scores * 2))
    assert doubled.total == 2
    file.write_text(json.dumps(content))
    with pytest.raises(cb.LocalError, match="found another"):
        read_scores(file)
    assert read_scores(doubled.export(tmp_path / "t.json")).total == 1


def never():
    raise AssertionError("the experiment ran")


@pytest.mark.parametrize(
    ("form", "unfit"),
    [
        (NumberAnswer("ms"), (None, "5", True, float("nan"))),
        (ChoiceAnswer(("yes", "no")), (None, "perhaps", 0, 3, True)),
        (CurveAnswer((1, 2), "x", "y", 5), (None, "12", (1,), (1, "2"), 7)),
    ],
)
def test_without_an_answer_of_its_kind_an_experiment_does_not_run(form, unfit):
    asked = PredictedExperiment("03.9", "?", form, never, lambda answer, outcome: right())
    for answer in unfit:
        feedback = asked.commit(answer)
        assert feedback.grade is Grade.NONE
        assert "Commit to an answer first" in str(feedback)
    assert book.all() == ()


def test_a_committed_answer_runs_the_experiment_and_is_scored():
    outcomes = []
    asked = PredictedExperiment(
        "03.9", "?", ChoiceAnswer(("yes", "no")), lambda: "no", lambda answer, outcome: near("so")
    )
    for answer in (2, "No", "yes"):
        outcomes.append(str(asked.commit(answer)))
    assert outcomes == ["Near. so"] * 3
    assert [(each.kind, each.points, each.tries) for each in book.all()] == [(PREDICTION, 0.5, 3)]


def test_an_answer_of_another_kind_is_no_try():
    asked = Exercise(
        "03.9",
        "?",
        "a number",
        "",
        lambda answer: judge_number(answer, 3, why="so", otherwise="no"),
    )
    assert "takes a number: answer: expected a number, found 'x'" in str(asked.check("x"))
    assert asked.check().grade is Grade.NONE
    assert book.all() == ()
    assert str(asked.check(3)) == "Right. so"


def test_numbers_are_right_near_or_wrong():
    def judged(answer):
        words = {"why": "so", "otherwise": "no", "hints": {400: "bytes"}}
        return judge_number(answer, 100, exact=0.02, close=0.1, **words)

    assert [judged(each).grade for each in (101, 108, 150, 400)] == [
        Grade.RIGHT,
        Grade.NEAR,
        Grade.WRONG,
        Grade.WRONG,
    ]
    assert str(judged(400)) == "Not right. bytes"


@pytest.mark.parametrize("number", LESSONS)
def test_numbers_of_a_lesson_are_its_notebooks_and_each_is_found(number):
    found = lesson(number)
    numbers = found.numbers()
    assert numbers
    assert len(set(numbers)) == len(numbers)
    for kind, each in numbers:
        assert re.fullmatch(rf"{number}\.\d", each)
        if kind == EXERCISE:
            assert exercise(each).number == each
        elif each not in found.scored_elsewhere:
            assert predicted_experiment(each).number == each


@pytest.mark.parametrize("number", LESSONS)
def test_a_notebook_has_its_lessons_exercises_word_for_word(number):
    sources = ["".join(each["source"]) for each in notebook_of(number)["cells"]]
    assert sum(exercises_markdown(lesson(number)) in source for source in sources) == 1


@pytest.mark.parametrize("number", LESSONS)
def test_a_notebook_asks_for_each_prediction_and_never_answers_it(number):
    code = "\n".join(
        "".join(each["source"])
        for each in notebook_of(number)["cells"]
        if each["cell_type"] == "code"
    )
    for prediction in lesson(number).predictions:
        assert f'ui.PredictionPanel("{prediction.number}")' in code
    assert "cb.predict(" not in code


def test_a_drawn_score_is_judged_by_where_it_is_least():
    measured = (0.6, 0.28, 0.3, 0.5, 1.1)
    judge = predicted_experiment("08.1").judge
    drawn = {
        (0.9, 0.4, 0.4, 0.6, 1.2): Grade.RIGHT,
        # What cannot be told apart by one run is as good.
        (0.9, 0.5, 0.4, 0.6, 1.2): Grade.RIGHT,
        (0.9, 0.5, 0.4, 0.3, 1.2): Grade.WRONG,
        (0.1, 0.5, 0.6, 0.7, 1.2): Grade.WRONG,
        (0.9, 0.5, 0.4, 0.3, 0.2): Grade.WRONG,
        (0.5, 0.5, 0.5, 0.5, 0.5): Grade.WRONG,
    }
    found = {each: judge(each, measured) for each in drawn}
    assert {each: found[each].grade for each in drawn} == drawn
    wrong_words = {each.words for each in found.values() if each.grade is Grade.WRONG}
    assert len(wrong_words) == 4
    assert judge((0.9, 0.5, 0.4, 0.3, 1.2), (1.0, 0.9, 0.6, 0.4, 0.5)).grade is Grade.RIGHT
    # Where pauses are long, the longest interval may be the best.
    assert judge((0.9, 0.5, 0.4, 0.3, 0.2), (9.0, 5.0, 3.0, 2.0, 1.5)).grade is Grade.RIGHT


def test_an_unknown_number_is_one_clear_error():
    for call, number in ((cb.exercise, "99.1"), (cb.exercise, "03.77"), (cb.predict, "03.77")):
        with pytest.raises(cb.LocalError, match="expected one of"):
            call(number)


def test_the_glossary_has_the_words_and_the_document_is_written_from_it():
    assert (CLONE / "docs" / "glossary.md").read_text() == cb.glossary().as_markdown()
    for word in WORDS:
        assert cb.term(word.upper()).name == word
    names = [each.name.casefold() for each in cb.glossary()]
    assert names == sorted(names)
    with pytest.raises(cb.LocalError, match=r"term: expected a word of the glossary"):
        cb.term("quux")


def test_the_tooltip_of_a_control_is_the_glossarys():
    assert slider("delay (ms)", (1, 2), 1).tooltip is None
    assert dropdown("layout", ("separated",), "separated").tooltip == cb.term("layout").meaning
    assert meaning_of("pause (ms)") == cb.term("pause").meaning


def test_links_into_the_glossary_lead_to_a_word():
    anchors = {each.anchor for each in cb.glossary()}
    for path in (CLONE / "notebooks").glob("*.ipynb"):
        links = re.findall(r"glossary\.md#([^)\\\"]+)", path.read_text())
        assert set(links) <= anchors, path.name
