"""Our Kneser–Ney against NLTK's, on the words of Python's documentation: speed, and perplexity.

Both use order 3, one discount of 0.75, and the same tokens, with rare words mapped to one unknown token. The scores
differ a little by definition: NLTK pads each document with two start symbols and its lowest order is the bare
continuation probability, where ours is mixed with the uniform distribution, as in Chen and Goodman.
"""

import math
import time

import numpy as np

from lmcourse.core import score
from lmcourse.datasets import load_pythondocs
from lmcourse.ngram import KneserNey, NgramCounts, NgramModel
from lmcourse.text import WordTokenizer

ORDER, DISCOUNT, MIN_COUNT = 3, 0.75, 2

# NLTK takes about a millisecond a token: enough of them for a steady figure, few enough for a minute.
SCORED_TOKENS = 3_000

# What the course's tests ask of the package: order 5, a million tokens.
LARGE_ORDER, LARGE_TOKENS = 5, 1_000_000


def timed(work) -> tuple[float, object]:
    """Return the processor's seconds for a piece of work, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def ours(train: list[list[int]], test: list[list[int]], vocab_size: int) -> dict[str, float]:
    fit, model = timed(lambda: NgramModel(ORDER, vocab_size, KneserNey(DISCOUNT)).fit(train))
    seconds, result = timed(lambda: score(model, test))
    return {"fit": fit, "score": seconds / result.tokens, "perplexity": result.perplexity}


def nltks(train: list[list[int]], test: list[list[int]], vocab_size: int) -> dict[str, float]:
    from nltk.lm import KneserNeyInterpolated, Vocabulary
    from nltk.lm.preprocessing import pad_both_ends, padded_everygram_pipeline
    from nltk.util import ngrams

    def fit():
        model = KneserNeyInterpolated(ORDER, DISCOUNT, vocabulary=Vocabulary(unk_cutoff=1))
        model.fit(*padded_everygram_pipeline(ORDER, [[str(i) for i in row] for row in train]))
        return model

    seconds, model = timed(fit)
    padded = [list(pad_both_ends([str(i) for i in row], ORDER)) for row in test]
    # Without the two end symbols, which our documents do not have.
    grams = [gram for row in padded for gram in list(ngrams(row, ORDER))[: 1 - ORDER]]
    took, nats = timed(lambda: [-math.log(model.score(gram[-1], gram[:-1])) for gram in grams])
    return {"fit": seconds, "score": took / len(grams), "perplexity": math.exp(np.mean(nats))}


def main() -> list[dict[str, object]]:
    """Return the rows of the table."""
    train_corpus, held_out = load_pythondocs().deduplicated().split()
    words = WordTokenizer.train(train_corpus.documents, min_count=MIN_COUNT)
    train = words.encode_batch(train_corpus.documents)
    test, room = [], SCORED_TOKENS
    for row in words.encode_batch(held_out.documents):
        test.append(row[:room])
        room -= len(test[-1])
    test = [row for row in test if row]
    mine, theirs = ours(train, test, words.vocab_size), nltks(train, test, words.vocab_size)
    rows = [
        {
            "what": f"training, order {ORDER}, {sum(map(len, train)):,} words (s)",
            "ours": f"{mine['fit']:.2f}",
            "NLTK": f"{theirs['fit']:.2f}",
            "times as fast": f"{theirs['fit'] / mine['fit']:.0f}",
        },
        {
            "what": "scoring (µs a token)",
            "ours": f"{mine['score'] * 1e6:.1f}",
            "NLTK": f"{theirs['score'] * 1e6:.0f}",
            "times as fast": f"{theirs['score'] / mine['score']:.0f}",
        },
        {
            "what": f"perplexity of {sum(map(len, test)):,} held-out words",
            "ours": f"{mine['perplexity']:.2f}",
            "NLTK": f"{theirs['perplexity']:.2f}",
        },
    ]
    return [*rows, *large()]


def large() -> list[dict[str, object]]:
    """Return the rows about a million tokens, for which NLTK would take an hour."""
    rng = np.random.default_rng(0)
    # Tokens of Zipf's law, so that the tables are as large as those of a text.
    tokens = np.minimum(rng.zipf(1.2, LARGE_TOKENS), 20_000) - 1
    counting, counts = timed(lambda: NgramCounts([tokens], LARGE_ORDER, 20_000))
    model = NgramModel(LARGE_ORDER, 20_000, "kneser-ney").fit_counts(counts)
    scoring, _ = timed(lambda: model.token_log_probs(tokens[None, ::-1]))
    return [
        {"what": f"counting, order {LARGE_ORDER}, {LARGE_TOKENS:,} tokens (s)", "ours": f"{counting:.2f}"},
        {"what": "scoring as many (tokens/s)", "ours": f"{LARGE_TOKENS / scoring:,.0f}"},
    ]
