"""Set-up on Google Colab, which brings its own TensorFlow.

Every notebook's first code cell is `FIRST_CELL`. It installs this package alone; `setup` then adds what the
course needs without touching the TensorFlow that Colab has built for its GPUs.
"""

import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

FIRST_CELL = """\
# On Google Colab this installs the course; anywhere else it does nothing.
try:
    import google.colab
except ImportError:
    pass
else:
    import subprocess
    import sys

    course = "lmcourse @ git+https://github.com/lmcourse/lmcourse"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", course], check=True)
    from lmcourse.colab import setup

    setup()"""

# TensorFlow's minor versions for which a tensorflow-text of the same minor exists: its operations are
# compiled against that one. Each is checked when the lock is renewed.
SUPPORTED_MINORS = ("2.18", "2.19", "2.20", "2.21")

# What Colab has in a build of its own; replacing it costs minutes, and the GPU.
KEPT = frozenset({"tensorflow", "tensorflow-text", "keras"})


def setup() -> None:
    """Install tensorflow-text for the TensorFlow that is here, and the light dependencies that are missing.

    Raises:
        RuntimeError: if TensorFlow is missing, or of a minor version the course does not support, or Keras
            is older than the course needs.
        subprocess.CalledProcessError: if pip fails.
    """
    minor = tensorflow_minor()
    check_keras()
    if installed("tensorflow-text") is None or minor_of(installed("tensorflow-text")) != minor:
        pip_install(["--no-deps", f"tensorflow-text=={minor}.*"])
    missing = missing_dependencies(metadata.requires("lmcourse") or ())
    if missing:
        pip_install(missing)
    print(f"lmcourse {installed('lmcourse')} is ready, with TensorFlow {installed('tensorflow')}.")


def tensorflow_minor() -> str:
    """Return the installed TensorFlow's minor version, such as "2.19".

    Raises:
        RuntimeError: if the course cannot run on it; the message says what to do.
    """
    version = installed("tensorflow")
    advice = (
        f"the course supports {SUPPORTED_MINORS[0]} to {SUPPORTED_MINORS[-1]}. "
        "Choose another runtime version under Runtime > Change runtime type."
    )
    if version is None:
        raise RuntimeError(f"This runtime has no TensorFlow; {advice}")
    minor = minor_of(version)
    if minor not in SUPPORTED_MINORS:
        raise RuntimeError(f"This runtime has TensorFlow {version}; {advice}")
    return minor


def check_keras() -> None:
    """Make sure that the runtime's Keras is one the course runs on.

    Raises:
        RuntimeError: if it is missing or too old.
    """
    for requirement in map(Requirement, metadata.requires("lmcourse") or ()):
        if requirement.name == "keras" and not satisfied(requirement):
            raise RuntimeError(
                f"This runtime has Keras {installed('keras')}; the course needs keras{requirement.specifier}. "
                "Run `%pip install -U keras`, restart the runtime, and run this cell again."
            )


def missing_dependencies(requirements: Sequence[str]) -> list[str]:
    """Return the requirements that the environment does not meet, in the form pip takes.

    Args:
        requirements: as in a distribution's metadata. Those of extras are left out, and so are `KEPT`.
    """
    needed = [Requirement(text) for text in requirements]
    return [
        f"{requirement.name}{requirement.specifier}"
        for requirement in needed
        if requirement.name not in KEPT
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
        and not satisfied(requirement)
    ]


def satisfied(requirement: Requirement) -> bool:
    """Return whether the distribution is installed in a version that fits."""
    version = installed(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def installed(name: str) -> str | None:
    """Return the installed distribution's version, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def minor_of(version: str) -> str:
    """Return a version's first two numbers.

    Example:
        >>> minor_of("2.21.0rc1")
        '2.21'
    """
    parsed = Version(version)
    return f"{parsed.major}.{parsed.minor}"


def pip_install(arguments: Sequence[str]) -> None:
    """Run `pip install` in this Python."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments], check=True)
