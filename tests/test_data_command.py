"""`lmcourse data` as a learner calls it; the fetching itself is tested in test_datasets.py."""

import hashlib
import http.server
import os
import re
import signal
import threading

import pytest

from lmcourse import cli, datasets, paths

TEXT = b"Nine seconds, and then again.\n"


@pytest.fixture
def server(tmp_path):
    """A server of one folder that holds a.txt."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a.txt").write_bytes(TEXT)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "site")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture
def course(tmp_path, monkeypatch, server):
    """A registry with a dataset of the server that is there, one that is not, and one that Python carries."""
    digest = hashlib.sha256(TEXT).hexdigest()
    common = 'title = "Nine"\nversion = "1"\nlicence = "CC0-1.0"\ncitation = "Keeper 1890"\ndescription = "Short."\n'

    def url_entry(name: str, file: str) -> str:
        return (
            f'[{name}]\nkind = "url"\nurl = "{server}"\nhash_source = "this test"\nfallback = "the lamp"\n{common}'
            f'files = [{{ name = "{file}", bytes = {len(TEXT)}, sha256 = "{digest}" }}]\n'
        )

    (tmp_path / "course" / "data").mkdir(parents=True)
    (tmp_path / "course" / "data" / "registry.toml").write_text(
        url_entry("gone", "b.txt") + url_entry("poem", "a.txt") + f'[pythondocs]\nkind = "stdlib"\n{common}'
    )
    monkeypatch.setattr(paths, "course_root", lambda: tmp_path / "course")
    monkeypatch.setenv("LMCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "120")


def rows(output: str) -> list[list[str]]:
    """The cells of a printed table, without its header and without what follows it."""
    table = output.partition("\n\n")[0]
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()[1:]]


def test_list_shows_every_entry_of_the_registry_in_order(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["data", "list"]) == 0
    assert [row[0] for row in rows(capsys.readouterr().out)] == list(datasets.entries())


def test_list_shows_kind_size_licence_and_whether_it_is_here(course, capsys):
    cli.main(["data", "list"])
    assert rows(capsys.readouterr().out) == [
        ["gone", "url", "30 bytes", "CC0-1.0", "no"],
        ["poem", "url", "30 bytes", "CC0-1.0", "no"],
        ["pythondocs", "stdlib", "–", "CC0-1.0", "yes, with Python"],
    ]
    cli.main(["data", "fetch", "poem"])
    capsys.readouterr()
    cli.main(["data", "list"])
    assert rows(capsys.readouterr().out)[1][-1] == "yes"


def test_list_ends_with_what_is_left_to_download(course, capsys):
    cli.main(["data", "fetch", "poem"])
    capsys.readouterr()
    cli.main(["data", "list"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "`lmcourse data fetch --all` would download the 1 absent or damaged: 30 bytes."


def test_fetch_says_where_it_put_the_data_and_the_second_time_that_it_is_there(course, capsys):
    assert cli.main(["data", "fetch", "poem"]) == 0
    first = capsys.readouterr()
    assert cli.main(["data", "fetch", "poem"]) == 0
    second = capsys.readouterr()
    place = datasets.path("poem")
    assert place.read_bytes() == TEXT
    assert first.out == f"poem: fetched into {place}\n"
    assert second.out == f"poem: already in {place}\n"
    assert first.err == second.err == ""


def test_fetch_all_fetches_the_rest_when_one_fails_and_reports_it_last(course, capsys):
    assert cli.main(["data", "fetch", "--all"]) == 1
    printed = capsys.readouterr()
    assert datasets.available("poem")
    assert [line.split(":")[0] for line in printed.out.splitlines()] == ["poem", "pythondocs"]
    assert printed.err.count("\n") == 1
    assert re.match(r"lmcourse data: gone: 127.0.0.1 answers 404 .*Until then: the lamp", printed.err)


def test_fetch_of_an_unknown_name_fetches_the_others(course, capsys):
    assert cli.main(["data", "fetch", "poen", "poem"]) == 1
    printed = capsys.readouterr()
    assert datasets.available("poem")
    assert printed.err.startswith("lmcourse data: there is no dataset 'poen'. Did you mean 'poem'?")


@pytest.mark.parametrize("words", [[], ["--all", "poem"]])
def test_fetch_wants_names_or_all(course, capsys, words):
    assert cli.main(["data", "fetch", *words]) == 2
    assert "name what to fetch, or give --all" in capsys.readouterr().err


def test_a_terminated_fetch_exits_with_130_and_leaves_nothing(course, tmp_path, monkeypatch):
    def terminate(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("pooch.retrieve", terminate)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["data", "fetch", "poem"]) == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert list((tmp_path / "cache" / "datasets").iterdir()) == []


def test_verify_reports_a_damaged_file_and_exits_with_1(course, capsys):
    cli.main(["data", "fetch", "poem"])
    capsys.readouterr()
    assert cli.main(["data", "verify"]) == 0
    assert capsys.readouterr().out == "poem: as it should be (1 file)\n"
    datasets.path("poem").write_bytes(TEXT[::-1])
    assert cli.main(["data", "verify"]) == 1
    assert "poem was damaged (a.txt has the wrong SHA-256) and has been removed" in capsys.readouterr().err


def test_a_file_cut_short_is_listed_as_damaged_and_verify_removes_it(course, capsys):
    cli.main(["data", "fetch", "poem"])
    file = datasets.path("poem")
    file.write_bytes(TEXT[:5])
    capsys.readouterr()
    cli.main(["data", "list"])
    assert rows(capsys.readouterr().out)[1][-1] == "damaged"
    assert cli.main(["data", "verify"]) == 1
    assert "poem was damaged (a.txt has 5 bytes, not 30) and has been removed" in capsys.readouterr().err
    assert not file.exists()


def test_a_bundled_file_that_was_edited_is_listed_as_damaged_and_fails_verify(course, tmp_path, capsys):
    with (tmp_path / "course" / "data" / "registry.toml").open("a") as registry:
        registry.write(
            '[play]\nkind = "bundled"\ntitle = "P"\nversion = "1"\nlicence = "CC0-1.0"\ncitation = "K"\n'
            f'description = "D"\nfiles = [{{ name = "play.txt", bytes = 3, sha256 = "{"0" * 64}" }}]\n'
        )
    assert cli.main(["data", "verify"]) == 1
    assert "play is missing from" in capsys.readouterr().err
    (tmp_path / "course" / "data" / "play.txt").write_text("edited")
    cli.main(["data", "list"])
    assert rows(capsys.readouterr().out)[-1][-1] == "damaged"
    assert cli.main(["data", "verify"]) == 1
    assert "play.txt has 6 bytes, not 3" in capsys.readouterr().err


def test_verify_of_what_is_not_here_names_the_command(course, capsys):
    assert cli.main(["data", "verify", "poem"]) == 1
    assert "run `lmcourse data fetch poem`" in capsys.readouterr().err


def test_card_shows_licence_citation_size_hash_and_place(course, capsys):
    assert cli.main(["data", "card", "poem"]) == 0
    before = capsys.readouterr().out
    cli.main(["data", "fetch", "poem"])
    capsys.readouterr()
    cli.main(["data", "card", "poem"])
    after = " ".join(capsys.readouterr().out.split())
    digest = hashlib.sha256(TEXT).hexdigest()
    for fact in ("CC0-1.0", "Keeper 1890", f"{len(TEXT)} bytes", digest, "without it the lamp"):
        assert fact in after
    assert re.search(r"^here +no$", before, re.MULTILINE)
    assert str(datasets.path("poem").parent) in after


def test_card_of_an_unknown_name_is_one_line(course, capsys):
    assert cli.main(["data", "card", "lamp"]) == 1
    assert capsys.readouterr().err == (
        "lmcourse data: there is no dataset 'lamp'. `lmcourse data list` shows them all.\n"
    )


def test_every_card_of_the_registry_can_be_shown(capsys):
    for name, entry in datasets.entries().items():
        assert cli.main(["data", "card", name]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"{name}: {entry.title}\n")
        assert all(file.sha256 in shown for file in entry.files)
