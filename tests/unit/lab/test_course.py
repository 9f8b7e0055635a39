"""The course: scores add up and travel unchanged, and nothing runs before an answer."""

from __future__ import annotations

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import colobench as cb
from colobench.cli.main import main
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import Feedback, Grade, judge_number, near, right, wrong
from colobench.lab.course.glossary import meaning_of
from colobench.lab.course.lesson import exercise, lesson, lesson_numbers, predicted_experiment
from colobench.lab.course.lessons import lesson_03, lesson_04, lesson_07b
from colobench.lab.course.notebook_cells import exercises_markdown
from colobench.lab.course.prediction import (
    ChoiceAnswer,
    CurveAnswer,
    NumberAnswer,
    PredictedExperiment,
)
from colobench.lab.course.score_book import EXERCISE, PREDICTION, ScoreBook, book
from colobench.lab.course.score_sheet import FORMAT, NOTE, ScoreSheet, _hash, read_scores
from colobench.lab.studies.sweep import Line
from colobench.lab.studies.trackers import Epoch, UnavailableTracker
from colobench.memory.tracker_names import TRACKERS
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


def scores_in(file):
    return {(each.kind, each.points, each.tries) for each in read_scores(file).scores}


def test_an_export_of_another_kernel_adds_tries_and_keeps_best_answers_and_first_predictions(
    tmp_path,
):
    file = tmp_path / "scores.json"
    sheet((EXERCISE, "03.1", right()), (PREDICTION, "03.1", wrong(""))).export(file)
    # The same file under another name: this process has put nothing into it, as a new kernel.
    file = file.rename(tmp_path / "moved.json")
    sheet((EXERCISE, "03.1", wrong("")), (PREDICTION, "03.1", right())).export(file)
    assert scores_in(file) == {(EXERCISE, 1.0, 2), (PREDICTION, 0.0, 2)}


def test_a_second_export_of_one_kernel_counts_no_try_twice(tmp_path):
    file = tmp_path / "scores.json"
    book.note(EXERCISE, "03.1", wrong(""))
    for _ in range(2):
        cb.scores().export(file)
    book.note(EXERCISE, "03.1", right())
    cb.scores().export(file)
    assert scores_in(file) == {(EXERCISE, 1.0, 2)}
    book.forget()
    book.note(EXERCISE, "03.1", wrong(""))
    cb.scores().export(file)
    assert scores_in(file) == {(EXERCISE, 1.0, 3)}


@pytest.mark.parametrize(
    "change",
    [
        {"tries": float("inf")},
        {"tries": float("nan")},
        {"points": float("inf")},
        {"number": "03.99"},
        {"number": "99.1"},
        {"number": "03\x1b[2J.1"},
        {"kind": "mark"},
    ],
)
def test_scores_that_nothing_gives_are_refused_and_the_others_are_shown(tmp_path, capsys, change):
    row = {"kind": EXERCISE, "number": "03.1", "points": 1.0, "tries": 1}
    files = [tmp_path / "good.json", tmp_path / "bad.json"]
    for file, each in zip(files, (row, row | change), strict=True):
        content = {"format": FORMAT, "note": NOTE, "name": "Ada", "scores": [each]}
        file.write_text(json.dumps(content | {"sha256": _hash(content)}))
    assert main(["course", "scores", *map(str, files)]) == 1
    printed = capsys.readouterr()
    assert re.search(r"good\.json +Ada +1 +1", printed.out)
    assert "bad.json: expected scores" in printed.err
    assert "\x1b" not in printed.out + printed.err


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
    assert read_scores(sheet().export(tmp_path / "s.json", name="\ud800Bob")).name == "Bob"


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
        (NumberAnswer("ms"), (None, "5", True, float("nan"), 10**400, 10**5000)),
        (ChoiceAnswer(("yes", "no")), (None, "perhaps", 0, 3, True, 10**5000)),
        (
            CurveAnswer((1, 2), "x", "y", 5),
            (None, "12", (1,), (1, "2"), 7, np.ones((2, 2)), np.array(1), (1, 10**400), {"a": 1}),
        ),
    ],
)
def test_without_an_answer_of_its_kind_an_experiment_does_not_run(form, unfit):
    asked = PredictedExperiment("03.9", "?", form, never, lambda answer, outcome: right())
    for answer in unfit:
        feedback = asked.commit(answer)
        assert feedback.grade is Grade.NONE
        assert "Commit to an answer first" in str(feedback)
        assert len(str(feedback)) < 300
    assert book.all() == ()


def test_numpys_numbers_are_answers_as_pythons_are():
    assert CurveAnswer((1, 2), "x", "y", 5).read(np.array([1, 2])) == (1.0, 2.0)
    assert ChoiceAnswer(("yes", "no")).read(np.int64(2)) == "no"
    assert NumberAnswer("ms").read(np.float32(2)) == 2.0


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


def test_a_hint_for_a_typical_number_leaves_room_for_answers_that_are_near():
    judge = predicted_experiment("05.1").judge
    found = {answer: judge(answer, 33.0) for answer in (10, 30, 45, 56, 60, 90)}
    grades = [each.grade for each in found.values()]
    assert grades == [Grade.NEAR, Grade.RIGHT, Grade.NEAR, Grade.NEAR, Grade.WRONG, Grade.WRONG]
    assert "Only a request just after a checkpoint" in found[60].words


def test_a_guess_at_a_size_is_judged_by_the_factor_that_it_is_off():
    judge = predicted_experiment("10.1").judge
    answers = (500, 251, 999, 101, 2400, 33_554, 0, -500)
    grades = {answer: judge(answer, 500).grade for answer in answers}
    assert [each for each in grades if grades[each] is Grade.RIGHT] == [500, 251, 999]
    assert [each for each in grades if grades[each] is Grade.NEAR] == [101, 2400]


def test_an_honest_rounding_is_right_and_another_unit_has_its_hint(monkeypatch):
    monkeypatch.setattr(lesson_04, "_buffer_line", lambda: Line(750.0, 4104.27))
    monkeypatch.setattr(lesson_07b, "_page_bytes", lambda: 4104)
    for number, answer in (("04.1", 17.213), ("04.1", 17.2), ("07b.1", 4104), ("07b.1", 4104.05)):
        assert exercise(number).check(answer).grade is Grade.RIGHT
    assert "Those are MB" in str(exercise("04.1").check(17213))
    assert "be64" in str(exercise("04.1").check(17.18))
    assert exercise("07b.1").check(4096).grade is Grade.WRONG
    for measured in (9, 8.99):
        assert "the devices and the messages" in str(exercise("04b.1").check(measured))
    assert "KiB" in str(exercise("12.2").check(640))


def test_a_rule_of_the_flush_is_tried_with_sets_of_which_neither_has_the_other(monkeypatch):
    less, more = np.zeros((2, 64), np.uint64)
    less[0], more[0] = 0b1, 0b11
    monkeypatch.setattr(
        lesson_03, "_real_flushes", lambda: [(more, less, more), (less, more, more)]
    )
    check = exercise("03.1").check
    assert check(lambda received, written: received | written).grade is Grade.RIGHT
    for rule in (np.maximum, lambda one, other: max(one, other, key=np.sum)):
        found = check(rule)
        assert found.grade is Grade.WRONG
        assert "one of the sets had all pages of the other" in found.words
    hints = {check(rule).words for rule, _ in lesson_03.WRONG_RULES}
    assert hints == {hint for _, hint in lesson_03.WRONG_RULES}


@pytest.mark.parametrize("returned", [None, "all of them", -1, [1, 2j]])
def test_a_rule_of_the_flush_that_returns_no_bitmap_is_told_so(monkeypatch, returned):
    words = np.zeros(64, np.uint64)
    monkeypatch.setattr(lesson_03, "_real_flushes", lambda: [(words, words, words)])
    found = exercise("03.1").check(lambda received, written: returned)
    assert found.grade is Grade.WRONG
    assert "Your function returned" in found.words


def test_pages_that_upstream_writes_have_their_hint_however_many_they_are(monkeypatch):
    monkeypatch.setattr(lesson_03, "_still_guest", lambda: 0)
    assert exercise("03.2").check(0).grade is Grade.RIGHT
    for answer in (187, 192, 272):
        assert "Set the variant to `v12`" in exercise("03.2").check(answer).words


def test_every_tracker_that_runs_here_is_to_be_tried():
    def epochs(names):
        return [Epoch(name, 1, 1, 0.0, 0.0, True, b"") for name in names]

    check = exercise("02.2").check
    *some, last = TRACKERS
    assert check(epochs(TRACKERS)).grade is Grade.RIGHT
    assert check([UnavailableTracker(last, "no"), *epochs(some)]).grade is Grade.RIGHT
    assert last in check(epochs(some)).words


def test_an_undecided_verdict_is_not_called_an_error(monkeypatch):
    verdict = SimpleNamespace(linearizable=None, in_words="undecided")
    monkeypatch.setattr(cb.FailoverStory, "compares", False)
    story = object.__new__(cb.FailoverStory)
    story.takeover = SimpleNamespace(role="primary")
    story.verdict = verdict
    story.history = SimpleNamespace(lost=[])
    assert "undecided" in exercise("06.1").check(story).words
    verdict.linearizable = False
    assert "has seen an error" in exercise("06.1").check(story).words


class Needs:
    def __init__(self, needs):
        self.needs = needs

    def ask(self, seen):
        return "due" if seen.dirty_pages >= 200 or seen.ran_ms >= 40 else 1


@pytest.mark.parametrize(
    ("number", "answer", "words"),
    [
        ("08.2", Needs(None), "List `dirty_pages` in `needs`"),
        ("08.2", Needs(5), "refuses what it needs"),
        ("12.1", lambda active, hidden, image: np.frombuffer(image, np.uint8), "three sectors"),
        ("12.1", lambda active, hidden, image: 7, "three sectors"),
        ("12.1", lambda active, hidden, image: sys.exit(3), "ended with SystemExit"),
        ("12.1", b"x" * 10_000, "a function of three sectors"),
        ("12.3", [None, "hidden"], "expected one of 'hidden', 'active', found NoneType None"),
        ("12.3", ["hidden", 2], "expected one of 'hidden', 'active', found 2"),
        ("12.3", ["hidden", "hidden"], "each name once"),
        ("12.3", "hidden" * 1000, "a list of two names"),
        ("03.1", "x" * 10_000, "a function of two bitmaps"),
        ("04b.2", "main", "expected one of 'stream', 'channels'"),
        ("09.1", "x" * 10_000, "a list of names"),
        ("09.1", np.array("COLO_RAM"), "a list of names"),
    ],
)
def test_an_odd_answer_gets_a_short_sentence(number, answer, words):
    found = exercise(number).check(answer)
    assert found.grade in (Grade.NONE, Grade.WRONG)
    assert words in found.words
    assert len(found.words) < 300


def test_names_of_layers_may_be_written_in_capitals():
    assert exercise("12.3").check(["Hidden", "Active"]).grade is Grade.RIGHT


def test_blanks_behind_the_commas_of_a_strategy_are_no_fault():
    text = "colo_v12, transport=memfd, capture=copy-then-send, delay=20"
    assert exercise("07.1").check(text).grade is Grade.RIGHT


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
    # A machine with other work: its own run is right, another guess is not called wrong for it.
    disturbed = (0.1, 0.05, 0.3, -2.0, 1.1)
    assert judge(disturbed, disturbed).grade is Grade.RIGHT
    assert judge((0.9, 0.1, 0.3, 0.6, 1.1), disturbed).grade is Grade.NEAR


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
    with pytest.raises(cb.LocalError, match=r"term: expected a word of the glossary"):
        cb.term(None)


def test_the_tooltip_of_a_control_is_the_glossarys():
    assert slider("delay (ms)", (1, 2), 1).tooltip is None
    assert dropdown("layout", ("separated",), "separated").tooltip == cb.term("layout").meaning
    assert meaning_of("pause (ms)") == cb.term("pause").meaning


def test_links_into_the_glossary_lead_to_a_word():
    anchors = {each.anchor for each in cb.glossary()}
    for path in (CLONE / "notebooks").glob("*.ipynb"):
        links = re.findall(r"glossary\.md#([^)\\\"]+)", path.read_text())
        assert set(links) <= anchors, path.name
