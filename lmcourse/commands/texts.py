"""The texts that the commands train and measure models on, by the name of a dataset or the path of a file.

Training never sees what `lmcourse evaluate` measures on: of Fableworld the stories of another seed, of a corpus whole
documents that are the same for every run, of a file its last tenth.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmcourse import datasets
from lmcourse.cli import UsageError
from lmcourse.commands.arguments import check_choice
from lmcourse.commands.models import END, documents_ids
from lmcourse.text import BPETokenizer, CharTokenizer, Tokenizer

if TYPE_CHECKING:
    from lmcourse.datasets.fableworld import Story

FABLEWORLD = "fableworld"

# Documentation and code repeat whole paragraphs: without the repetitions, what is held out is new.
CORPORA: dict[str, Callable[[], datasets.Corpus]] = {
    "pythondocs": lambda: datasets.load_pythondocs().deduplicated(),
    "pythoncode": lambda: datasets.load_pythoncode().deduplicated(),
    "tinyshakespeare": datasets.load_tinyshakespeare,
    "littleplay": datasets.load_littleplay,
}

# What `--tokens` stands for in Fableworld, which has no end: the rows of `lmcourse results` have as much.
TRAINING_TOKENS = 1_000_000
TEST_TOKENS = 100_000

# To measure the model while it trains: enough for two digits, little beside the training between two such measurements.
VALIDATION_TOKENS = 20_000
VALIDATION_SHARE = 0.05  # of a corpus's training documents

TOKENIZERS = ("bpe", "characters")


@dataclasses.dataclass(frozen=True)
class TrainingTexts:
    """What a run learns from.

    Attributes:
        train: documents as ids, each closed by the end token.
        validation: others, to measure the model by while it trains.
        tokenizer: of both.
        is_stream: whether the documents are joined for training; else each is a row of its own.
        sha256: of each part of the text, by its name.
    """

    train: list[list[int]]
    validation: list[list[int]]
    tokenizer: Tokenizer
    is_stream: bool
    sha256: dict[str, str]


@dataclasses.dataclass(frozen=True)
class HeldOutTexts:
    """What a trained model is measured on.

    Attributes:
        documents: texts.
        sha256: of all of the held-out text, of which these may be the first documents; of Fableworld, of these.
        stories: of Fableworld, the same documents with all that is known of them; else empty.
    """

    documents: list[str]
    sha256: str
    stories: "Sequence[Story]" = ()

    @property
    def utf8_bytes(self) -> int:
        """The length of all documents in UTF-8, an empty line between two, as `Corpus` counts it."""
        return datasets.Corpus("held out", self.documents).utf8_bytes


def training_texts(
    dataset: str,
    *,
    tokens: int | None = None,
    seed: int = 0,
    kind: str = "bpe",
    merges: int = 1000,
    tokenizer: Tokenizer | None = None,
) -> TrainingTexts:
    """Return what to train on.

    Args:
        dataset: a dataset's name, or the path of a text file.
        tokens: how many to train on, about; None is all, and in Fableworld a million.
        seed: which stories to tell, or which documents to take where `tokens` does not ask for all.
        kind: of tokenizer for texts that have none of their own: "bpe" or "characters".
        merges: of byte-pair encoding.
        tokenizer: one that was trained before, instead of a new one.

    Raises:
        UsageError: if there is no such dataset or file, or its text cannot be used.
        DatasetError: if the dataset was not fetched.
    """
    if dataset == FABLEWORLD:
        return _training_stories(tokens or TRAINING_TOKENS, seed)
    from lmcourse.recurrent.experiments import hold_out

    train, held_out = split_corpus(dataset)
    tokenizer = tokenizer or _train_tokenizer(kind, merges, train, held_out)
    documents, validation = hold_out(documents_ids(tokenizer, train.documents), VALIDATION_SHARE)
    return TrainingTexts(
        _some(documents, tokens, seed),
        _some(validation, VALIDATION_TOKENS, 0),
        tokenizer,
        True,
        {"train": train.sha256, "held_out": held_out.sha256},
    )


def held_out_texts(dataset: str, documents: int | None = None) -> HeldOutTexts:
    """Return what to measure on.

    Args:
        dataset: a dataset's name, or the path of a text file.
        documents: take the first so many; None is all, and in Fableworld stories of a hundred thousand tokens.

    Raises:
        UsageError: if there is no such dataset or file, or its text cannot be used.
        DatasetError: if the dataset was not fetched.
    """
    if dataset == FABLEWORLD:
        from lmcourse.datasets import fableworld

        size = {"tokens": TEST_TOKENS} if documents is None else {"stories": documents}
        stories = fableworld.load("test", **size)
        texts = [story.text for story in stories]
        return HeldOutTexts(texts, _sha256("\n".join(texts)), stories)
    _, held_out = split_corpus(dataset)
    return HeldOutTexts(held_out.documents[:documents], held_out.sha256)


def check_dataset(dataset: str) -> None:
    """Raise UsageError unless there is such a dataset or file."""
    if dataset not in (FABLEWORLD, *CORPORA) and not os.path.isfile(
        dataset
    ):  # pathlib's raises for a name that is too long
        names = ", ".join((FABLEWORLD, *CORPORA))
        raise UsageError(f"--dataset must be one of {names}, or the path of a text file; got {dataset!r}.")


def split_corpus(dataset: str) -> tuple[datasets.Corpus, datasets.Corpus]:
    """Return the training part and the held-out part of a corpus or a file, the same ones each time.

    Raises:
        UsageError: if there is no such dataset or file, or the file is no text that could be split.
    """
    check_dataset(dataset)
    if dataset in CORPORA:
        return CORPORA[dataset]().split()
    try:
        text = Path(dataset).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"--dataset {dataset} must be UTF-8 text; byte {error.start} is not.") from None
    except OSError as error:
        raise UsageError(f"--dataset {dataset} cannot be read: {error.strerror or error}.") from None
    cut = len(text) * 9 // 10
    cut = text.rfind("\n", 0, cut) + 1 or cut
    if not text[:cut].strip() or not text[cut:].strip():
        raise UsageError(
            f"--dataset {dataset} must be long enough to hold out a tenth of it; it has {len(text)} characters."
        )
    return datasets.Corpus(dataset, [text[:cut]]), datasets.Corpus(f"{dataset} (held out)", [text[cut:]])


def _training_stories(tokens: int, seed: int) -> TrainingTexts:
    from lmcourse.datasets import fableworld

    stories = {
        "train": fableworld.load("train", tokens=tokens, seed=seed),
        "validation": fableworld.load("validation", tokens=VALIDATION_TOKENS),
    }
    tokenizer = fableworld.FableTokenizer()
    ids = {name: [tokenizer.ids_of(story.tokens) for story in part] for name, part in stories.items()}
    hashes = {name: _sha256("\n".join(story.text for story in part)) for name, part in stories.items()}
    return TrainingTexts(ids["train"], ids["validation"], tokenizer, False, hashes)


def _train_tokenizer(kind: str, merges: int, train: datasets.Corpus, held_out: datasets.Corpus) -> Tokenizer:
    check_choice(TOKENIZERS, tokenizer=kind)
    if kind == "bpe":
        return BPETokenizer.train(train.documents, merges=merges, special_tokens=[END])
    # The alphabet is that of the whole text: nothing else of what is held out is looked at.
    return CharTokenizer.train([train.text, held_out.text], special_tokens=[END])


def _some(documents: list[list[int]], tokens: int | None, seed: int) -> list[list[int]]:
    """Return documents in a drawn order up to so many tokens, the last one cut; None returns all as they are."""
    if tokens is None or sum(map(len, documents)) <= tokens:
        return documents
    taken = []
    for index in np.random.default_rng(seed).permutation(len(documents)):
        taken.append(documents[index][:tokens])
        tokens -= len(taken[-1])
        if not tokens:
            break
    return taken


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
