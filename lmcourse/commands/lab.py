"""`lmcourse lab`: JupyterLab on the course, with every notebook running in this Python."""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

from lmcourse import paths
from lmcourse.cli import UsageError

START_PAGE = "chapters/00_start_here.ipynb"

# Long enough for Jupyter to stop its kernels in good order.
SECONDS_TO_STOP = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take any argument at all: they are JupyterLab's."""
    parser.usage = "lmcourse lab [JUPYTERLAB'S ARGUMENTS]"
    parser.epilog = (
        "Every other argument goes to JupyterLab, for instance --no-browser, --port 8899 or --ip 0.0.0.0; "
        "`jupyter lab --help` lists them."
    )
    parser.set_defaults(extra_arguments=[])


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, or until JupyterLab ends.

    Returns:
        0 after Ctrl-C, otherwise JupyterLab's own exit status.
    """
    root = clone_root()
    if importlib.util.find_spec("jupyterlab") is None:
        raise UsageError(
            f"JupyterLab is not installed in {sys.executable}. Run `pip install -r requirements.txt` first."
        )
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    # Without a terminal to ask "Shut down this server?" on, Jupyter stops at once when it is told to.
    server = subprocess.Popen(
        command(root, args.extra_arguments), env=environment(root), cwd=root, stdin=subprocess.DEVNULL
    )
    try:
        return server.wait()
    except KeyboardInterrupt:
        stop(server)
        print("\nJupyterLab has stopped.")
        return 0


def clone_root() -> Path:
    """Return the clone's folder.

    Raises:
        UsageError: if lmcourse was installed without one.
    """
    root = paths.PACKAGE.parent
    if not (root / START_PAGE).is_file():
        raise UsageError(
            "the chapters are not here: this lmcourse was installed without its clone. "
            "Clone the course's repository and run `python -m lmcourse lab` in it."
        )
    return root


def command(root: Path, extra_arguments: list[str]) -> list[str]:
    """Return the call that starts JupyterLab on the start page."""
    call = [sys.executable, "-m", "jupyterlab", f"--LabApp.default_url=/lab/tree/{START_PAGE}"]
    if running_as_root() and "--allow-root" not in extra_arguments:
        # In a container root is the usual user, and Jupyter refuses it otherwise.
        call.append("--allow-root")
    return [*call, *extra_arguments, str(root)]


def running_as_root() -> bool:
    """Return whether this is the superuser of a Unix system."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def environment(root: Path) -> dict[str, str]:
    """Return the server's environment, in which every kernel finds this clone's lmcourse.

    So the notebooks work from a clone whose requirements alone are installed. A terminal in JupyterLab finds the
    `lmcourse` command of this Python's environment, whether it was activated or not.
    """
    return {
        **os.environ,
        "PYTHONPATH": before(str(root), os.environ.get("PYTHONPATH")),
        "PATH": before(str(Path(sys.executable).parent), os.environ.get("PATH")),
        # A kernel that the user once registered under the same name must not win over this Python's own.
        "JUPYTER_PREFER_ENV_PATH": "1",
    }


def before(folder: str, folders: str | None) -> str:
    """Return a list of folders, as environment variables hold them, with one more in front."""
    return os.pathsep.join([folder, folders] if folders else [folder])


def stop(server: subprocess.Popen) -> None:
    """End the server: in good order first, at once if it is asked again or takes too long."""
    try:
        server.terminate()
        server.wait(timeout=SECONDS_TO_STOP)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        server.kill()
        server.wait()
