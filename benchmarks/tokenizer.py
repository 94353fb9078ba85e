"""Our byte-level BPE against the tokenizers library, on Python's documentation and standard library.

Each side runs in a process of its own, on one thread, so that the peak memory is its own too. Times are the
processor's, not the clock's: what else the machine does counts less.
"""

import concurrent.futures
import hashlib
import multiprocessing
import os
import time

from benchmarks import peak_mib

CHARACTERS = 5_000_000
MERGES = 8_000
END = "<|endoftext|>"


def texts() -> list[str]:
    """Return the documentation's topics and then the library's source files that fit, up to CHARACTERS."""
    from lmcourse.datasets import load_pythoncode, load_pythondocs

    chosen = load_pythondocs().documents
    size = sum(map(len, chosen))
    for text in load_pythoncode().documents:
        if size + len(text) <= CHARACTERS:
            chosen.append(text)
            size += len(text)
    return chosen


def measure(corpus: list[str], train, encode_all) -> dict[str, object]:
    """Train, encode twice (the second time everything is remembered), and digest the ids."""
    before = peak_mib()
    start = time.process_time()
    tokenizer = train(corpus)
    trained = time.process_time()
    first = encode_all(tokenizer, corpus)
    encoded = time.process_time()
    encode_all(tokenizer, corpus)
    again = time.process_time()
    return {
        "characters": sum(map(len, corpus)),
        "train": trained - start,
        "encode": encoded - trained,
        "encode again": again - encoded,
        "memory": peak_mib() - before,
        "tokens": sum(map(len, first)),
        "ids": hashlib.sha256(repr(first).encode()).hexdigest(),
    }


def measure_ours(corpus: list[str]) -> dict[str, object]:
    from lmcourse.text import BPETokenizer

    return measure(
        corpus,
        lambda corpus: BPETokenizer.train(corpus, merges=MERGES, special_tokens=[END]),
        lambda tokenizer, corpus: tokenizer.encode_batch(corpus),
    )


def measure_library(corpus: list[str]) -> dict[str, object]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    def train(corpus):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=1 + 256 + MERGES,
            min_frequency=2,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(corpus, trainer)
        return tokenizer

    return measure(corpus, train, lambda tokenizer, corpus: [tokenizer.encode(text).ids for text in corpus])


def alone(function, corpus: list[str]) -> dict[str, object]:
    """Call the function in a fresh process, whose peak of memory knows nothing of how the texts were found."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, corpus).result()


def main() -> list[dict[str, object]]:
    os.environ["RAYON_NUM_THREADS"] = "1"  # the library's threads; the processes inherit it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    corpus = texts()
    ours, library = alone(measure_ours, corpus), alone(measure_library, corpus)
    speeds = [
        (f"training {MERGES:,} merges, s", "train", 1),
        ("encoding, million characters/s", "encode", ours["characters"] / 1e6),
        ("encoding again, million characters/s", "encode again", ours["characters"] / 1e6),
    ]
    rows = [
        {
            "on": what,
            "ours": ours[key] if scale == 1 else scale / ours[key],
            "tokenizers": library[key] if scale == 1 else scale / library[key],
            "our speed / its speed": library[key] / ours[key],
        }
        for what, key, scale in speeds
    ]
    return [
        *rows,
        {"on": "memory over the text's own, MiB", "ours": ours["memory"], "tokenizers": library["memory"]},
        {"on": "tokens", "ours": ours["tokens"], "tokenizers": library["tokens"]},
        {"on": "identical ids", "ours": ours["ids"] == library["ids"]},
        {"on": "characters of text", "ours": ours["characters"], "tokenizers": library["characters"]},
    ]
