"""The repository: its names, links, sizes and lock agree with each other."""

import doctest
import itertools
import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lmcourse
from lmcourse import paths
from tools import notebooks

ROOT = paths.PACKAGE.parent
LARGEST_BYTES = 5_000_000
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")
CHAPTER = re.compile(r"ch(\d\d)_([a-z]+)")


def tracked():
    """Return the files that git knows; without git, there is nothing to check."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git clone")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def texts():
    """Yield each tracked text file with its text."""
    for path in tracked():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def relative(path):
    return str(path.relative_to(ROOT))


def committed_notebooks():
    folders = ("chapters", "exercises", "solutions")
    return sorted(path for folder in folders for path in (ROOT / folder).glob("*.ipynb"))


def test_every_internal_link_leads_somewhere():
    links = [
        (page, target.split("#")[0])
        for page in tracked()
        if page.suffix == ".md"
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("#")
    ]
    assert links, "no link was found: is the pattern right?"
    assert [f"{relative(page)}: {to}" for page, to in links if not (page.parent / to).exists()] == []


def test_no_file_is_large():
    assert [relative(path) for path in tracked() if path.stat().st_size > LARGEST_BYTES] == []


def test_no_file_names_a_path_of_one_machine():
    # The tests of the check itself, and of the doctor, hold such paths on purpose.
    exempt = {"tests/test_notebook_tools.py", "tests/test_repository.py"}
    found = [
        f"{relative(path)}: {match.group()}"
        for path, text in texts()
        if relative(path) not in exempt
        for match in re.finditer(r"(?<![\w.~-])/(?:home|Users|root|work)/\w+", text)
    ]
    assert found == []


@pytest.mark.parametrize("path", committed_notebooks(), ids=relative)
def test_committed_notebooks_are_clean(path):
    assert notebooks.check(path) == []


def test_knowing_a_chapters_name_one_knows_all_its_paths():
    stems = {path.stem for path in committed_notebooks()} - {"00_start_here"}
    assert [stem for stem in stems if not CHAPTER.fullmatch(stem)] == []
    missing = [
        place
        for stem in sorted(stems)
        for name in [CHAPTER.fullmatch(stem)[2]]
        for place in (
            f"chapters/{stem}.ipynb",
            f"exercises/{stem}.ipynb",
            f"solutions/{stem}.ipynb",
            f"lmcourse/{name}/__init__.py",
            f"lmcourse/grading/checks/{stem}.py",
            f"tests/test_{name}.py",
            f"tests/wrong/{stem}.py",
        )
        if not (ROOT / place).exists()
    ]
    assert missing == []


def test_checks_and_wrong_answers_belong_to_a_chapter():
    chapters = {path.stem for path in (ROOT / "chapters").glob("ch*.ipynb")}
    for folder in ("lmcourse/grading/checks", "tests/wrong"):
        assert {path.stem for path in (ROOT / folder).glob("ch*.py")} <= chapters


@pytest.mark.parametrize("page", ["README.md", "chapters/00_start_here.ipynb"])
def test_the_tables_of_chapters_tell_the_truth(page):
    rows = re.findall(
        r"\| (\d+) \| (.*?) \|[^|]*\| (\**)(here|to come)\3 \|", (ROOT / page).read_text("utf-8")
    )
    assert [int(number) for number, *_ in rows] == list(range(1, 11))
    for number, title, _, state in rows:
        there = list((ROOT / "chapters").glob(f"ch{int(number):02}_*.ipynb"))
        assert (state == "here") == bool(there), f"{page} says that chapter {number} is {state}"
        assert ("](" in title) == bool(there), f"{page}: the title of chapter {number} links if it is there"


def test_the_lock_meets_every_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    ranges = itertools.chain(project["dependencies"], extras["notebook"], extras["dev"])
    pins = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    locked = {canonicalize_name(name): version for name, version in pins}
    for requirement in map(Requirement, ranges):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_an_install_from_a_clone_reads_the_clones_own_files():
    assert paths.course_root() == ROOT


def test_the_changelog_tells_of_this_version():
    assert re.search(
        rf"^## \[{re.escape(lmcourse.__version__)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_continuous_integration_runs_what_the_readme_says():
    script = (ROOT / ".ci" / "run").read_text()
    assert script.rstrip().splitlines()[-1] == "make test"
    assert "bash .ci/run" in (ROOT / ".github" / "workflows" / "test.yml").read_text()


def test_the_readmes_example_prints_what_it_says():
    outcome = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert outcome.attempted > 5
    assert outcome.failed == 0
