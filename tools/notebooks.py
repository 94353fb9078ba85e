"""Run notebooks in place, and check that what is committed is clean.

Run the first with `python -m tools.notebooks execute chapters/ch01_ngram.ipynb`, and the second with
`python -m tools.notebooks check chapters/*.ipynb`.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from lmcourse.files import replacing

ROOT = Path(__file__).resolve().parent.parent

# The same in every notebook, so that a learner's Python version never shows up as a change.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# "alt" describes the images that a cell shows, for those who cannot see them.
KEPT_CELL_METADATA = {"alt", "jupyter", "tags"}
WIDGET = "application/vnd.jupyter.widget-view+json"

# Of a chapter: at the scale `quick` the longest takes one minute, on a busy machine several.
CELL_SECONDS = 600

# A clone with its pictures stays small enough to fetch on a slow line.
LARGEST_BYTES = 1_500_000

MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|Users|root|tmp|work|var/folders)/\w|[A-Z]:\\{1,2}Users")
MEMORY_ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
IMAGE_TAG = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
EMPTY_ALT_MARKDOWN = re.compile(r"!\[\s*\]\(")


def execute(path: Path, cell_seconds: float = CELL_SECONDS) -> float:
    """Run a notebook from top to bottom at the scale `quick` and write its outputs into it.

    Args:
        path: the notebook; written only if every cell runs.
        cell_seconds: how long a cell may take.

    Returns:
        The seconds it took.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    run(notebook, path.parent, cell_seconds)
    seconds = time.perf_counter() - start
    write(notebook, path)
    return seconds


def run(notebook: NotebookNode, folder: Path, cell_seconds: float = CELL_SECONDS) -> None:
    """Run a notebook at the scale `quick` and leave in it, in place, clean outputs.

    Args:
        notebook: it is changed even if a cell fails.
        folder: where its code runs.
        cell_seconds: how long a cell may take.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    client = NotebookClient(
        notebook,
        timeout=cell_seconds,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    with mock.patch.dict(os.environ, environment()):
        client.execute()
    clean(notebook)


def environment() -> dict[str, str]:
    """Return the variables under which committed outputs are made."""
    inherited = os.environ.get("PYTHONPATH")
    return {
        "LMCOURSE_SCALE": "quick",
        "PYTHONPATH": os.pathsep.join([str(ROOT), inherited] if inherited else [str(ROOT)]),
        "JUPYTER_PREFER_ENV_PATH": "1",
        # TensorFlow's greeting names the machine's processor and the time.
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def clean(notebook: NotebookNode) -> None:
    """Remove, in place, what differs from one execution or machine to the next."""
    notebook.metadata = nbformat.from_dict(common_metadata(notebook))
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {k: v for k, v in cell.metadata.items() if k in KEPT_CELL_METADATA}
        )
        if cell.cell_type == "code":
            cell.outputs = [clean_output(output) for output in cell.outputs if not is_stderr(output)]


def common_metadata(notebook: NotebookNode) -> dict:
    """Return the metadata a notebook should have: the common ones, and what the course notes on its own behalf."""
    own = {"lmcourse": notebook.metadata.lmcourse} if "lmcourse" in notebook.metadata else {}
    return own | METADATA


def is_stderr(output: NotebookNode) -> bool:
    """Return whether an output is what the cell wrote to standard error: logs and progress bars."""
    return output.output_type == "stream" and output.name == "stderr"


def clean_output(output: NotebookNode) -> NotebookNode:
    """Return an output without the live view of a widget, whose state is not kept; its other forms stay."""
    if WIDGET in output.get("data", {}):
        del output.data[WIDGET]
    return output


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    nbformat.validate(notebook)
    with replacing(path) as draft:
        nbformat.write(notebook, draft)


def check(path: Path) -> list[str]:
    """Return what is wrong with a committed notebook, a line each; nothing if it is clean."""
    size = path.stat().st_size
    faults = [f"is {size:,} bytes; at most {LARGEST_BYTES:,}"] if size > LARGEST_BYTES else []
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (nbformat.ValidationError, nbformat.reader.NotJSONError, json.JSONDecodeError) as error:
        return [*faults, f"is no valid notebook: {str(error).splitlines()[0]}"]
    faults += id_faults(path)
    faults += notebook_faults(notebook)
    for number, cell in enumerate(notebook.cells, start=1):
        faults += [f"cell {number} ({cell.get('id')}) {fault}" for fault in cell_faults(cell)]
    return [f"{path}: {fault}" for fault in faults]


def id_faults(path: Path) -> Iterator[str]:
    """Yield what is wrong with the cells' ids as they are in the file: nbformat invents those it misses."""
    ids = [cell.get("id") for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    if None in ids or len(set(ids)) < len(ids):
        yield "has cells without an id of their own"


def notebook_faults(notebook: NotebookNode) -> Iterator[str]:
    """Yield what is wrong with a notebook as a whole."""
    if notebook.metadata != common_metadata(notebook):
        yield f"has metadata {json.dumps(notebook.metadata)}; `execute` writes the common ones"
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"was not run once from top to bottom: its cells are numbered {counts}"


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells that have code in them."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def cell_faults(cell: NotebookNode) -> Iterator[str]:
    """Yield what is wrong with one cell."""
    if MACHINE_PATH.search(cell.source):
        yield f"names a path of one machine, {MACHINE_PATH.search(cell.source).group()!r}"
    if cell.cell_type == "markdown":
        yield from image_faults(cell.source)
    for output in cell.get("outputs", ()):
        yield from output_faults(output, alt=cell.metadata.get("alt"))


def output_faults(output: NotebookNode, alt: str | None = None) -> Iterator[str]:
    """Yield what is wrong with one output; alt is the cell's description of its images, if it has one."""
    if output.output_type == "error":
        yield f"ended in {output.ename}: {output.evalue}"
        return
    if is_stderr(output):
        yield f"wrote to standard error: {output.text.strip().splitlines()[0]!r}"
    text = output_text(output)
    for what, pattern in (("a path of one machine", MACHINE_PATH), ("a memory address", MEMORY_ADDRESS)):
        if pattern.search(text):
            yield f"printed {what}, {pattern.search(text).group()!r}"
    yield from image_faults(output.get("data", {}).get("text/html", ""))
    for kind in output.get("data", {}):
        if kind.startswith("image/") and not (alt or output.metadata.get(kind, {}).get("alt")):
            yield f"shows an {kind} without alt text, in the cell's metadata or the output's"


def output_text(output: NotebookNode) -> str:
    """Return everything an output says in words."""
    data = output.get("data", {})
    return output.get("text", "") + "".join(v for k, v in data.items() if k.startswith("text/"))


def image_faults(text: str) -> Iterator[str]:
    """Yield the images in Markdown or HTML that have no alt text."""
    if EMPTY_ALT_MARKDOWN.search(text):
        yield "has a Markdown image without alt text"
    for tag in IMAGE_TAG.findall(text):
        if not re.search(r"""\balt\s*=\s*["'][^"']""", tag):
            yield f"has an image without alt text: {tag[:60]}"


def execute_all(paths: Iterable[Path]) -> int:
    """Run notebooks one after another; stop at none, and report those that failed.

    Returns:
        How many failed.
    """
    failed = 0
    for path in paths:
        print(f"{path} …", end=" ", flush=True)
        try:
            print(f"{execute(path):.0f} s")
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            failed += 1
            print(f"failed, and was left as it is\n{error}")
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 if a notebook failed or is not clean."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["execute", "check"])
    parser.add_argument("notebooks", nargs="+", type=Path)
    args = parser.parse_args(argv)
    if args.action == "execute":
        return int(execute_all(args.notebooks) > 0)
    faults = [fault for path in args.notebooks for fault in check(path)]
    print("\n".join(faults) or f"{len(args.notebooks)} clean")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
