"""The memory that reporting on a class takes does not grow with the class; its list of learners alone does."""

import tracemalloc

import pytest

from lmcourse.commands import grade as command
from lmcourse.grading.chapters import Chapter
from lmcourse.grading.grader import ExerciseGrade, Report
from lmcourse.grading.handed_in import Submission
from lmcourse.grading.journal import Grades, Journal
from lmcourse.grading.notebook import Notebook
from lmcourse.grading.outcomes import PASSED, WRONG, Outcome
from lmcourse.grading.outcomes import Test as ExerciseTest
from lmcourse.grading.reports import Answers, find_similar, provenance, similar, write_reports
from lmcourse.grading.submissions import Graded

# A grade of so many is about 5 kB as JSON, and several times that in memory.
EXERCISES, TESTS = 4, 4
FEW, MANY = 20, 120
KIB = 1024


def report(learner):
    exercises = []
    for number in range(1, EXERCISES + 1):
        tests = [
            ExerciseTest(f"test_{number}_{i}", f"91.{number}", 1, f"hint {number} {i}: " + 40 * "h", ("f",))
            for i in range(TESTS)
        ]
        outcomes = [
            Outcome(test.name, WRONG if number % 3 else PASSED, f"{learner} {number}: " + 100 * "m", "6", "7")
            for test in tests
        ]
        exercises.append(ExerciseGrade(f"91.{number}", tests, outcomes))
    return Report("a.ipynb", "91", exercises, [])


def graded_class(folder, learners):
    """Return the grades of a class and where the journal has them, with what each learner handed in."""
    journal = Journal(folder / "journal.jsonl")
    submissions = [Submission(f"learner {n:04}", f"learner{n:04}.ipynb") for n in range(learners)]
    grades = Grades(journal, submissions)
    for number, one in enumerate(submissions):
        grade = Graded(one.learner, one.source, report(one.learner), "", 1.0)
        grades.set(number, grade, journal.add(f"key {number}", grade))
    return grades


class Code(Answers):
    """Answers that are written when they are asked for, with more fingerprints than are needed to be compared."""

    def __getitem__(self, learner):
        return "\n".join(f"def f{i}(a, b):\n    return a[{learner[-4:]} + {i}] + b" for i in range(8))


def peak(learners, folder, report_on):
    """Return the most memory, in bytes, that reporting on so many learners takes beyond what is there before."""
    folder.mkdir()
    grades = graded_class(folder, learners)
    tracemalloc.start()
    try:
        report_on(grades, folder)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def write(grades, folder):
    (folder / "ch91_memory.py").write_text("checks")
    chapter = Chapter("ch91_memory", folder / "ch91_memory.py")
    write_reports(grades, folder / "grades", chapter=chapter, meta=provenance(chapter))


def show(grades, folder):
    command.print_class(grades)


def compare(grades, folder):
    code = Code({one.learner: folder for one in grades}, Notebook([], [], {}))
    assert find_similar(code, most=10).compared == len(grades)


# What a learner may cost: a name, the name of a page and its path, or where the fingerprints are.
@pytest.mark.parametrize("report_on", [write, show, compare])
def test_six_times_the_class_takes_hardly_more_memory(report_on, tmp_path, monkeypatch):
    monkeypatch.setattr(similar, "_BLOCK", 8)
    monkeypatch.setattr(command, "_PORTION", 10)
    report_on(graded_class(tmp_path, 3), tmp_path)  # what is imported and cached once
    few, many = (peak(learners, tmp_path / f"{learners}", report_on) for learners in (FEW, MANY))
    assert many - few < (MANY - FEW) * KIB


def test_grades_are_read_from_the_journal_again_and_again(tmp_path):
    grades = graded_class(tmp_path, 3)
    assert len(grades) == 3
    assert [one.report.as_json()["exercises"] for one in grades] == [
        report(f"learner {n:04}").as_json()["exercises"] for n in range(3)
    ]
    assert grades[-1] == grades[2] == grades[1:][1]
    again = Journal(tmp_path / "journal.jsonl")
    assert again.read(again.place("key 1"), Submission("bob", "b.ipynb")).report.points == grades[1].points
    assert again.place("key 3") is None


def test_line_that_was_torn_or_replaced_leaves_the_journal(tmp_path):
    grades = graded_class(tmp_path, 3)
    path = tmp_path / "journal.jsonl"
    better = Graded("learner 0001", "", None, "late", 1.0)
    with path.open("a") as file:
        file.write('{"key": "key 2"}\nno grade\n{"key": "torn')
    journal = Journal(path)
    assert path.read_text().count("\n") == 3
    journal.add("key 1", better)
    journal = Journal(path)
    faults = [journal.read(journal.place(f"key {n}"), Submission("a", "a")).fault for n in range(3)]
    assert faults == ["", "late", ""]
    assert path.read_text().count("\n") == 3
    assert grades[0].fault == ""


def test_grade_that_is_not_there_yet_is_not_read(tmp_path):
    grades = Grades(Journal(tmp_path / "journal"), [Submission("ada", "ada.ipynb")])
    with pytest.raises(ValueError, match=r"ada\.ipynb has not been graded yet"):
        grades[0]
