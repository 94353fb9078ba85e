"""Chapter 1's longer runs: n-gram models on Fableworld against the floor, and on the Python documentation."""

import hashlib

from lmcourse.core import excess_bits_by_label, excess_bits_per_token, score, token_surprisals_nats
from lmcourse.datasets import fableworld, load_pythondocs
from lmcourse.ngram.model import NgramModel
from lmcourse.results import Experiment, Measurement
from lmcourse.text import BPETokenizer, CharTokenizer

# Held-out stories for learning the weights of a mixture, and test stories: the same for every model.
VALIDATION_TOKENS = 50_000
TEST_TOKENS = 100_000


def measure_fableworld(seed: int, *, order: int, smoothing: str, tokens: int) -> Measurement:
    """Train an n-gram model on stories and measure its excess over the floor.

    Args:
        seed: of the training stories; the test stories are always the same.
        order: n.
        smoothing: a name from `SMOOTHINGS`.
        tokens: the least number of tokens to train on.
    """
    tokenizer, oracle = fableworld.FableTokenizer(), fableworld.FableOracle()
    train = fableworld.load("train", tokens=tokens, seed=seed)
    validation = fableworld.load("validation", tokens=VALIDATION_TOKENS)
    test = fableworld.load("test", tokens=TEST_TOKENS)
    train_ids, validation_ids, test_ids = (
        [tokenizer.ids_of(story.tokens) for story in stories] for stories in (train, validation, test)
    )
    model = NgramModel(order, tokenizer.vocab_size, smoothing).fit(train_ids, validation_ids)
    floor, reached = score(oracle, test_ids), score(model, test_ids)
    by_label = excess_bits_by_label(
        token_surprisals_nats(model, test_ids),
        token_surprisals_nats(oracle, test_ids),
        [story.labels for story in test],
    )
    told = "\n".join(story.text for story in (*train, *test))
    return Measurement(
        {
            "excess_bits_per_token": excess_bits_per_token(reached, floor),
            "bits_per_token": reached.bits_per_token,
            "floor_bits_per_token": floor.bits_per_token,
            "ngrams": sum(model.ngrams_by_order),
            "test_stories_seen_in_training": fableworld.overlap(test, train),
            **{f"excess_{label.replace('-', '_')}_bits_per_token": bits for label, bits in by_label.items()},
        },
        hashlib.sha256(told.encode()).hexdigest(),
    )


def measure_pythondocs(seed: int, *, order: int, smoothing: str, merges: int) -> Measurement:
    """Train an n-gram model on the Python documentation without repeated lines; measure bits per byte.

    Args:
        seed: of the split into training and held-out documents.
        order: n.
        smoothing: a name from `SMOOTHINGS`.
        merges: of the byte-level BPE tokenizer; 0 for characters.
    """
    corpus = load_pythondocs().deduplicated()
    train, held_out = corpus.split(seed=seed)
    tokenizer = (
        BPETokenizer.train(train.documents, merges=merges) if merges else CharTokenizer.train([corpus.text])
    )
    model = NgramModel(order, tokenizer.vocab_size, smoothing).fit(tokenizer.encode_batch(train.documents))
    reached = score(model, tokenizer.encode_batch(held_out.documents), held_out.utf8_bytes)
    metrics = {
        "bits_per_byte": reached.bits_per_byte,
        "perplexity_per_token": reached.perplexity,
        "tokens": reached.tokens,
        "ngrams": sum(model.ngrams_by_order),
    }
    return Measurement(metrics, corpus.sha256)


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
