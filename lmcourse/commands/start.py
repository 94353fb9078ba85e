"""`lmcourse start`: copy a chapter's exercises to my/, where the course never writes again."""

import argparse
import itertools
import os
from pathlib import Path

from lmcourse.chapters import two_digits
from lmcourse.cli import UsageError
from lmcourse.files import replacing
from lmcourse.paths import course_root

FOLDER = Path("my")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the chapter and --again."""
    parser.add_argument(
        "chapter", nargs="?", help="the chapter's number, as in 03; default: list the chapters"
    )
    parser.add_argument("--again", action="store_true", help="make one more copy, numbered, to start afresh")


def run(args: argparse.Namespace) -> int:
    """Copy the notebook, or list what there is."""
    stubs = stub_notebooks()
    if args.chapter is None:
        print(
            "\n".join(f"{number}  {path.stem[5:]}" for number, path in stubs.items()) or "No exercises yet."
        )
        return 0
    stub = _find(args.chapter, stubs)
    target = FOLDER / stub.name
    if target.exists() and not args.again:
        print(
            f"{target} is there already and stays as it is. `lmcourse start {args.chapter} --again` adds a copy."
        )
    else:
        target = copy_stub(stub, FOLDER)
        print(f"Your exercises are in {target}.")
    print(f"Open them:  lmcourse lab\nGrade them: lmcourse grade {target}")
    return 0


def stub_notebooks() -> dict[str, Path]:
    """Return the notebooks of stubs by chapter number in two digits."""
    return {path.name[2:4]: path for path in sorted(course_root().glob("exercises/ch[0-9][0-9]_*.ipynb"))}


def copy_stub(stub: Path, folder: Path) -> Path:
    """Copy a notebook into a folder under the first name that is free: ch03_x.ipynb, ch03_x-2.ipynb, ...

    Returns:
        The copy, whole. No file that exists is ever written to.

    Raises:
        UsageError: if the folder cannot be written.
    """
    names = itertools.chain(
        [stub.name], (f"{stub.stem}-{number}{stub.suffix}" for number in itertools.count(2))
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target = next(folder / name for name in names if not os.path.lexists(folder / name))
        with replacing(target) as draft:
            draft.write_bytes(stub.read_bytes())
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}.") from None
    return target


def _find(chapter: str, stubs: dict[str, Path]) -> Path:
    number = two_digits(chapter)
    if number not in stubs:
        raise UsageError(
            f"there is no chapter {chapter!r} with exercises; there is {', '.join(stubs) or 'none yet'}."
        )
    return stubs[number]
