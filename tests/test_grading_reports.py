"""What a teacher gets from a graded class: gradebooks, the record, the pages, and which answers are alike."""

import csv
import datetime
import html.parser
import io
import json
import os
import re
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

from lmcourse.grading.chapters import Chapter
from lmcourse.grading.grader import ExerciseGrade, Report
from lmcourse.grading.notebook import CellFailure, Notebook
from lmcourse.grading.outcomes import (
    CRASHED,
    MISSING,
    NOT_IMPLEMENTED,
    PASSED,
    SYMBOLS,
    TOO_SLOW,
    WRONG,
    Outcome,
)
from lmcourse.grading.outcomes import (
    Test as ExerciseTest,
)
from lmcourse.grading.reports import (
    ReportsError,
    answers_in,
    find_similar,
    gradebook,
    gradescope,
    provenance,
    record,
    write_reports,
)
from lmcourse.grading.reports.class_statistics import bins, hint_counts, statistics_page
from lmcourse.grading.reports.folder import page_names
from lmcourse.grading.reports.pages import feedback_page, index_page, similar_page
from lmcourse.grading.reports.words import STATES, clean, overview
from lmcourse.grading.shortcuts import Shortcut
from lmcourse.grading.submissions import Graded

FIRST = ExerciseTest("test_double", "99.1", 1, "did you add instead?", ("double",))
SECOND = ExerciseTest("test_negative", "99.1", 2, "the sign is lost", ("double",))
TENTH = ExerciseTest("test_rows", "99.10", 2.5, "which axis?", ("rows",))
FLAG = Shortcut("double", "lmcourse.core.double", 3, "code cell 2", "return core.double(x)")

# What a name or an output may hold to hurt who reads it.
HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title></style><svg onload=alert(1)>",
    "javascript:alert(1)",
    '=HYPERLINK("http://example.org","x")',
    "../../etc/passwd",
    "..\\..\\windows\\system32",
    "a\x00b\x1b[31m\x07",
    "lone \ud800 surrogate",
    "\u202egnp.exe",
    "CON",
    "...",
    "",
    "x" * 1_000_000,
    "&amp;<!-- -->]]>",
    "名前 Ünï",
]


@pytest.fixture
def chapter(tmp_path):
    path = tmp_path / "ch99_reports.py"
    path.write_text("checks")
    return Chapter("ch99_reports", path)


@pytest.fixture
def meta(chapter):
    return provenance(chapter, date=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))


def graded(learner, *, first=PASSED, second=PASSED, tenth=PASSED, text="", flags=(), source="", cells=()):
    def outcome(test, state):
        shown = text if state != PASSED else ""
        expected = ("6", shown or "5") if state == WRONG else ("", "")
        return Outcome(test.name, state, shown, *expected)

    exercises = [
        ExerciseGrade("99.1", [FIRST, SECOND], [outcome(FIRST, first), outcome(SECOND, second)], flags),
        ExerciseGrade("99.10", [TENTH], [outcome(TENTH, tenth)]),
    ]
    return Graded(learner, source or f"{learner}.ipynb", Report("a.ipynb", "99", exercises, cells), "", 1.5)


def fault(learner, why="it is no notebook", source="a.ipynb"):
    return Graded(learner, source, None, why)


def rows_of(pieces):
    return list(csv.reader(io.StringIO("".join(pieces))))


class _Markup(html.parser.HTMLParser):
    """Collects the tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_data(self, data):
        self.text += data


# The gradebook.


def test_the_plain_gradebook_has_a_row_for_each_learner_and_a_column_for_each_exercise():
    book = gradebook([graded("Ada", second=WRONG, flags=[FLAG]), fault("Bob")])
    assert rows_of(book) == [
        ["learner", "points", "out_of", "99.1", "99.10", "flags", "fault"],
        ["Ada", "3.5", "5.5", "1", "2.5", "1", ""],
        ["Bob", "0", "5.5", "", "", "0", "it is no notebook"],
    ]


def test_exercise_ten_comes_after_exercise_two():
    tests = [ExerciseTest(f"test_{i}", f"99.{i}", 1, "hint", ()) for i in (10, 2, 1)]
    exercises = [ExerciseGrade(test.number, [test], [Outcome(test.name, PASSED)]) for test in tests]
    assert overview([Graded("a", "a", Report("a", "99", exercises, []))]).numbers == ["99.1", "99.2", "99.10"]


def test_canvas_gets_its_columns_and_the_points_possible():
    class_ = [
        graded("Ada", source="sub/lovelaceada_LATE_17_4711_ch99_x.ipynb"),
        graded("bob17", tenth=WRONG),
        fault("Eve"),
    ]
    assert rows_of(gradebook(class_, "canvas", assignment="Chapter 99 (3)")) == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Chapter 99 (3)"],
        ["    Points Possible", "", "", "", "", "5.5"],
        ["Ada", "17", "", "", "", "5.5"],
        ["bob17", "", "", "bob17", "", "3"],
        ["Eve", "", "", "Eve", "", ""],
    ]


def test_moodle_gets_a_user_a_grade_and_the_hints_as_feedback():
    class_ = [
        graded("ada@example.org", first=WRONG),
        graded("Bob", source="Bob B_123_assignsubmission_file_/x.ipynb"),
        fault("eve"),
    ]
    book = rows_of(gradebook(class_, "moodle"))
    assert book[0] == ["username", "email", "identifier", "grade", "feedback"]
    assert book[1][:4] == ["", "ada@example.org", "", "4.5"]
    assert "99.1: 2 of 3, wrong. Hint: did you add instead?" in book[1][4]
    assert book[2][:4] == ["Bob", "", "Participant 123", "5.5"]
    assert book[3] == ["eve", "", "", "", "it is no notebook"]


@pytest.mark.parametrize("columns", ["plain", "canvas", "moodle"])
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " =", "＝", "\r\n="])
def test_no_cell_of_a_gradebook_begins_as_a_formula(columns, start):
    class_ = [graded(start + "1+1"), fault("b", start + "cmd|' /C calc'!A0")]
    cells = [cell for row in rows_of(gradebook(class_, columns, assignment="=1")) for cell in row]
    assert not [cell for cell in cells if cell.strip().startswith(("=", "+", "-", "@", "＝"))]
    assert "'" + (start + "1+1").strip() in cells


def test_a_gradebook_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"plain, canvas, moodle; got 'excel'"):
        gradebook([], "excel")


# The record.


def test_the_record_says_how_the_grades_came_about(chapter, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "more.py").write_text("more")
    date = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    meta = provenance(chapter, hidden=hidden, limits={"seconds": 10.0}, isolation=["none"], date=date)
    run = json.loads("".join(record([graded("Ada")], chapter, meta)))["run"]
    # sha256sum of "checks" and of "more", without an end of line.
    assert run["checks"] == {
        "ch99_reports.py": "961f787b0cd3443fbc7c456886ecd25749c0485c4ae9a02f10599b17dad9f944"
    }
    assert run["hidden"] == {"more.py": "187897ce0afcf20b50ba2b37dca84a951b7046f29ed5ab94f010619f69d6e189"}
    assert (run["date"], run["limits"], run["isolation"]) == (
        "2026-01-02T03:04:05+00:00",
        {"seconds": 10.0},
        ["none"],
    )
    assert {"python", "lmcourse", "numpy", "tensorflow"} <= run["versions"].keys()


def test_the_record_is_json_in_utf_8_whatever_the_answers_said(chapter, meta):
    class_ = [graded(name, first=WRONG, text=name) for name in HOSTILE] + [fault("nan", "x")]
    text = "".join(record(class_, chapter, meta))
    again = json.loads(text.encode("utf-8"))
    assert len(again["submissions"]) == len(class_)
    assert len(text) < 500_000


# Gradescope.


def test_gradescope_gets_a_test_for_each_exercise_and_flags_for_the_staff_only():
    result = gradescope(graded("Ada", second=WRONG, flags=[FLAG], cells=[CellFailure(2, "NameError: x")]))
    assert result["score"] == 3.5
    assert "Code cell 2 failed: NameError: x" in result["output"]
    first, tenth, flag = result["tests"]
    assert (first["score"], first["max_score"], first["status"]) == (1, 3, "failed")
    assert first["output"] == "Hint: the sign is lost\nExpected: 6\nGot: 5"
    assert (tenth["name"], tenth["status"]) == ("Exercise 99.10: passed", "passed")
    assert (flag["visibility"], flag["max_score"]) == ("hidden", 0)
    assert {first["visibility"], tenth["visibility"], result["visibility"]} == {"visible"}
    assert "lmcourse.core.double" not in json.dumps([result["output"], first, tenth])


def test_gradescope_gets_no_points_and_the_reason_for_what_could_not_be_graded():
    result = gradescope(fault("Bob"))
    assert (result["score"], result["tests"]) == (0, [])
    assert "it is no notebook" in result["output"]


@pytest.mark.parametrize("text", HOSTILE)
def test_gradescope_output_is_encodable_and_short(text):
    result = json.dumps(gradescope(graded(text, first=WRONG, text=text)), ensure_ascii=False)
    assert len(result.encode("utf-8")) < 20_000


# The pages.


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_gets_out_of_a_page(text, chapter, meta):
    flag = Shortcut(text, text, 1, text, text)
    cell = CellFailure(1, text, text)
    class_ = [
        graded(text, first=WRONG, tenth=CRASHED, text=text, flags=[flag], source=text, cells=[cell]),
        fault(text + " 2", text, text),
    ]
    similar = find_similar({text: CODE + f"\nx = {text!r}", text + " 2": CODE})
    pages = [
        *(feedback_page(one, chapter) for one in class_),
        "".join(index_page(class_, chapter, meta, page_names(one.learner for one in class_), similar)),
        statistics_page(class_, chapter),
        "".join(similar_page(chapter, similar)),
    ]
    for page in pages:
        markup = _Markup(page)
        assert not {"script", "img", "iframe", "object", "link", "base", "form"} & set(markup.tags)
        assert not [name for _, name, _ in markup.attributes if name.startswith("on") or name == "src"]
        assert all(re.match(r"[\w%.~/-]+$", value) for _, name, value in markup.attributes if name == "href")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
        assert len(page.encode("utf-8")) < 200_000


def test_pages_load_nothing_from_elsewhere(chapter, meta):
    class_ = [graded("Ada", first=WRONG)]
    for page in (feedback_page(class_[0], chapter), statistics_page(class_, chapter)):
        assert "http://" not in page
        assert "https://" not in page
        assert "default-src 'none'" in page
        assert "url(" not in page
        assert "@import" not in page


def test_a_learner_reads_points_state_hint_and_what_came(chapter):
    text = _Markup(feedback_page(graded("Ada", second=WRONG, text="-6"), chapter)).text
    for part in (
        "Ada",
        "3.5",
        "of 5.5 points",
        "✘ wrong",
        "the sign is lost",
        "Expected",
        "6",
        "Got",
        "-6",
        "✔ passed",
    ):
        assert part in text
    assert "did you add instead?" not in text  # that test passed


@pytest.mark.parametrize("state", [NOT_IMPLEMENTED, MISSING])
def test_the_hint_is_kept_until_there_is_an_answer(state, chapter):
    text = _Markup(feedback_page(graded("Ada", first=state, text="not written yet"), chapter)).text
    assert "not written yet" in text
    assert "did you add instead?" not in text


def test_a_learners_page_shows_no_flag_and_the_teachers_does(chapter, meta):
    one = graded("Ada", flags=[FLAG])
    assert "lmcourse.core" not in feedback_page(one, chapter)
    teachers = _Markup("".join(index_page([one], chapter, meta, page_names(["Ada"]), None))).text
    for part in ("lmcourse.core.double", "code cell 2, line 3", "return core.double(x)"):
        assert part in teachers


def test_every_state_has_a_symbol_of_its_own():
    assert set(SYMBOLS) == set(STATES) == {PASSED, WRONG, TOO_SLOW, CRASHED, NOT_IMPLEMENTED, MISSING}
    assert len(set(SYMBOLS.values())) == len(STATES)


def test_a_state_that_a_submission_made_up_is_shown_as_wrong(chapter):
    one = graded("Ada", first="<b>super</b>")
    page = feedback_page(one, chapter)
    assert "super" not in page
    assert "✘ wrong" in _Markup(page).text


def test_colours_of_states_have_enough_contrast_in_both_schemes(chapter):
    style = re.search("<style>(.*?)</style>", feedback_page(graded("Ada"), chapter), re.DOTALL)[1]
    schemes = re.findall(r"--ground: (#\w+);(.*?)\}", style, re.DOTALL)[:2]
    assert len(schemes) == 2
    for ground, rest in schemes:
        card = re.search(r"--card: (#\w+)", rest)[1]
        for name in ("text", "soft", "link", "passed", "wrong", "slow", "crashed", "open", "missing"):
            colour = re.search(rf"--{name}: (#\w+)", rest)[1]
            # 4.5 is WCAG 2.2's level AA for text of normal size.
            assert _contrast(colour, ground) >= 4.5, (name, colour, ground)
            assert _contrast(colour, card) >= 4.5, (name, colour, card)


def _contrast(one, other):
    """WCAG 2.2's contrast ratio of two colours."""

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# The statistics.


def test_hints_are_counted_by_learner_and_the_most_frequent_comes_first():
    class_ = [
        graded("a", first=WRONG, second=WRONG),
        graded("b", first=WRONG),
        graded("c", tenth=WRONG),
        fault("d"),
    ]
    assert hint_counts(class_) == [("99.1", "did you add instead?", 2), ("99.10", "which axis?", 1)]


def test_every_learner_is_in_one_bin():
    assert sum(count for *_, count in bins([0, 0.3, 0.6, 0.9, 25, 12.5, 24.999], 25)) == 7
    assert bins([25], 25)[-1][2] == 1
    assert bins([0.0], 0) == [(0.0, 1.0, 1)]


def test_statistics_are_drawn_with_a_text_and_name_no_learner(chapter):
    class_ = [
        graded("Ada Lovelace"),
        graded("Bob Stone", first=WRONG),
        fault("Eve Ng", "Eve Ng.ipynb is empty", "Eve Ng.ipynb"),
    ]
    markup = _Markup(statistics_page(class_, chapter))
    alts = [value for tag, name, value in markup.attributes if tag == "svg" and name == "aria-label"]
    assert any("99.1: 50% passed, 50% wrong; 99.10: 100% passed" in alt for alt in alts)
    assert any(alt.startswith("Learners by points.") for alt in alts)
    assert "the file is empty" in markup.text
    for name in ("Ada", "Bob", "Eve"):
        assert name not in markup.text


@pytest.mark.parametrize("class_", [[], [fault("a")]], ids=["nobody", "only faults"])
def test_a_class_without_a_grade_has_reports_too(class_, chapter, meta, tmp_path):
    paths = write_reports(class_, tmp_path / "out", chapter=chapter, meta=meta)
    assert all(path.stat().st_size for path in paths)


# Similar answers.

CODE = """
def count(tokens, n):
    counts = {}
    for i in range(len(tokens) - n + 1):
        key = tuple(tokens[i : i + n])
        counts[key] = counts.get(key, 0) + 1
    return counts

def entropy(probabilities):
    total = 0.0
    for p in probabilities:
        if p > 0:
            total -= p * math.log(p)
    return max(total, 0.0)
"""
OTHER = """
def count(tokens, n):
    grams = zip(*[tokens[k:] for k in range(n)], strict=False)
    return dict(Counter(grams).most_common())

def entropy(probabilities):
    array = np.asarray(probabilities, dtype=float)
    array = array[array != 0]
    return float(np.negative(array @ np.log(array)))
"""


def test_renamed_variables_comments_and_spaces_hide_no_copy():
    renamed = re.sub(r"\b(counts|tokens|total|key|p)\b", r"my_\1", CODE).replace(
        "\n    ", "\n        # mine\n    "
    )
    found = find_similar({"a": CODE, "b": renamed, "c": OTHER})
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "b")]
    assert found.pairs[0].share == 1
    assert (found.total, found.compared) == (1, 3)


def test_a_pair_shows_the_part_that_matches():
    found = find_similar({"a": CODE, "b": CODE + OTHER.replace("count", "other")})
    (pair,) = found.pairs
    matching = "".join(text for text, matches in pair.second_parts if matches)
    rest = "".join(text for text, matches in pair.second_parts if not matches)
    assert "counts.get(key, 0)" in matching
    assert "most_common" in rest
    assert "".join(text for text, _ in pair.second_parts) == CODE + OTHER.replace("count", "other")


def test_short_answers_are_not_compared():
    found = find_similar({"a": "return x + 1", "b": "return x + 1", "c": ""})
    assert (found.pairs, found.compared) == ([], 0)


def test_what_was_given_is_no_part_of_an_answer():
    given = Notebook(
        ["import math", "def f(x):\n    raise NotImplementedError", 'check("99.1")'], ["", "99.1", "99.1"], {}
    )
    mine = Notebook(
        ["import math", "def f(x):\n    return 2 * x", 'check("99.1")', "x = 1"], ["", "99.1", "99.1", ""], {}
    )
    assert answers_in(mine, given) == "# Exercise 99.1\n    return 2 * x"
    assert answers_in(given, given) == ""


@pytest.mark.parametrize("threshold", [0, -1, 1.1, float("nan")])
def test_a_threshold_that_is_no_share_is_refused(threshold):
    with pytest.raises(ValueError, match="share above 0 and at most 1"):
        find_similar({}, threshold=threshold)


def test_a_class_of_sixty_copies_is_compared_in_seconds_and_cut():
    start = time.process_time()
    found = find_similar({f"{i:03}": f"{CODE}\ny{i} = {i}" for i in range(60)}, most=10)
    assert (found.total, len(found.pairs)) == (60 * 59 // 2, 10)
    assert time.process_time() - start < 10  # 0.3 s here; a machine under load gets its time


# The folder.


def test_page_names_are_safe_and_unique_even_where_case_is_not_told():
    names = page_names([*HOSTILE, "ada", "Ada", "a/da", "a-da", "Åsa", "A\u030asa", "ﬁ", "fi"])
    folded = [name.casefold() for name in names.values()]
    assert len(set(folded)) == len(names)
    for name in names.values():
        assert re.fullmatch(r"[\w-]+\.html", name), name
        assert len(name.encode("utf-8")) <= 200
        assert name.split(".")[0].lower() not in {"con", "nul", ""}


def test_page_names_do_not_depend_on_the_order_of_the_class():
    learners = ["ada", "Ada", "Bob", "a d a", "a-d-a"]
    assert page_names(learners) == page_names(reversed(learners))


def test_a_learner_who_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="'Ada' is there more than once"):
        page_names(["Ada", "Ada"])


def test_every_report_is_written_for_a_hostile_class(chapter, meta, tmp_path):
    class_ = [graded(name, first=WRONG, text=name, source=name) for name in HOSTILE]
    out = tmp_path / "deep" / "out"
    paths = write_reports(
        class_, out, chapter=chapter, meta=meta, similarities=find_similar({"a": CODE, "b": CODE})
    )
    there = {path for path in out.rglob("*") if path.is_file()}
    assert there == set(paths)
    assert len(list((out / "feedback").iterdir())) == len(class_)
    for path in paths:
        path.read_text(encoding="utf-8", errors="strict")
    links = [
        v
        for _, name, v in _Markup((out / "index.html").read_text(encoding="utf-8")).attributes
        if name == "href"
    ]
    assert all((out / unquote(link)).is_file() for link in links)


def test_a_second_run_leaves_no_page_of_the_first(chapter, meta, tmp_path):
    similar = find_similar({"a": CODE, "b": CODE})
    write_reports(
        [graded("Ada"), graded("Bob")], tmp_path / "o", chapter=chapter, meta=meta, similarities=similar
    )
    (tmp_path / "o" / "notes.txt").write_text("mine")
    write_reports([graded("Eve")], tmp_path / "o", chapter=chapter, meta=meta)
    assert sorted(path.name for path in (tmp_path / "o").rglob("*")) == sorted(
        ["Eve.html", "feedback", "index.html", "notes.txt", "results.csv", "results.json", "statistics.html"]
    )


def test_the_old_reports_stay_when_a_new_one_cannot_take_its_place(chapter, meta, tmp_path, monkeypatch):
    write_reports([graded("Ada")], tmp_path / "o", chapter=chapter, meta=meta)
    before = _contents(tmp_path / "o")
    rename = os.rename

    def failing(source, target):
        if Path(target) == tmp_path / "o" / "feedback" and "old" not in Path(source).parts:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(ReportsError, match="No space left"):
        write_reports([graded("Eve")], tmp_path / "o", chapter=chapter, meta=meta)
    assert _contents(tmp_path / "o") == before


def _contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name", ["feedback/essay.docx", "feedback/mine.html", "index.html/keep.txt", "feedback"]
)
def test_what_no_report_wrote_is_not_replaced(name, chapter, meta, tmp_path):
    path = tmp_path / "o" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(ReportsError, match="choose another folder"):
        write_reports([graded("Ada")], tmp_path / "o", chapter=chapter, meta=meta)
    assert _contents(tmp_path / "o") == {Path(name): b"mine"}


def test_a_folder_that_cannot_be_made_is_named(chapter, meta, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportsError, match=r"file.out cannot be written"):
        write_reports([], tmp_path / "file" / "out", chapter=chapter, meta=meta)


@pytest.mark.parametrize("text", HOSTILE)
def test_cleaning_twice_changes_nothing(text):
    assert clean(clean(text)) == clean(text)
    assert len(clean(text, 50)) <= 50
