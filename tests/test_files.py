"""Files are written whole or not at all."""

import pytest

from lmcourse.files import replacing, write_text


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old\n")

    def write_half():
        with replacing(path) as draft:
            draft.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_bytes() == b"old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_draft_keeps_the_ending_that_says_what_it_is(tmp_path):
    with replacing(tmp_path / "model.arpa.gz") as draft:
        assert draft.suffixes[-2:] == [".arpa", ".gz"]
        draft.touch()


def test_a_missing_folder_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "none" / "a.txt", "text")
