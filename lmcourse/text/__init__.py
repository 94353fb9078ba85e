"""Text and tokens: cleaning, and tokenizers of characters, words, byte pairs and word pieces.

`WordPieceTokenizer` runs on tensorflow_text, so its module is imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lmcourse.text.base import Tokenizer, visible
from lmcourse.text.bpe import BPETokenizer, byte_characters, split_chunks
from lmcourse.text.char import CharTokenizer
from lmcourse.text.cleaning import (
    BOILERPLATE,
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
from lmcourse.text.word import WordTokenizer, join_words, split_words

if TYPE_CHECKING:
    from lmcourse.text.wordpiece import WordPieceTokenizer

__all__ = [
    "BOILERPLATE",
    "BPETokenizer",
    "CharTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "WordTokenizer",
    "byte_characters",
    "clean",
    "collapse_blank_space",
    "join_words",
    "normalize_line_breaks",
    "normalize_unicode",
    "remove_boilerplate",
    "remove_control_characters",
    "remove_duplicate_lines",
    "remove_lines",
    "repeated_lines",
    "split_chunks",
    "split_words",
    "visible",
]


def __getattr__(name: str) -> Any:
    if name == "WordPieceTokenizer":
        return importlib.import_module("lmcourse.text.wordpiece").WordPieceTokenizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
