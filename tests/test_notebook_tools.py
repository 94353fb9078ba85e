"""tools.notebooks: what it runs, what it keeps, and every fault it must find."""

import os

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import make_exercises, notebooks

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def clean_notebook():
    """A notebook with nothing wrong: text, a printed line, and a picture with alt text."""
    return new_notebook(
        metadata=notebooks.METADATA,
        cells=[
            new_markdown_cell("# Title", id="title"),
            new_code_cell(
                "print(1)", id="first", execution_count=1, outputs=[new_output("stream", text="1\n")]
            ),
            new_code_cell(
                "show()",
                id="second",
                execution_count=2,
                metadata={"alt": "A dot."},
                outputs=[new_output("display_data", data={"image/png": PNG})],
            ),
        ],
    )


def faults_of(notebook, tmp_path):
    path = tmp_path / "ch99_test.ipynb"
    nbformat.write(notebook, path)
    return "\n".join(notebooks.check(path))


def test_a_clean_notebook_has_no_fault(tmp_path):
    assert faults_of(clean_notebook(), tmp_path) == ""


def print_in_first(text, name="stdout"):
    def change(notebook):
        notebook.cells[1].outputs = [new_output("stream", name=name, text=text)]

    return change


def change_source(source, cell=0):
    def change(notebook):
        notebook.cells[cell].source = source

    return change


def fail_in_first(notebook):
    notebook.cells[1].outputs = [new_output("error", ename="ValueError", evalue="wrong", traceback=[])]


def run_out_of_order(notebook):
    notebook.cells[1].execution_count, notebook.cells[2].execution_count = 2, 1


def leave_unrun(notebook):
    notebook.cells[2].execution_count = None


def forget_alt(notebook):
    notebook.cells[2].metadata = {}


def show_html_image(notebook):
    notebook.cells[1].outputs = [new_output("display_data", data={"text/html": '<img src="x.png" alt="">'})]


def name_the_python_version(notebook):
    notebook.metadata = {**notebooks.METADATA, "language_info": {"name": "python", "version": "3.11.7"}}


def grow(notebook):
    notebook.cells[1].outputs = [new_output("stream", text="x" * 1_500_000)]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (fail_in_first, "cell 2 (first) ended in ValueError: wrong"),
        (run_out_of_order, "was not run once from top to bottom: its cells are numbered [2, 1]"),
        (leave_unrun, "its cells are numbered [1, None]"),
        (forget_alt, "cell 3 (second) shows an image/png without alt text"),
        (show_html_image, "has an image without alt text: <img"),
        (change_source("![](picture.png)"), "cell 1 (title) has a Markdown image without alt text"),
        (change_source("open('/home/ada/data.txt')", cell=1), "names a path of one machine, '/home/a'"),
        (print_in_first("saved to /Users/ada/course"), "printed a path of one machine, '/Users/a'"),
        (print_in_first("C:\\Users\\ada"), "printed a path of one machine"),
        (print_in_first("<object at 0x7f12ab34cd56>"), "printed a memory address"),
        (
            print_in_first("UserWarning: beware\n", name="stderr"),
            "wrote to standard error: 'UserWarning: beware'",
        ),
        (name_the_python_version, "has metadata"),
        (grow, "at most 1,500,000"),
    ],
)
def test_each_fault_is_found(tmp_path, change, fault):
    notebook = clean_notebook()
    change(notebook)
    assert fault in faults_of(notebook, tmp_path)


@pytest.mark.parametrize("text", ["https://example.org/home/page", "nats/tokens/work", "~/work/notes"])
def test_an_address_is_no_path_of_a_machine(tmp_path, text):
    notebook = clean_notebook()
    print_in_first(text)(notebook)
    assert faults_of(notebook, tmp_path) == ""


@pytest.mark.parametrize("spoilt", ['"id": "title",', ""], ids=["double", "missing"])
@pytest.mark.filterwarnings("ignore::nbformat.warnings.DuplicateCellId")
@pytest.mark.filterwarnings("ignore::nbformat.warnings.MissingIDFieldWarning")
def test_a_cell_without_an_id_of_its_own_is_a_fault(tmp_path, spoilt):
    path = tmp_path / "ch99_test.ipynb"
    path.write_text(nbformat.writes(clean_notebook()).replace('"id": "first",', spoilt))
    assert "without an id of their own" in "\n".join(notebooks.check(path))


def test_a_file_that_is_no_notebook_is_a_fault(tmp_path):
    (tmp_path / "x.ipynb").write_text("not json")
    assert "is no valid notebook" in notebooks.check(tmp_path / "x.ipynb")[0]


def test_execution_keeps_ids_and_writes_clean_outputs_at_quick(tmp_path, monkeypatch):
    monkeypatch.setenv("LMCOURSE_SCALE", "full")
    path = tmp_path / "ch99_test.ipynb"
    notebook = new_notebook(
        cells=[
            new_code_cell("import sys\nfrom lmcourse.scale import scale\nprint(scale())", id="scale"),
            new_code_cell(
                "print('log', file=sys.stderr)\n1 + 1", id="sum", metadata={"tags": ["kept"], "x": 1}
            ),
        ]
    )
    notebook.metadata["lmcourse"] = {"chapter": "99"}
    nbformat.write(notebook, path)
    notebooks.execute(path)
    written = nbformat.read(path, as_version=4)
    assert [cell["id"] for cell in written.cells] == ["scale", "sum"]
    assert written.cells[0].outputs[0].text == "quick\n"
    assert [output.data["text/plain"] for output in written.cells[1].outputs] == ["2"]
    assert written.cells[1].metadata == {"tags": ["kept"]}
    assert written.metadata == {**notebooks.METADATA, "lmcourse": {"chapter": "99"}}
    assert notebooks.check(path) == []


def test_a_notebook_that_fails_is_left_as_it_was_and_counted(tmp_path, capsys):
    path = tmp_path / "ch99_test.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0", id="only")]), path)
    before = path.read_bytes()
    assert notebooks.main(["execute", str(path)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def solution_notebook(tmp_path, *sources):
    cells = [new_code_cell(source, id=f"c{place}") for place, source in enumerate(sources)]
    path = tmp_path / "solutions" / "ch99_test.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_exercises_are_run_as_chapters_are_at_quick_and_clean(tmp_path, monkeypatch):
    monkeypatch.setenv("LMCOURSE_SCALE", "full")
    solution_notebook(
        tmp_path,
        "import sys\nfrom lmcourse.scale import scale\nprint(scale())",
        "print('log', file=sys.stderr)",
    )
    [stub] = make_exercises.make(tmp_path / "solutions", tmp_path / "exercises")
    assert notebooks.check(stub) == []
    written = nbformat.read(stub, as_version=4)
    assert [[output.text for output in cell.outputs] for cell in written.cells] == [["quick\n"], []]
    assert written.metadata == {**notebooks.METADATA, "lmcourse": {"chapter": "99"}}
    assert os.environ["LMCOURSE_SCALE"] == "full"


def test_an_exercise_that_cannot_be_run_or_written_leaves_the_older_one(tmp_path, monkeypatch):
    exercises = tmp_path / "exercises"
    exercises.mkdir()
    old = exercises / "ch99_test.ipynb"
    old.write_text("old")
    solution_notebook(tmp_path, "1 / 0")
    with pytest.raises(CellExecutionError):
        list(make_exercises.make(tmp_path / "solutions", exercises))
    assert old.read_text() == "old"

    def write_half(notebook, path):
        path.write_text("half")
        raise OSError("disk full")

    solution_notebook(tmp_path, "1")
    monkeypatch.setattr(nbformat, "write", write_half)
    with pytest.raises(OSError, match="disk full"):
        list(make_exercises.make(tmp_path / "solutions", exercises))
    assert old.read_text() == "old"
    assert list(exercises.iterdir()) == [old]


@pytest.mark.parametrize("number", ["9", "09", "ch09"])
def test_exercises_of_one_chapter_are_made_however_its_number_is_written(tmp_path, number, monkeypatch):
    for chapter in ("08", "09"):
        solution_notebook(tmp_path, "1").rename(tmp_path / "solutions" / f"ch{chapter}_test.ipynb")
    monkeypatch.setattr(notebooks, "run", lambda *_: None)
    made = make_exercises.make(tmp_path / "solutions", tmp_path / "exercises", [number])
    assert [path.name for path in made] == ["ch09_test.ipynb"]
