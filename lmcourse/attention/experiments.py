"""Chapter 3's longer runs: a model with attention against the floor, and translation with attention and without.

On Fableworld the language models read the training and test stories of the rows of chapters 1 and 2. The translators
learn from English to French on passages of one to three sentences, and on JupyterLab's interface strings.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import sacrebleu

from lmcourse.attention.copying import copying_heads
from lmcourse.attention.language_model import AttentionLanguageModel
from lmcourse.attention.pairs import PairBatches, score_translations
from lmcourse.attention.seq2seq import Seq2Seq
from lmcourse.attention.translation_model import TranslationModel
from lmcourse.datasets import fableworld, load_interface_strings
from lmcourse.ngram.experiments import FableworldTexts
from lmcourse.results import Experiment, Measurement
from lmcourse.text import BPETokenizer
from lmcourse.training import (
    DocumentBatches,
    History,
    fit,
    scheduled_adam,
    train_epochs,
    training_metrics,
)

# Stories whose passages are translated, and those whose names show what the heads look at.
TEST_STORIES = 40
SHOWN_STORIES = 100

# The vocabularies of the interface strings: small, as there is little text.
MERGES = 500
END = "<end>"

# Interface strings by their number of tokens: labels, short sentences, and the rest.
INTERFACE_LENGTHS = (5, 10, 20)


def measure_fableworld(
    seed: int, *, tokens: int, epochs: float, batch_size: int, learning_rate: float, **settings: Any
) -> Measurement:
    """Train a language model with attention on stories and measure its excess over the floor.

    Args:
        seed: of the training stories, the weights and the order; the test stories are always the same.
        tokens: the least number of tokens to train on.
        epochs: how often to read them.
        batch_size: stories in a batch.
        learning_rate: the largest of the schedule's.
        **settings: of the `AttentionLanguageModel`.
    """
    keras.utils.set_random_seed(seed)
    texts = FableworldTexts.load(seed, tokens)
    model = AttentionLanguageModel(texts.tokenizer.vocab_size, **settings)
    batches = DocumentBatches(texts.ids(texts.train), batch_size, seed=seed)
    history = train_epochs(model, batches, epochs, learning_rate)
    shown = texts.test[:SHOWN_STORIES]
    heads = copying_heads(model, texts.ids(shown), [story.labels for story in shown])
    return texts.measure(
        model,
        **training_metrics(model, history),
        copying_head_weight=float(heads.weight.max()),
        copying_chance_weight=heads.chance,
    )


def measure_translation(
    seed: int,
    *,
    attention: str,
    steps: int,
    batch_size: int,
    learning_rate: float,
    language: str = "fr",
    stories: int,
    sentences: Sequence[int],
    **settings: Any,
) -> Measurement:
    """Train an LSTM translator from English on Fableworld's passages, and measure it; see `measure_translator`.

    Args:
        seed: of the training stories, the weights and the order.
        attention: of the `Seq2Seq`.
        steps: of training.
        batch_size: passages in a batch.
        learning_rate: the largest of the schedule's.
        language: "fr" or "zh".
        stories: how many to train on.
        sentences: the lengths of passages, in sentences.
        **settings: of the `Seq2Seq`.
    """

    def train(source_vocab: int, target_vocab: int, pairs: Sequence) -> tuple[Seq2Seq, History]:
        model = Seq2Seq(source_vocab, target_vocab, attention=attention, **settings)
        return model, _train(model, pairs, steps, batch_size, learning_rate, seed)

    return measure_translator(seed, train, language=language, stories=stories, sentences=sentences)


def measure_translator(
    seed: int,
    train: Callable[[int, int, Sequence], tuple[TranslationModel, History]],
    *,
    language: str,
    stories: int,
    sentences: Sequence[int],
    test_stories: int = TEST_STORIES,
) -> Measurement:
    """Let a translator learn from English passages and their translations, and measure it by their length.

    A greedy translation counts as a match if it is the target word for word, and as right if it is any of the right
    translations: the target chose among synonyms by chance, so that matches have a ceiling and right ones have none.
    BLEU, too, compares with that one target.

    Args:
        seed: of the training stories; the test stories are always the same.
        train: from the sizes of the vocabularies and the pairs of ids to a trained model and what happened.
        language: "fr" or "zh".
        stories: how many to train on.
        sentences: the lengths of passages, in sentences; each story is cut in every one of these ways.
        test_stories: how many to translate.
    """
    keras.utils.set_random_seed(seed)
    source, target = fableworld.FableTokenizer("en"), fableworld.FableTokenizer(language)
    told = fableworld.parallel("train", target=language, stories=stories, seed=seed)
    test = fableworld.parallel("test", target=language, stories=test_stories)
    pairs = [pair for length in sentences for pair in passage_ids(told, length, source, target)]
    model, history = train(source.vocab_size, target.vocab_size, pairs)
    metrics = training_metrics(model, history)
    for length in sentences:
        passages = passage_ids(test, length, source, target)
        accepted = right_translations(test, length, target)
        matched = score_translations(model, passages)
        right = score_translations(model, passages, accepted)
        metrics |= {
            f"exact_match_{length}": matched.exact_match,
            f"exact_match_ceiling_{length}": fableworld.exact_match_ceiling(test, length),
            f"right_translations_{length}": right.exact_match,
            f"token_accuracy_{length}": matched.token_accuracy,
            f"nats_per_token_{length}": matched.nats_per_token,
            f"bleu_{length}": bleu(model, passages, target),
        }
    texts = "\n".join(story.text for pair in (*told, *test) for story in (pair.source, pair.target))
    return Measurement(metrics, hashlib.sha256(texts.encode()).hexdigest())


def bleu(
    model: TranslationModel,
    passages: Sequence[tuple[Sequence[int], Sequence[int]]],
    target: fableworld.FableTokenizer,
) -> float:
    """Return the BLEU of greedy translations against their targets, from 0 to 100.

    Computed by sacrebleu on the written texts, as published scores are: with its tokenizer of the language.
    """
    written = [
        target.decode(_without_end(ids)) for ids in model.translate([source for source, _ in passages])
    ]
    meant = [target.decode(_without_end(ids)) for _, ids in passages]
    return sacrebleu.corpus_bleu(written, [meant], tokenize="zh" if target.language == "zh" else "13a").score


def measure_interface(
    seed: int,
    *,
    attention: str,
    steps: int,
    batch_size: int,
    learning_rate: float,
    merges: int = MERGES,
    **settings: Any,
) -> Measurement:
    """Train a translator from English to French on JupyterLab's interface strings, and measure it by length.

    Args:
        seed: of the split into training and held-out strings, the weights and the order.
        attention: of the `Seq2Seq`.
        steps: of training.
        batch_size: strings in a batch.
        learning_rate: the largest of the schedule's.
        merges: of the two byte-level BPE tokenizers.
        **settings: of the `Seq2Seq`.
    """
    keras.utils.set_random_seed(seed)
    strings = load_interface_strings("fr")
    train, held_out = strings.split(seed=seed)
    source, target = (
        BPETokenizer.train([pair[side] for pair in train], merges=merges, special_tokens=[END])
        for side in (0, 1)
    )
    # The end token has the id 0.
    train_ids, held_out_ids = (
        [([*source.encode(a, special="text"), 0], [*target.encode(b, special="text"), 0]) for a, b in part]
        for part in (train, held_out)
    )
    model = Seq2Seq(source.vocab_size, target.vocab_size, attention=attention, **settings)
    history = _train(model, train_ids, steps, batch_size, learning_rate, seed)
    # A message may have several translations.
    known: dict[str, set[tuple[int, ...]]] = {}
    for (text, _), (_, ids) in zip(held_out, held_out_ids, strict=True):
        known.setdefault(text, set()).add(tuple(ids))
    scores = score_translations(model, held_out_ids, [known[text] for text, _ in held_out])
    metrics = {
        **training_metrics(model, history),
        "exact_match": scores.exact_match,
        "token_accuracy": scores.token_accuracy,
        "nats_per_token": scores.nats_per_token,
        "strings": len(held_out),
    }
    for name, part in scores.by_length(INTERFACE_LENGTHS).items():
        metrics[f"exact_match_{_as_name(name)}"] = part.exact_match
        metrics[f"token_accuracy_{_as_name(name)}"] = part.token_accuracy
    return Measurement(metrics, strings.sha256)


def passage_ids(
    pairs: Sequence[fableworld.Pair],
    sentences: int,
    source: fableworld.FableTokenizer,
    target: fableworld.FableTokenizer,
) -> list[tuple[list[int], list[int]]]:
    """Return the stories' passages of so many sentences as ids, each closed by the end token."""
    return [
        (source.ids_of(said), target.ids_of(meant))
        for pair in pairs
        for said, meant in pair.passages(sentences)
    ]


def right_translations(
    pairs: Sequence[fableworld.Pair], sentences: int, target: fableworld.FableTokenizer
) -> list[set[tuple[int, ...]]]:
    """Return all right translations of each of the passages that `passage_ids` gives."""
    return [
        {
            tuple(target.ids_of(tokens))
            for tokens in fableworld.translations(
                pair.source, target.language, first=first, sentences=sentences
            )
        }
        for pair in pairs
        for first in range(0, len(pair.source.sentence_stops), sentences)
    ]


def _without_end(ids: Sequence[int]) -> list[int]:
    """Return ids without the end token, which is 0."""
    return [token for token in ids if token]


def _train(
    model: Seq2Seq, pairs: Sequence, steps: int, batch_size: int, learning_rate: float, seed: int
) -> Any:
    model.compile(scheduled_adam(learning_rate, steps))
    return fit(model, PairBatches(pairs, batch_size, seed=seed), steps=steps, progress=False)


def _as_name(lengths: str) -> str:
    """Return a range of lengths as part of a metric's name: "1–5" as "1_to_5_tokens"."""
    return f"{lengths.replace('–', '_to_').replace(' ', '_')}_tokens"


def _fableworld(name: str, **settings: Any) -> Experiment:
    settings = {"tokens": 1_000_000, "batch_size": 16, "learning_rate": 5e-3, **settings}
    return Experiment(measure_fableworld, name, "fableworld", seeds=(0, 1, 2), settings=settings)


def _translation(name: str, attention: str, **more: Any) -> Experiment:
    settings = {
        "attention": attention,
        "stories": 2_000,
        "sentences": (1, 2, 3),
        "steps": 1_200,
        "batch_size": 32,
        "learning_rate": 1e-2,
        "units": 96,
        "embedding_dim": 64,
        **more,
    }
    return Experiment(measure_translation, name, "fableworld", seeds=(0, 1, 2), settings=settings)


def _interface(name: str, attention: str) -> Experiment:
    settings = {
        "attention": attention,
        "steps": 1_500,
        "batch_size": 32,
        "learning_rate": 5e-3,
        "units": 128,
        "embedding_dim": 64,
        "dropout": 0.3,
    }
    return Experiment(measure_interface, name, "language-pack-fr", seeds=(0, 1, 2), settings=settings)


EXPERIMENTS = {
    "fableworld-attention": _fableworld("Window of 4 tokens + attention", epochs=4),
    "fableworld-attention-lstm": _fableworld("LSTM + attention", reader="lstm", units=64, epochs=3),
    "translation-none": _translation("Seq2seq LSTM, English to French", "none"),
    "translation-bahdanau": _translation("Seq2seq LSTM + Bahdanau attention, English to French", "bahdanau"),
    "translation-luong": _translation("Seq2seq LSTM + Luong attention, English to French", "luong"),
    "translation-bahdanau-zh": _translation(
        "Seq2seq LSTM + Bahdanau attention, English to Chinese", "bahdanau", language="zh"
    ),
    "interface-none": _interface("Seq2seq LSTM, English to French", "none"),
    "interface-luong": _interface("Seq2seq LSTM + Luong attention, English to French", "luong"),
}
