"""TensorFlow without its notes about processors and drivers, which would stand before every answer of a command."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def import_tensorflow() -> None:
    """Import TensorFlow; what it says of the machine is shown only if the import fails."""
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # from the first operation on
    with _kept_back():  # its libraries, as they are loaded, do not ask
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _kept_back() -> Iterator[None]:
    """Keep what is written to standard error, in whatever language, and show it only if the block raises."""
    try:
        shown = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(shown, kept.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
