"""Where the course's files and the learner's cache are."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def course_root() -> Path:
    """Return the folder that holds `data/` and `exercises/`: the clone, or the installed package's copy."""
    installed = PACKAGE / "_course"
    return installed if installed.is_dir() else PACKAGE.parent


def cache_root() -> Path:
    """Return the folder for downloads and other files that can be made again.

    `LMCOURSE_CACHE` names it; otherwise it is `lmcourse` in the user's cache folder
    (`XDG_CACHE_HOME`, or `~/.cache`). It may not exist yet.
    """
    named = os.environ.get("LMCOURSE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmcourse"
