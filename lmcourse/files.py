"""Write files whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a path to write to; when the block ends well, what is there takes the place of the file.

    Whoever reads the file sees the old content or the new one, never a part; if the block raises, the old
    content stays and nothing else is left behind.

    Args:
        path: the file to write; its folder must exist.

    Yields:
        A path in the same folder that no file has, ending like the file's name: `os.replace` is atomic only within
        one file system.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder, "a.txt")) as draft:
        ...         _ = draft.write_text("whole")
        ...     os.listdir(folder)
        ['a.txt']
    """
    path = Path(path)
    draft = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    r"""Write a UTF-8 file, lines ended by \n on every system, whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")
