"""Chapter 1's longer runs: n-gram models on Fableworld against the floor, and on the Python documentation."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from lmcourse.core import (
    LanguageModel,
    excess_bits_by_label,
    excess_bits_per_token,
    score,
    token_surprisals_nats,
)
from lmcourse.datasets import fableworld, load_pythondocs
from lmcourse.ngram.model import NgramModel
from lmcourse.results import Experiment, Measurement
from lmcourse.text import BPETokenizer, CharTokenizer

# Held-out stories for learning the weights of a mixture, and test stories: the same for every model.
VALIDATION_TOKENS = 50_000
TEST_TOKENS = 100_000


@dataclasses.dataclass(frozen=True)
class FableworldTexts:
    """What every model of the course is trained on and compared on in Fableworld.

    Attributes:
        train: the training stories.
        validation: held-out stories, for learning the weights of a mixture or stopping early.
        test: stories that are the same for every model and seed.
        tokenizer: of the canonical tokens.
    """

    train: list[fableworld.Story]
    validation: list[fableworld.Story]
    test: list[fableworld.Story]
    tokenizer: fableworld.FableTokenizer

    @classmethod
    def load(cls, seed: int, tokens: int) -> "FableworldTexts":
        """Return at least so many tokens to train on, chosen by the seed, and the common held-out stories."""
        return cls(
            fableworld.load("train", tokens=tokens, seed=seed),
            fableworld.load("validation", tokens=VALIDATION_TOKENS),
            fableworld.load("test", tokens=TEST_TOKENS),
            fableworld.FableTokenizer(),
        )

    def ids(self, stories: Sequence[fableworld.Story]) -> list[list[int]]:
        """Return stories as ids."""
        return [self.tokenizer.ids_of(story.tokens) for story in stories]

    def measure(self, model: LanguageModel, **more: float) -> Measurement:
        """Measure a model's excess over the floor on the test stories, in all and by phenomenon.

        Args:
            model: trained.
            **more: further metrics, of the model itself.
        """
        oracle, test_ids = fableworld.FableOracle(), self.ids(self.test)
        floor, reached = score(oracle, test_ids), score(model, test_ids)
        by_label = excess_bits_by_label(
            token_surprisals_nats(model, test_ids),
            token_surprisals_nats(oracle, test_ids),
            [story.labels for story in self.test],
        )
        told = "\n".join(story.text for story in (*self.train, *self.test))
        return Measurement(
            {
                "excess_bits_per_token": excess_bits_per_token(reached, floor),
                "bits_per_token": reached.bits_per_token,
                "floor_bits_per_token": floor.bits_per_token,
                **more,
                "test_stories_seen_in_training": fableworld.overlap(self.test, self.train),
                **{
                    f"excess_{label.replace('-', '_')}_bits_per_token": bits
                    for label, bits in by_label.items()
                },
            },
            hashlib.sha256(told.encode()).hexdigest(),
        )


@dataclasses.dataclass(frozen=True)
class PythondocsTexts:
    """The Python documentation without repeated lines, split and tokenized alike for every model of a seed.

    Attributes:
        train: the training documents' ids.
        test: the held-out documents' ids.
        test_bytes: how long the held-out text is in UTF-8.
        vocab_size: V.
        sha256: of the whole text.
    """

    train: list[list[int]]
    test: list[list[int]]
    test_bytes: int
    vocab_size: int
    sha256: str

    @classmethod
    def load(cls, seed: int, *, merges: int = 0, characters: int | None = None) -> "PythondocsTexts":
        """Return the texts.

        Args:
            seed: of the split into training and held-out documents.
            merges: of the byte-level BPE tokenizer; 0 for characters.
            characters: train on the first so many of the training documents in an order that the seed draws; None
                is all.
        """
        corpus = load_pythondocs().deduplicated()
        train, held_out = corpus.split(seed=seed)
        documents = train.documents if characters is None else _first(train.documents, characters, seed)
        tokenizer = (
            BPETokenizer.train(documents, merges=merges) if merges else CharTokenizer.train([corpus.text])
        )
        return cls(
            tokenizer.encode_batch(documents),
            tokenizer.encode_batch(held_out.documents),
            held_out.utf8_bytes,
            tokenizer.vocab_size,
            corpus.sha256,
        )

    def measure(self, model: LanguageModel, **more: float) -> Measurement:
        """Measure a model's bits per byte on the held-out documents; `more` are metrics of the model itself."""
        reached = score(model, self.test, self.test_bytes)
        metrics = {
            "bits_per_byte": reached.bits_per_byte,
            "perplexity_per_token": reached.perplexity,
            "tokens": reached.tokens,
            **more,
        }
        return Measurement(metrics, self.sha256)


def measure_fableworld(seed: int, *, order: int, smoothing: str, tokens: int) -> Measurement:
    """Train an n-gram model on stories and measure its excess over the floor.

    Args:
        seed: of the training stories; the test stories are always the same.
        order: n.
        smoothing: a name from `SMOOTHINGS`.
        tokens: the least number of tokens to train on.
    """
    texts = FableworldTexts.load(seed, tokens)
    model = NgramModel(order, texts.tokenizer.vocab_size, smoothing)
    model.fit(texts.ids(texts.train), texts.ids(texts.validation))
    return texts.measure(model, ngrams=sum(model.ngrams_by_order))


def measure_pythondocs(
    seed: int, *, order: int, smoothing: str, merges: int, characters: int | None = None
) -> Measurement:
    """Train an n-gram model on the Python documentation without repeated lines; measure bits per byte.

    Args:
        seed: of the split into training and held-out documents.
        order: n.
        smoothing: a name from `SMOOTHINGS`.
        merges: of the byte-level BPE tokenizer; 0 for characters.
        characters: how many to train on; None is all.
    """
    texts = PythondocsTexts.load(seed, merges=merges, characters=characters)
    model = NgramModel(order, texts.vocab_size, smoothing).fit(texts.train)
    return texts.measure(model, ngrams=sum(model.ngrams_by_order))


def _first(documents: Sequence[str], characters: int, seed: int) -> list[str]:
    """Return documents in a drawn order up to so many characters; the last one is cut."""
    taken = []
    for index in np.random.default_rng(seed).permutation(len(documents)):
        taken.append(documents[index][:characters])
        characters -= len(taken[-1])
        if not characters:
            break
    return taken


def _fableworld(model: str, order: int, smoothing: str) -> Experiment:
    settings = {"order": order, "smoothing": smoothing, "tokens": 1_000_000}
    return Experiment(measure_fableworld, model, "fableworld", seeds=(0, 1, 2), settings=settings)


def _pythondocs(model: str, order: int, smoothing: str, merges: int) -> Experiment:
    settings = {"order": order, "smoothing": smoothing, "merges": merges}
    return Experiment(measure_pythondocs, model, "pythondocs", seeds=(0, 1, 2), settings=settings)


EXPERIMENTS = {
    "fableworld-unigram": _fableworld("1-gram (control)", 1, "kneser-ney"),
    "fableworld-add-k-3": _fableworld("3-gram, add-1", 3, "add-k"),
    "fableworld-kneser-ney-3": _fableworld("3-gram, Kneser–Ney", 3, "kneser-ney"),
    "fableworld-witten-bell-6": _fableworld("6-gram, Witten–Bell", 6, "witten-bell"),
    "fableworld-kneser-ney-6": _fableworld("6-gram, Kneser–Ney", 6, "kneser-ney"),
    "fableworld-modified-kneser-ney-6": _fableworld("6-gram, modified Kneser–Ney", 6, "modified-kneser-ney"),
    "fableworld-jelinek-mercer-8": _fableworld("8-gram, Jelinek–Mercer", 8, "jelinek-mercer"),
    "pythondocs-unigram": _pythondocs("1-gram, characters (control)", 1, "kneser-ney", 0),
    "pythondocs-characters-4": _pythondocs("4-gram, Kneser–Ney, characters", 4, "kneser-ney", 0),
    "pythondocs-characters-8": _pythondocs("8-gram, Kneser–Ney, characters", 8, "kneser-ney", 0),
    "pythondocs-bpe-4": _pythondocs("4-gram, Kneser–Ney, 1,000 merges", 4, "kneser-ney", 1000),
}
