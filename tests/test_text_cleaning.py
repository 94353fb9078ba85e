import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcourse.text import (
    clean,
    collapse_blank_space,
    normalize_line_breaks,
    normalize_unicode,
    remove_boilerplate,
    remove_control_characters,
    remove_duplicate_lines,
    remove_lines,
    repeated_lines,
)

LINES = st.lists(
    st.one_of(st.text(max_size=12), st.sampled_from(["Page 3", "The same line, twice over.", "  "]))
)


@given(LINES.map("\r\n".join))
def test_cleaning_twice_changes_nothing_more(text):
    once = clean(text)
    assert clean(once) == once


@given(st.text())
def test_a_cleaned_text_is_in_normal_form_and_can_be_written_as_utf8(text):
    cleaned = clean(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert not any(
        unicodedata.category(character) == "Cc" for character in cleaned if character not in "\n\t"
    )


def test_without_any_step_only_line_breaks_change():
    text = "e\u0301\x00 \r\nPage 3\r\n\r\n\r\n\r\nThe same line, twice over.\rThe same line, twice over."
    bare = clean(
        text,
        form=None,
        control_characters=False,
        boilerplate=(),
        duplicate_lines=False,
        blank_space=False,
    )
    assert bare == text.replace("\r\n", "\n").replace("\r", "\n")


# Unicode Standard Annex 15, figures 3 to 6: a letter and its accent, a compatibility ligature, a superscript.
@pytest.mark.parametrize(
    ("form", "expected"),
    [("NFC", "\u00f4ﬁ²"), ("NFD", "o\u0302ﬁ²"), ("NFKC", "\u00f4fi2"), ("NFKD", "o\u0302fi2")],
)
def test_unicode_forms_are_those_of_the_annex(form, expected):
    assert normalize_unicode("o\u0302ﬁ²", form) == expected


def test_an_unknown_unicode_form_is_an_error():
    with pytest.raises(ValueError, match=r"form must be one of .*'NFC'.*; got 'nfc'"):
        normalize_unicode("a", "nfc")


def test_every_kind_of_line_break_becomes_a_newline():
    assert normalize_line_breaks("a\r\nb\rc\x85d\u2028e\u2029f\n") == "a\nb\nc\nd\ne\nf\n"


def test_invisible_characters_go_and_the_joiners_that_scripts_need_stay():
    family = "\U0001f468\u200d\U0001f469"  # two emoji joined into one
    persian = "می\u200cخواهم"
    assert (
        remove_control_characters(f"\ufeff\x07{family}\u202e \u200b{persian}\ud83d") == f"{family} {persian}"
    )


def test_kept_control_characters_stay():
    assert remove_control_characters("a\tb\nc\x0c") == "a\tb\nc"
    assert remove_control_characters("a\tb\n\x0c", keep="\x0c") == "ab\x0c"


@pytest.mark.parametrize(
    "line",
    [
        "Page 12",
        "page 3 of 10",
        "Copyright 2001-2024 The Foundation.",
        "© 2020 A. Author",
        "(c) 1999 Someone",
        "  The Press. All rights reserved.  ",
        "Skip to content",
        "This website uses cookies to improve your experience.",
        "Please enable JavaScript to continue.",
        "Privacy Policy",
        "Lorem ipsum dolor sit amet",
    ],
)
def test_boilerplate_lines_go(line):
    assert remove_boilerplate(f"A fox ran.\n{line}\nIt hid.") == "A fox ran.\nIt hid."


@pytest.mark.parametrize(
    "line",
    [
        "42",
        "Turn to page 12 of the book.",
        "The copyright of a work lapses after seventy years.",
        "Websites set cookies; this chapter explains how.",
        "JavaScript must be enabled before the test runs.",
        "(c) the third case",
    ],
)
def test_prose_that_resembles_boilerplate_stays(line):
    assert remove_boilerplate(line) == line


def test_own_patterns_replace_the_defaults():
    assert remove_boilerplate("Page 3\n--- 3 ---", [r"-+ \d+ -+"]) == "Page 3"


def test_lines_shared_by_documents_are_found_once_a_document():
    documents = ["Menu\nMenu\nA fox.", " Menu \nA hare.", "Menu\nA fox.", "No header."]
    assert repeated_lines(documents, min_share=0.75) == {"Menu"}
    assert repeated_lines(documents, min_share=0.5) == {"Menu", "A fox."}
    assert remove_lines(documents[1], {"Menu"}) == "A hare."


def test_a_lone_document_shares_no_line():
    assert repeated_lines(["Menu\nMenu"], min_share=1) == set()


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_a_share_outside_its_range_is_an_error(share):
    with pytest.raises(ValueError, match="min_share must be above 0 and at most 1"):
        repeated_lines(["a"], min_share=share)


def test_only_long_lines_count_as_duplicates_and_the_first_stays():
    text = "}\nThe fox saw the hare run.\n}\n  The fox saw the hare run.\nEnd."
    assert remove_duplicate_lines(text) == "}\nThe fox saw the hare run.\n}\nEnd."


def test_a_shared_set_removes_duplicates_across_documents():
    seen: set[str] = set()
    assert remove_duplicate_lines("one line", min_length=1, seen=seen) == "one line"
    assert remove_duplicate_lines("one line\nanother", min_length=1, seen=seen) == "another"


def test_indentation_stays_and_trailing_space_goes():
    assert collapse_blank_space("\n\nif x:\n    y  \n \t\n\n\nz\n") == "if x:\n    y\n\nz"
