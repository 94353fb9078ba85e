"""The registry, fetching (against a server and a package index on this machine), the corpora and their loaders."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import zipfile
from pathlib import Path

import pytest

from lmcourse import datasets, paths
from lmcourse.datasets import cache, download, registry, stdlib_text

TEXT = b"The lamp turns once in nine seconds.\n" * 5_000  # 185 kB: several chunks of a download
COMMON = 'title = "T"\nversion = "1.0"\nlicence = "MIT"\ncitation = "C"\ndescription = "D"\n'


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_line(name: str, content: bytes) -> str:
    return f'{{ name = "{name}", bytes = {len(content)}, sha256 = "{sha256(content)}" }}'


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course folder with an empty registry, a cache beside it, and no way out to a network."""
    (tmp_path / "course" / "data").mkdir(parents=True)
    monkeypatch.setattr(paths, "course_root", lambda: tmp_path / "course")
    monkeypatch.setenv("LMCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path


def register(course: Path, text: str) -> None:
    with (course / "course" / "data" / "registry.toml").open("a", encoding="utf-8") as stream:
        stream.write(text + "\n")


def register_url(
    course: Path, url: str, name: str = "poem", content: bytes = TEXT, file: str = "a.txt"
) -> None:
    register(
        course,
        f'[{name}]\nkind = "url"\nurl = "{url}"\nhash_source = "this test"\nfallback = "another poem"\n'
        f"{COMMON}files = [{file_line(file, content)}]",
    )


def cached_files(course: Path) -> list[str]:
    """Every file in the cache but the locks, which are empty and stay."""
    root = course / "cache"
    return sorted(
        str(file.relative_to(root))
        for file in root.rglob("*")
        if (file.is_file() or not any(file.iterdir())) and root / "locks" not in (file, *file.parents)
    )


def assert_nothing_is_left(course: Path) -> None:
    assert [name for name in cached_files(course) if name != "datasets"] == []


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves TEXT, well or badly, as the path asks."""

    def do_GET(self):
        self.server.requested.append(self.path)
        if self.path.startswith("/missing/"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        if self.path.startswith("/wrong/"):
            self.wfile.write(TEXT[::-1])
        elif self.path.startswith("/cut/"):
            self.wfile.write(TEXT[: len(TEXT) // 2])
        elif self.path.startswith("/stalled/"):
            self.wfile.write(TEXT[: len(TEXT) // 2])
            self.wfile.flush()
            self.server.half_is_sent.set()
            self.server.go_on.wait(30)
            with contextlib.suppress(OSError):  # the client may be gone by now, which is the point
                self.wfile.write(TEXT[len(TEXT) // 2 :])
        else:
            self.wfile.write(TEXT)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.requested = []
        running.half_is_sent = threading.Event()
        running.go_on = threading.Event()
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


def build_wheel(course: Path, members: dict[str, bytes], package: str = "tiny_corpus") -> bytes:
    """Put a wheel with these members into the package index; return its bytes."""
    wheel = course / "index" / f"{package}-1.0-py3-none-any.whl"
    info = f"{package}-1.0.dist-info"
    names = [*members, f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD"]
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in names))
    return wheel.read_bytes()


def register_wheel(course: Path, wheel: bytes, files: dict[str, bytes], name: str = "tiny") -> None:
    lines = ", ".join(file_line(file, content) for file, content in files.items())
    register(
        course,
        f'[{name}]\nkind = "wheel"\npackage = "tiny-corpus"\nroot = "tiny_corpus/data"\nfallback = "less"\n'
        f'wheel_bytes = {len(wheel)}\nwheel_sha256 = "{sha256(wheel)}"\n'
        f"{COMMON}files = [{lines}]",
    )


def fetch_in_another_process(course: Path, name: str) -> subprocess.Popen:
    """Fetch in a process of its own that reads the same registry and cache."""
    code = (
        "import pathlib, signal, sys\n"
        # A shell's background job ignores Ctrl-C, and so would its children.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from lmcourse import datasets, paths\n"
        "paths.course_root = lambda: pathlib.Path(sys.argv[1])\n"
        "print(datasets.fetch(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, str(course / "course"), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class FullDisk:
    """An open file on a disk without room: what is written is refused by the system itself."""

    def __new__(cls, *args, **kwargs):
        return open("/dev/full", "wb", buffering=0)


def test_every_entry_of_the_registry_is_valid_and_says_what_to_do_without_it():
    known = datasets.entries()
    assert {entry.kind for entry in known.values()} == set(registry.KINDS)
    for entry in known.values():
        assert entry.licence, entry.name
        assert entry.citation, entry.name
        assert entry.fallback or not entry.is_downloaded, entry.name


def test_the_wheels_are_about_180_megabytes():
    wheels = [entry.wheel_bytes for entry in datasets.entries().values() if entry.kind == "wheel"]
    assert 170e6 < sum(wheels) < 185e6


def test_bundled_files_are_those_of_the_registry():
    bundled = [entry for entry in datasets.entries().values() if entry.kind == "bundled"]
    assert sum(len(entry.files) for entry in bundled) >= 2
    for entry in bundled:
        datasets.verify(entry.name)


def test_hashes_of_the_public_datasets_are_those_of_tensorflow_datasets():
    # tensorflow-datasets 4.9.10: datasets/imdb_reviews/checksums.tsv, url_checksums/glue.txt and
    # datasets/squad/checksums.tsv, which give the address, the size and the hash.
    expected = {
        "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz": (84125825, "c40f74a18d3b"),
        "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip": (7439277, "d67e16fb5573"),
        "https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v1.1.json": (4854279, "95aa6a52d5d6"),
        "https://rajpurkar.github.io/SQuAD-explorer/dataset/train-v1.1.json": (30288272, "3527663986b8"),
    }
    found = {
        f"{entry.url}/{file.name}": (file.bytes, file.sha256[:12])
        for entry in map(datasets.entry, ("imdb", "sst2", "squad"))
        for file in entry.files
    }
    assert found == expected


def test_an_unknown_name_suggests_the_closest():
    with pytest.raises(
        datasets.DatasetError, match=r"no dataset 'tinyshakespear'. Did you mean 'tinyshakespeare'"
    ):
        datasets.entry("tinyshakespear")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (f'[poem]\nkind = "ftp"\n{COMMON}', "kind must be one of bundled, stdlib, wheel, url; got 'ftp'"),
        (f'[poem]\nkind = "url"\n{COMMON}', "kind url must have url, hash_source, files"),
        (f'[Poem]\nkind = "stdlib"\n{COMMON}', "name must be lower-case"),
        (f'[poem]\nkind = "stdlib"\nflavour = "sweet"\n{COMMON}', "flavour"),
        ('[poem]\nfiles = [{ name = "a", sha256 = "12" }]\n', "sha256 must be 64"),
        (f'[poem]\nfiles = [{{ name = "../a", sha256 = "{"0" * 64}" }}]\n', "inside the dataset"),
        ("[poem\n", "not valid TOML"),
        ("poem = 3\n", "entry 'poem': an entry must be a table; got 3"),
        ('[[poem]]\nkind = "url"\n', "entry 'poem': an entry must be a table; got \\["),
        (
            "[poem]\nfiles = [{ name = 3, sha256 = 'SHA' }]\n".replace("SHA", "0" * 64),
            "inside the dataset; got 3",
        ),
    ],
)
def test_a_registry_that_makes_no_sense_is_refused_with_the_reason(course, table, complaint):
    register(course, table)
    with pytest.raises(datasets.DatasetError, match=complaint):
        datasets.entries()


def test_the_registry_is_parsed_once_for_each_content(course, monkeypatch):
    parsed = []
    real = registry.tomllib.loads
    monkeypatch.setattr(registry.tomllib, "loads", lambda text: parsed.append(text) or real(text))
    register(course, f'[poem]\nkind = "stdlib"\n{COMMON}')
    datasets.entries().clear()  # what a caller does to the answer is the caller's own
    assert datasets.entry("poem") == datasets.entry("poem")
    assert len(parsed) == 1
    register(course, f'[play]\nkind = "stdlib"\n{COMMON}')
    assert list(datasets.entries()) == ["poem", "play"]
    assert len(parsed) == 2


def test_importing_the_package_loads_neither_tensorflow_nor_pooch():
    heavy = "{'tensorflow', 'keras', 'pooch', 'requests', 'rich', 'tqdm'} & set(sys.modules)"
    code = f"import sys; import lmcourse.datasets; sys.exit({heavy} or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_loaders_work_where_there_is_no_fcntl():
    # None in sys.modules makes an import fail, as on Windows.
    code = (
        "import sys; sys.modules['fcntl'] = None; from lmcourse import datasets; datasets.load_littleplay()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_absent_dataset_names_the_command_and_the_fallback(course):
    register_url(course, "http://127.0.0.1:1")
    assert not datasets.available("poem")
    with pytest.raises(
        datasets.DatasetNotCached, match=r"`lmcourse data fetch poem` \(0.2 MB\).*another poem"
    ):
        datasets.path("poem")
    with pytest.raises(datasets.DatasetNotCached):
        datasets.verify("poem")


def test_what_a_loader_makes_is_available_and_has_no_path():
    assert datasets.available("pythondocs")
    assert datasets.fetch("pythondocs") is None
    with pytest.raises(datasets.DatasetError, match=r"load_pythondocs\(\) makes it"):
        datasets.path("pythondocs")


def test_path_of_a_member_is_its_file_and_without_a_member_the_folder(course, server):
    register(
        course,
        f'[two]\nkind = "url"\nurl = "{server.url}"\nhash_source = "this test"\n{COMMON}'
        f"files = [{file_line('a.txt', TEXT)}, {file_line('b.txt', TEXT)}]",
    )
    folder = datasets.fetch("two")
    assert sorted(file.name for file in folder.iterdir()) == ["a.txt", "b.txt"]
    assert datasets.path("two", "b.txt") == folder / "b.txt"
    with pytest.raises(datasets.DatasetError, match=r"no file 'c.txt'; it has a.txt, b.txt"):
        datasets.path("two", "c.txt")


def test_verify_removes_a_damaged_download_and_fetch_brings_it_back(course, server):
    register_url(course, server.url)
    file = datasets.fetch("poem")
    datasets.verify("poem")
    file.write_bytes(TEXT[::-1])  # the same size, so that only the hash tells
    with pytest.raises(datasets.DatasetError, match=r"damaged.*removed.*lmcourse data fetch poem"):
        datasets.verify("poem")
    assert not datasets.available("poem")
    assert datasets.fetch("poem").read_bytes() == TEXT
    assert len(cached_files(course)) == 1


def test_fetch_restores_a_dataset_of_which_one_file_was_deleted(course, server):
    register(
        course,
        f'[two]\nkind = "url"\nurl = "{server.url}"\nhash_source = "this test"\n{COMMON}'
        f"files = [{file_line('a.txt', TEXT)}, {file_line('b.txt', TEXT)}]",
    )
    folder = datasets.fetch("two")
    (folder / "a.txt").unlink()
    assert not datasets.available("two")
    with pytest.raises(datasets.DatasetError, match=r"two is damaged: run `lmcourse data fetch two`"):
        datasets.path("two", "b.txt")
    assert datasets.fetch("two") == folder
    datasets.verify("two")
    assert len(cached_files(course)) == 2


def test_a_download_of_another_size_is_damaged_until_it_is_verified_or_fetched_again(course, server):
    register_url(course, server.url)
    file = datasets.fetch("poem")
    file.write_bytes(TEXT[:100])
    assert not datasets.available("poem")
    with pytest.raises(datasets.DatasetError, match=r"poem is damaged: run `lmcourse data fetch poem`"):
        datasets.path("poem")
    with pytest.raises(
        datasets.DatasetError, match=r"a.txt has 100 bytes, not 185,000\) and has been removed"
    ) as damaged:
        datasets.verify("poem")
    assert not isinstance(damaged.value, datasets.DatasetNotCached)
    assert_nothing_is_left(course)
    datasets.fetch("poem").write_bytes(TEXT[:100])
    assert datasets.fetch("poem").read_bytes() == TEXT


@pytest.mark.parametrize("content", [b"abd", b"abcd"])
def test_verify_leaves_a_changed_bundled_file_where_it_is(course, content):
    register(course, f'[play]\nkind = "bundled"\n{COMMON}files = [{file_line("play.txt", b"abc")}]')
    play = course / "course" / "data" / "play.txt"
    with pytest.raises(datasets.DatasetNotCached, match=r"play is missing from .*: restore data/"):
        datasets.verify("play")
    play.write_bytes(content)
    with pytest.raises(datasets.DatasetError, match=r"play was damaged \(play.txt has .*: restore data/"):
        datasets.verify("play")
    assert play.read_bytes() == content


def test_fetch_downloads_checks_and_then_uses_the_cache(course, server):
    register_url(course, server.url)
    assert datasets.fetch("poem").read_bytes() == TEXT
    assert datasets.fetch("poem") == datasets.path("poem")
    assert server.requested == ["/a.txt"]


def test_a_file_of_unknown_size_is_fetched_too(course, server):
    register(
        course,
        f'[poem]\nkind = "url"\nurl = "{server.url}"\nhash_source = "this test"\n{COMMON}'
        f'files = [{{ name = "a.txt", sha256 = "{sha256(TEXT)}" }}]',
    )
    assert datasets.entry("poem").download_bytes is None
    assert datasets.fetch("poem").read_bytes() == TEXT


def test_a_new_hash_in_the_registry_makes_the_old_copy_absent(course, server):
    register_url(course, server.url)
    old = datasets.fetch("poem")
    (course / "course" / "data" / "registry.toml").write_text("")
    register_url(course, server.url, content=TEXT[::-1])
    assert not datasets.available("poem")
    assert old.exists()


@pytest.mark.parametrize(
    ("folder", "complaint"),
    [
        ("wrong", "has changed .*SHA-256.*refused and removed"),
        ("cut", "broke off before the end"),
        ("missing", "answers 404 Not Found"),
    ],
)
def test_a_bad_answer_is_one_clear_line_and_leaves_nothing(course, server, folder, complaint):
    register_url(course, f"{server.url}/{folder}")
    with pytest.raises(datasets.DatasetError, match=complaint) as caught:
        datasets.fetch("poem")
    assert "\n" not in str(caught.value)
    assert "another poem" in str(caught.value)
    assert_nothing_is_left(course)


def test_no_server_is_one_clear_line_and_leaves_nothing(course, server):
    server.shutdown()
    server.server_close()
    register_url(course, server.url)
    with pytest.raises(
        datasets.DatasetError, match=r"no answer from 127.0.0.1: is there a network"
    ) as caught:
        datasets.fetch("poem")
    assert "\n" not in str(caught.value)
    assert_nothing_is_left(course)


def test_a_failure_in_the_second_file_leaves_nothing_of_the_first(course, server):
    register(
        course,
        f'[two]\nkind = "url"\nurl = "{server.url}"\nhash_source = "this test"\n{COMMON}'
        f"files = [{file_line('a.txt', TEXT)}, {file_line('missing/b.txt', TEXT)}]",
    )
    with pytest.raises(datasets.DatasetError, match="404"):
        datasets.fetch("two")
    assert server.requested == ["/a.txt", "/missing/b.txt"]
    assert_nothing_is_left(course)


def test_a_disk_that_fills_up_is_one_clear_line_and_leaves_nothing(course, server, monkeypatch):
    register_url(course, server.url)
    monkeypatch.setattr("pooch.downloaders.open", FullDisk, raising=False)
    with pytest.raises(datasets.DatasetError, match=r"is full.*LMCOURSE_CACHE") as caught:
        datasets.fetch("poem")
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert_nothing_is_left(course)


def test_a_disk_without_room_is_refused_before_the_download(course, server, monkeypatch):
    register_url(course, server.url)
    usage = shutil.disk_usage(course)._replace(free=len(TEXT) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(datasets.DatasetError, match=r"is full \(0.2 MB are needed\)"):
        datasets.fetch("poem")
    assert server.requested == []


def test_a_cache_that_cannot_be_written_is_one_clear_line(course, server, monkeypatch):
    register_url(course, server.url)
    (course / "file").write_text("in the way")
    monkeypatch.setenv("LMCOURSE_CACHE", str(course / "file"))
    with pytest.raises(datasets.DatasetError, match=r"cannot write to .*file.*set LMCOURSE_CACHE"):
        datasets.fetch("poem")


def test_an_interrupted_download_leaves_nothing(course, server):
    register_url(course, f"{server.url}/stalled")
    process = fetch_in_another_process(course, "poem")
    assert server.half_is_sent.wait(30)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=30)[1]
    assert "KeyboardInterrupt" in errors
    assert_nothing_is_left(course)


def test_after_a_kill_nothing_counts_as_fetched_and_the_next_fetch_cleans_up(course, server):
    register_url(course, f"{server.url}/stalled")
    process = fetch_in_another_process(course, "poem")
    assert server.half_is_sent.wait(30)
    process.kill()
    process.communicate(timeout=30)
    assert not datasets.available("poem")
    leftovers = cached_files(course)
    assert leftovers
    assert all(".partial" in name for name in leftovers)
    server.go_on.set()
    assert datasets.fetch("poem").read_bytes() == TEXT
    assert len(cached_files(course)) == 1


def test_two_processes_fetching_at_once_download_once_and_both_succeed(course, server):
    register_url(course, f"{server.url}/stalled")
    first = fetch_in_another_process(course, "poem")
    assert server.half_is_sent.wait(30)
    second = fetch_in_another_process(course, "poem")
    assert "waiting for it" in second.stderr.readline()
    server.go_on.set()
    outputs = [process.communicate(timeout=30)[0].strip() for process in (first, second)]
    assert outputs == [str(datasets.path("poem"))] * 2
    assert datasets.path("poem").read_bytes() == TEXT
    assert server.requested == ["/stalled/a.txt"]


def test_fetch_takes_the_named_members_of_a_wheel_and_nothing_else(course):
    code = b"raise SystemExit('the wheel was imported')"
    members = {
        "tiny_corpus/__init__.py": code,
        "tiny_corpus/data/en/a.txt": TEXT,
        "tiny_corpus/data/b.bin": b"\0",
    }
    wheel = build_wheel(course, members)
    register_wheel(course, wheel, {"en/a.txt": TEXT})
    assert datasets.fetch("tiny").read_bytes() == TEXT
    assert [name.partition("/tiny-")[2][13:] for name in cached_files(course)] == ["en/a.txt"]


def test_a_wheel_with_another_hash_is_refused_and_removed(course):
    build_wheel(course, {"tiny_corpus/data/a.txt": TEXT})
    register_wheel(course, b"another wheel", {"a.txt": TEXT})
    with pytest.raises(
        datasets.DatasetError, match=r"tiny_corpus-1.0-py3-none-any.whl is not the wheel.*refused"
    ):
        datasets.fetch("tiny")
    assert_nothing_is_left(course)


def test_a_wheel_that_the_index_does_not_have_is_one_clear_line(course):
    register_wheel(course, b"no such wheel", {"a.txt": TEXT})
    with pytest.raises(
        datasets.DatasetError, match=r"pip cannot download tiny-corpus==1.0: No matching"
    ) as caught:
        datasets.fetch("tiny")
    assert "\n" not in str(caught.value)
    assert_nothing_is_left(course)


def test_an_index_that_cannot_be_reached_is_one_clear_line(course, server, monkeypatch):
    server.shutdown()
    server.server_close()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")  # each further one waits longer
    register_wheel(course, b"no such wheel", {"a.txt": TEXT})
    with pytest.raises(datasets.DatasetError, match="pip cannot reach its package index") as caught:
        datasets.fetch("tiny")
    assert "\n" not in str(caught.value)
    assert_nothing_is_left(course)


@pytest.fixture
def tiny_wheel(course, monkeypatch):
    """A wheel that pip need not be run for: these tests are about what happens after it."""
    wheel = build_wheel(course, {"tiny_corpus/data/a.txt": TEXT})

    def copy(wanted, folder, staging, progress):
        shutil.copy(course / "index" / "tiny_corpus-1.0-py3-none-any.whl", folder)

    monkeypatch.setattr(download, "_run_pip", copy)
    return wheel


def test_a_wheel_without_the_named_member_is_one_clear_line_and_leaves_nothing(course, tiny_wheel):
    register_wheel(course, tiny_wheel, {"a.txt": TEXT, "b.txt": TEXT})
    with pytest.raises(datasets.DatasetError, match=r"none-any.whl has no member tiny_corpus/data/b.txt"):
        datasets.fetch("tiny")
    assert_nothing_is_left(course)


def test_a_member_with_another_hash_is_refused_and_removed(course, tiny_wheel):
    register_wheel(course, tiny_wheel, {"a.txt": TEXT[::-1]})
    with pytest.raises(datasets.DatasetError, match=r"tiny_corpus/data/a.txt in .*wrong SHA-256.*refused"):
        datasets.fetch("tiny")
    assert_nothing_is_left(course)


def test_a_disk_that_fills_up_while_extracting_leaves_nothing(course, tiny_wheel, monkeypatch):
    register_wheel(course, tiny_wheel, {"a.txt": TEXT})
    real = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, mode="r", **options: FullDisk() if mode == "wb" else real(self, mode, **options),
    )
    with pytest.raises(datasets.DatasetError, match="is full"):
        datasets.fetch("tiny")
    monkeypatch.undo()
    assert_nothing_is_left(course)


def test_ctrl_c_during_pip_stops_it_and_leaves_nothing(course, monkeypatch):
    register_wheel(course, build_wheel(course, {"tiny_corpus/data/a.txt": TEXT}), {"a.txt": TEXT})
    children = []

    def interrupt(pip, staging, bar):
        children.append(pip)
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        datasets.fetch("tiny")
    assert children[0].returncode == -signal.SIGKILL
    assert_nothing_is_left(course)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("/usr/bin/python: No module named pip", "this Python has no pip; run"),
        (f"ERROR: Could not install: [Errno 28] {os.strerror(errno.ENOSPC)}", "is full"),
        ("ERROR: first\nWARNING: no matter\nERROR: the reason", "tiny-corpus==1.0: the reason"),
        ("", "no reason given"),
    ],
)
def test_what_pip_says_becomes_one_line(course, said, line):
    register_wheel(course, b"a wheel", {"a.txt": TEXT})
    message = download._explain_pip(datasets.entry("tiny"), said)
    assert line in message
    assert "\n" not in message


def numbered_corpus() -> datasets.Corpus:
    return datasets.Corpus("numbers", [f"Document {i}: " + "word " * (i % 17) for i in range(300)])


def test_text_joins_documents_by_an_empty_line_and_sizes_are_of_that_text():
    corpus = datasets.Corpus("c", ["a", "é"])
    assert corpus.text == "a\n\né"
    assert corpus.utf8_bytes == 5  # é is two bytes
    # printf 'a\n\né' | sha256sum
    assert corpus.sha256 == "20666cb27536839355e481a5522822fc0eadb58a8924160df07ccdff6564d360"
    assert (
        corpus.describe() == f"c: 2 documents, 4 characters, 5 bytes of UTF-8, SHA-256 {corpus.sha256[:12]}"
    )


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_split_holds_out_close_to_the_share_and_never_more(share):
    corpus = numbered_corpus()
    train, held_out = corpus.split(share)
    assert 0.98 * share < held_out.utf8_bytes / corpus.utf8_bytes <= share
    assert sorted(train.documents + held_out.documents) == sorted(corpus.documents)


def test_split_keeps_the_order_of_documents():
    corpus = numbered_corpus()
    for part in corpus.split():
        positions = [corpus.documents.index(document) for document in part.documents]
        assert positions == sorted(positions)


def test_split_depends_on_content_and_seed_and_not_on_order():
    corpus = numbered_corpus()
    backwards = datasets.Corpus("backwards", corpus.documents[::-1])
    assert set(corpus.split()[1].documents) == set(backwards.split()[1].documents)
    assert set(corpus.split(seed=0)[1].documents) != set(corpus.split(seed=1)[1].documents)


def test_split_is_the_same_in_every_process():
    # Python's own hash of strings differs between processes; a split that used it would too.
    code = (
        "from lmcourse.datasets import Corpus; print(Corpus('c', list('abcdefghij')).split(0.3)[1].documents)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{datasets.Corpus('c', list('abcdefghij')).split(0.3)[1].documents}\n"}


def test_equal_documents_are_on_the_same_side():
    corpus = datasets.Corpus("twice", numbered_corpus().documents * 2)
    train, held_out = corpus.split(0.3)
    assert held_out.documents
    assert not set(train.documents) & set(held_out.documents)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_split_refuses_a_share_that_is_none(share):
    with pytest.raises(ValueError, match=f"held_out must be between 0 and 1, both excluded; got {share}"):
        numbered_corpus().split(share)


def test_split_refuses_to_leave_a_side_empty():
    with pytest.raises(ValueError, match="leaves one side of one empty: it has 1 documents"):
        datasets.Corpus("one", ["text"]).split(0.5)


@pytest.mark.skipif(
    sys.version_info[:3] != (3, 11, 7), reason="the topics differ between patch releases of Python"
)
def test_pythondocs_of_python_3_11_7_has_its_known_length_and_hash():
    from pydoc_data.topics import topics

    corpus = datasets.load_pythondocs()
    assert len(corpus.text) == 465_126
    assert corpus.sha256 == hashlib.sha256("\n\n".join(topics.values()).encode()).hexdigest()
    assert corpus.sha256.startswith("71f2ff5d99bd")


def test_pythondocs_with_docstrings_begins_with_the_topics_and_holds_a_known_docstring():
    topics, more = datasets.load_pythondocs(), datasets.load_pythondocs(docstrings=True)
    assert more.documents[: len(topics.documents)] == topics.documents
    assert len(more.documents) > len(topics.documents)
    assert any(
        textwrap.dedent.__doc__.split("\n")[0] in text for text in more.documents[len(topics.documents) :]
    )


def test_pythoncode_is_the_sources_in_the_order_of_their_paths():
    root = Path(sysconfig.get_path("stdlib"))
    corpus = datasets.load_pythoncode()
    sources = [
        (root / name).read_text(encoding="utf-8") for name in ("abc.py", "json/decoder.py", "textwrap.py")
    ]
    positions = [corpus.documents.index(source) for source in sources]
    assert positions == sorted(positions)


def test_pythoncode_takes_no_tests_programs_or_packages_and_only_utf8(tmp_path, monkeypatch):
    files = {
        "a.py": b"a = 1\n",
        "b/__init__.py": b"b = 2\n",
        "b/latin.py": "# é".encode("latin-1"),
        "b/empty.py": b"\n",
        "b/test/test_b.py": b"t = 3\n",
        "idlelib/run.py": b"i = 4\n",
        "site-packages/p.py": b"p = 5\n",
        "_sysconfigdata__linux.py": b"s = 6\n",
        "config-3.11/c.py": b"c = 7\n",
        "readme.txt": b"text",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(stdlib_text.sysconfig, "get_path", lambda name: str(tmp_path))
    assert datasets.load_pythoncode().documents == ["a = 1\n", "b = 2\n"]


def test_docstrings_are_read_without_importing_the_module(tmp_path, monkeypatch):
    source = '"""About the module."""\nraise SystemExit\ndef f():\n    """About f."""\nclass C:\n    x = 1\n'
    (tmp_path / "m.py").write_text(source)
    monkeypatch.setattr(stdlib_text.sysconfig, "get_path", lambda name: str(tmp_path))
    assert datasets.load_pythondocs(docstrings=True).documents[-1] == "About the module.\n\nAbout f."


def test_a_python_without_its_sources_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(stdlib_text.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(datasets.DatasetError, match="no source of its standard library"):
        datasets.load_pythoncode()


def test_the_bundled_play_has_the_layout_of_tiny_shakespeare():
    for speech in datasets.load_littleplay().documents:
        first = speech.splitlines()[0]
        assert first.endswith(":") or first.startswith(("Enter", "Exeunt"))


def test_the_bundled_scripts_hold_both_ways_of_writing_an_accent():
    text = datasets.load_scripts().text
    assert "caf\u00e9" in text
    assert "cafe\u0301" in text
    assert "\u200d" in text  # what joins the parts of an emoji


def test_fableworld_is_the_package_of_its_name_and_nothing_else_is_looked_for_there():
    from lmcourse.datasets import fableworld

    assert datasets.fableworld is fableworld
    assert datasets.load_fableworld is fableworld.load
    with pytest.raises(AttributeError, match="no attribute 'load_fabelworld'"):
        datasets.load_fabelworld  # noqa: B018


def test_tinyshakespeare_is_split_into_speeches(course, server):
    speeches = b"First Citizen:\nBefore we proceed.\n\nAll:\nSpeak, speak.\n"
    register_url(course, server.url, name="tinyshakespeare", content=speeches, file="input.txt")
    folder = cache.folder(datasets.entry("tinyshakespeare"))
    folder.mkdir(parents=True)
    (folder / "input.txt").write_bytes(speeches)
    corpus = datasets.load_tinyshakespeare()
    assert corpus.documents == ["First Citizen:\nBefore we proceed.", "All:\nSpeak, speak."]


def test_loading_what_is_absent_never_downloads(course, server):
    register_url(course, server.url, name="tinyshakespeare")
    with pytest.raises(datasets.DatasetNotCached, match="lmcourse data fetch tinyshakespeare"):
        datasets.load_tinyshakespeare()
    assert server.requested == []


@pytest.mark.parametrize("name", [name for name, entry in datasets.entries().items() if entry.is_downloaded])
def test_a_fetched_dataset_is_what_the_registry_says(name):
    if not datasets.available(name):
        pytest.skip(f"{name} is not in the cache: lmcourse data fetch {name}")
    found = datasets.entry(name)
    for file in found.files:
        assert cache.sha256(cache.folder(found) / file.name) == file.sha256


def test_human_eval_has_164_problems():
    if not datasets.available("human-eval"):
        pytest.skip("human-eval is not in the cache: lmcourse data fetch human-eval")
    with gzip.open(datasets.path("human-eval")) as lines:
        assert sum(1 for _ in lines) == 164  # Chen et al. 2021, section 2.2


def test_a_deduplicated_corpus_holds_no_long_line_twice():
    corpus = datasets.Corpus(
        "two", ["The same long line of text.\nShort.", "The same long line of text.\nShort."]
    )
    assert corpus.deduplicated().documents == ["The same long line of text.\nShort.", "Short."]
    lines = [line.strip() for line in datasets.load_pythondocs().deduplicated().text.split("\n")]
    long_lines = [line for line in lines if len(line) >= 20]
    assert len(set(long_lines)) == len(long_lines) > 1_000
