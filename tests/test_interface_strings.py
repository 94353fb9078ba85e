"""JupyterLab's interface strings, and the catalogues they come in."""

import collections
import gettext
import struct

import pytest

from lmcourse import datasets
from lmcourse.datasets import cache, interface_strings
from lmcourse.datasets.interface_strings import TextPairs, load_interface_strings, read_mo

HEADER = ("", "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=(n > 1);\n")
MESSAGES = [
    HEADER,
    ("%1 Item\0%1 Items", "%1 élément\0%1 éléments"),
    ("Error\x04Launcher Error", "Erreur du lanceur"),
    ("Open", "Ouvrir"),
    ("\nPath: %1\n", "\nChemin : %1\n"),
    ("menu\x04Open", "Ouvrir"),
    ("menu\x04Open tab\0Open tabs", "Ouvrir l'onglet\0Ouvrir les onglets"),
]


def catalogue(messages, order="<"):
    """Return messages as a .mo file, after the GNU gettext manual's table."""
    strings = [[text.encode() for text in side] for side in zip(*messages, strict=True)]
    tables, texts = b"", b""
    begin = 28 + 16 * len(messages)
    for side in strings:
        for text in side:
            tables += struct.pack(f"{order}2I", len(text), begin + len(texts))
            texts += text + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, 0, len(messages), 28, 28 + 8 * len(messages), 0, 0)
    return head + tables + texts


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.mo"
    path.write_bytes(catalogue(MESSAGES))
    return path


@pytest.fixture
def small_pack(tmp_path, monkeypatch):
    """A language pack of two catalogues that share a message."""
    (tmp_path / "a.mo").write_bytes(catalogue(MESSAGES))
    (tmp_path / "b.mo").write_bytes(catalogue([HEADER, ("Close", "Fermer"), ("Open", "Ouvrir")]))
    monkeypatch.setattr(interface_strings.cache, "path", lambda name: tmp_path)


def test_contexts_are_dropped_plurals_give_two_pairs_and_the_header_none(file):
    assert read_mo(file) == [
        ("%1 Item", "%1 élément"),
        ("%1 Items", "%1 éléments"),
        ("Launcher Error", "Erreur du lanceur"),
        ("Open", "Ouvrir"),
        ("Path: %1", "Chemin : %1"),
        ("Open", "Ouvrir"),
        ("Open tab", "Ouvrir l'onglet"),
        ("Open tabs", "Ouvrir les onglets"),
    ]


def test_gettext_of_the_standard_library_finds_the_same_translations(file):
    with file.open("rb") as stream:
        library = gettext.GNUTranslations(stream)
    pairs = dict(read_mo(file))
    assert pairs["Open"] == library.gettext("Open") == library.pgettext("menu", "Open")
    assert pairs["%1 Item"] == library.ngettext("%1 Item", "%1 Items", 1)
    assert pairs["%1 Items"] == library.ngettext("%1 Item", "%1 Items", 2)
    assert pairs["Open tabs"] == library.npgettext("menu", "Open tab", "Open tabs", 5)


def test_the_order_of_bytes_does_not_matter(file, tmp_path):
    other = tmp_path / "big-endian.mo"
    other.write_bytes(catalogue(MESSAGES, order=">"))
    assert read_mo(other) == read_mo(file)


def test_one_form_serves_singular_and_plural_where_the_language_has_one(tmp_path):
    path = tmp_path / "zh.mo"
    path.write_bytes(catalogue([("%1 Item\0%1 Items", "%1 项")]))
    assert read_mo(path) == [("%1 Item", "%1 项"), ("%1 Items", "%1 项")]


def test_a_message_without_translation_is_left_out(tmp_path):
    path = tmp_path / "part.mo"
    path.write_bytes(catalogue([("Open", ""), ("Close", "Fermer")]))
    assert read_mo(path) == [("Close", "Fermer")]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:10], "buffer"),
        (lambda data: data[:-30], "a text ends at byte"),
        (lambda data: b"PK\3\4" + data[4:], "begins with 504b0304"),
        (lambda data: data.replace("é".encode(), b"\xff\xfe"), "utf-8"),
        (lambda data: b"", "buffer"),
    ],
)
def test_a_damaged_catalogue_is_refused_by_name(file, damage, said):
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(datasets.DatasetError, match=rf"small\.mo is not a whole gettext catalogue.*{said}"):
        read_mo(file)


def test_a_pair_that_stands_in_several_catalogues_is_given_once(small_pack):
    pairs = load_interface_strings("fr")
    assert pairs.name == "interface strings en-fr"
    assert len(pairs) == len(set(pairs)) == 8
    assert pairs[-1] == ("Close", "Fermer")
    assert isinstance(pairs, collections.abc.Sequence)


def test_a_language_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="language must be one of fr, zh; got 'de'"):
        load_interface_strings("de")


def test_an_absent_pack_names_the_command_that_fetches_it(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "downloads", lambda: tmp_path)
    with pytest.raises(datasets.DatasetNotCached, match="run `lmcourse data fetch language-pack-zh`"):
        load_interface_strings("zh")


def test_a_split_has_every_pair_once_and_no_words_on_both_sides():
    sources = [f"{word}{end}" for word in ("open", "close", "save", "run", "stop") for end in ("", "…", "!")]
    pairs = TextPairs("made", [(source, f"<{source}>") for source in sources])
    train, held_out = pairs.split(held_out=0.4, seed=1)
    assert sorted([*train, *held_out]) == sorted(pairs)
    assert len(held_out) == 6  # two words of three spellings
    assert not {source.strip("…!") for source, _ in train} & {source.strip("…!") for source, _ in held_out}


def test_another_seed_makes_another_split_and_the_same_seed_the_same():
    pairs = TextPairs("made", [(f"word {number}", str(number)) for number in range(100)])
    assert pairs.split(seed=0)[1].pairs == pairs.split(seed=0)[1].pairs
    assert pairs.split(seed=0)[1].pairs != pairs.split(seed=1)[1].pairs


@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5])
def test_a_share_outside_0_and_1_is_refused(share):
    with pytest.raises(ValueError, match=f"held_out must be between 0 and 1.*got {share}"):
        TextPairs("made", [("a", "b"), ("c", "d")]).split(held_out=share)


def test_a_split_that_leaves_a_side_empty_is_refused():
    with pytest.raises(ValueError, match="leaves one side of made empty: it has 2 pairs"):
        TextPairs("made", [("a", "b"), ("A!", "c")]).split(held_out=0.5)


@pytest.mark.parametrize("language", interface_strings.LANGUAGES)
def test_the_real_strings_are_what_gettext_reads_in_the_same_files(language):
    name = f"language-pack-{language}"
    if not datasets.available(name):
        pytest.skip(f"{name} is not in the cache: run `lmcourse data fetch {name}`")
    pairs = load_interface_strings(language)
    assert 3_200 < len(pairs) == len(set(pairs)) < 3_500
    translations = collections.defaultdict(set)
    for source, target in pairs:
        assert source == source.strip()
        assert target == target.strip() != ""
        translations[source].add(target)
    with (datasets.path(name) / "jupyterlab.mo").open("rb") as stream:
        library = gettext.GNUTranslations(stream)
    checked = [source for source in translations if library.gettext(source) != source]
    assert len(checked) > 1_000
    assert all(library.gettext(source).strip() in translations[source] for source in checked)
    train, held_out = pairs.split()
    assert len(train) + len(held_out) == len(pairs)
    assert len(held_out) == len(pairs) // 10
