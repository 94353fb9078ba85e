"""Chapter 4's longer runs: Transformers on the texts of the chapters before, and Transformers with a part left out.

On Fableworld all models read the training and test stories of the rows of chapters 1 to 3, on the Python documentation
the characters of chapter 2's. Translation is measured as in chapter 3.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from lmcourse.attention import PairBatches
from lmcourse.attention.experiments import measure_translator
from lmcourse.core import score
from lmcourse.datasets import fableworld
from lmcourse.ngram.experiments import FableworldTexts, PythondocsTexts
from lmcourse.recurrent.experiments import hold_out
from lmcourse.results import Experiment, Measurement
from lmcourse.training import (
    DocumentBatches,
    History,
    SlidingContext,
    StreamBatches,
    fit,
    next_token_loss,
    scheduled_adam,
    train_epochs,
    training_metrics,
)
from lmcourse.transformer.ablations import AblatedGPT
from lmcourse.transformer.bert import Bert
from lmcourse.transformer.config import BertConfig, EncoderDecoderConfig, GPTConfig, LlamaConfig
from lmcourse.transformer.encoder_decoder import EncoderDecoder
from lmcourse.transformer.gpt import GPT, DecoderLanguageModel, Llama
from lmcourse.transformer.masking import Hiding, MaskedBatches, score_masked

# The longest story has 120 tokens.
STORY_LENGTH = 128

# The model of the ladder: two blocks, the least with which a head can look for what followed a token earlier.
LADDER = {"width": 96, "depth": 2, "num_heads": 4, "positions": "rotary"}

# Stories whose tokens are hidden one after the other.
MASKED_STORIES = 400


def measure_fableworld(
    seed: int,
    *,
    model: str,
    config: Mapping[str, Any],
    tokens: int,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    **settings: Any,
) -> Measurement:
    """Train a decoder-only Transformer on stories and measure its excess over the floor.

    Args:
        seed: of the training stories, the weights and the order; the test stories are always the same.
        model: "gpt" or "llama".
        config: fields of its config, but the vocabulary.
        tokens: the least number of tokens to train on.
        epochs: how often to read them.
        batch_size: stories in a batch.
        learning_rate: the largest of the schedule's.
        **settings: of the model besides its config (`AblatedGPT`'s residual).
    """
    keras.utils.set_random_seed(seed)
    texts = FableworldTexts.load(seed, tokens)
    network = make_model(model, texts.tokenizer.vocab_size, config, **settings)
    batches = DocumentBatches(texts.ids(texts.train), batch_size, seed=seed)
    history = train_epochs(network, batches, epochs, learning_rate)
    return texts.measure(network, **training_metrics(network, history))


def measure_ablation(seed: int, **settings: Any) -> Measurement:
    """Do as `measure_fableworld`, in a short run; its metrics' names say so, as it is no rung of the ladder."""
    found = measure_fableworld(seed, **settings)
    return Measurement(
        {f"ablation_{name}": value for name, value in found.metrics.items()}, found.data_sha256
    )


def measure_pythondocs(
    seed: int,
    *,
    config: Mapping[str, Any],
    steps: int,
    batch_size: int,
    learning_rate: float,
    characters: int | None = None,
) -> Measurement:
    """Train a GPT on characters of the Python documentation; measure bits per byte.

    A twentieth of the training documents decides when to stop: the weights that predict it best are kept. The test
    texts are read through a window that slides by half of what the model reads at once.

    Args:
        seed: of the split into training and held-out documents, the weights and the order.
        config: fields of its config, but the vocabulary.
        steps: the most steps of training.
        batch_size: rows in a batch, each as long as the model's limit.
        learning_rate: the largest of the schedule's.
        characters: how many to train on; None is all.
    """
    keras.utils.set_random_seed(seed)
    texts = PythondocsTexts.load(seed, characters=characters)
    # No character begins a document: the start has an id of its own.
    start = texts.vocab_size
    network = make_model("gpt", start + 1, {**config, "start_id": start})
    train, validation = hold_out(texts.train)
    batches = StreamBatches(train, batch_size, network.max_length, start_id=start, seed=seed)
    network.compile(scheduled_adam(learning_rate, steps), jit_compile=True)
    seen = SlidingContext(network)
    history = fit(
        network,
        batches,
        steps=steps,
        validation=lambda _: score(seen, validation).nats_per_token,
        validate_every=max(1, steps // 12),
        patience=4,
        progress=False,
    )
    return texts.measure(
        seen,
        training_tokens=sum(map(len, texts.train)),
        epochs=history.steps[-1] / batches.steps_per_epoch,
        best_epoch=history.best_step / batches.steps_per_epoch,
        **training_metrics(network, history),
    )


def measure_translation(
    seed: int,
    *,
    config: Mapping[str, Any],
    steps: int,
    batch_size: int,
    learning_rate: float,
    language: str,
    stories: int,
    sentences: Sequence[int],
    label_smoothing: float = 0.0,
) -> Measurement:
    """Train the encoder-decoder from English on Fableworld's passages, and measure it as chapter 3's translators.

    Args:
        seed: of the training stories, the weights and the order.
        config: fields of its config, but the vocabularies.
        steps: of training.
        batch_size: passages in a batch.
        learning_rate: the largest of the schedule's.
        language: "fr" or "zh".
        stories: how many to train on.
        sentences: the lengths of passages, in sentences.
        label_smoothing: of the loss.
    """

    def train(source_vocab: int, target_vocab: int, pairs: Sequence) -> tuple[EncoderDecoder, History]:
        model = EncoderDecoder(
            EncoderDecoderConfig(source_vocab=source_vocab, target_vocab=target_vocab, **config)
        )
        model.compile(scheduled_adam(learning_rate, steps), loss=next_token_loss(label_smoothing))
        return model, fit(model, PairBatches(pairs, batch_size, seed=seed), steps=steps, progress=False)

    return measure_translator(seed, train, language=language, stories=stories, sentences=sentences)


def measure_masked(
    seed: int,
    *,
    config: Mapping[str, Any],
    tokens: int,
    epochs: float,
    batch_size: int,
    learning_rate: float,
) -> Measurement:
    """Train a BERT on stories with hidden tokens, and measure which of them it guesses, by phenomenon.

    Args:
        seed: of the training stories, the weights, the order and what is hidden.
        config: fields of its config, but the vocabulary.
        tokens: the least number of tokens to train on.
        epochs: how often to read them.
        batch_size: stories in a batch.
        learning_rate: the largest of the schedule's.
    """
    keras.utils.set_random_seed(seed)
    texts = FableworldTexts.load(seed, tokens)
    hiding = hiding_for(texts.tokenizer)
    network = Bert(BertConfig(vocab_size=hiding.vocab_size, max_length=STORY_LENGTH, **config))
    batches = MaskedBatches(texts.ids(texts.train), batch_size, hiding, seed=seed)
    history = train_epochs(network, batches, epochs, learning_rate)
    shown = texts.test[:MASKED_STORIES]
    found = score_masked(network, texts.ids(shown), hiding)
    labels = np.array([shown[i].labels[t] for i, t in zip(found.documents, found.positions, strict=True)])
    metrics = {
        "masked_accuracy": found.accuracy,
        "masked_nats_per_token": found.nats_per_token,
        **{
            f"masked_accuracy_{label.replace('-', '_')}": float(found.right[labels == label].mean())
            for label in sorted(set(labels))
        },
        **training_metrics(network, history),
    }
    return Measurement(metrics, hashlib.sha256("\n".join(s.text for s in shown).encode()).hexdigest())


def make_model(
    model: str, vocab_size: int, config: Mapping[str, Any], **settings: Any
) -> DecoderLanguageModel:
    """Return a "gpt" or a "llama" with these fields of its config; settings are `AblatedGPT`'s."""
    if model == "llama":
        return Llama(LlamaConfig(vocab_size=vocab_size, **config))
    fields = GPTConfig(vocab_size=vocab_size, **config)
    return AblatedGPT(fields, **settings) if settings else GPT(fields)


def hiding_for(tokenizer: fableworld.FableTokenizer) -> Hiding:
    """Return how a story's tokens are hidden: behind an id of their own, its end never."""
    return Hiding(vocab_size=tokenizer.vocab_size + 1, mask_id=tokenizer.vocab_size, special_ids=(0,))


def _fableworld(
    name: str, model: str = "gpt", measure: Callable = measure_fableworld, **settings: Any
) -> Experiment:
    settings = {
        "model": model,
        "config": {**LADDER, "max_length": STORY_LENGTH},
        "tokens": 1_000_000,
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 4e-3,
        **settings,
    }
    return Experiment(measure, name, "fableworld", seeds=(0, 1, 2), settings=settings)


def _ablation(name: str, config: Mapping[str, Any] | None = None, **settings: Any) -> Experiment:
    """Return a short run of the ladder's model with some fields of its config otherwise."""
    fields = {**LADDER, "max_length": STORY_LENGTH, **(config or {})}
    settings = {"config": fields, "tokens": 200_000, "epochs": 3, **settings}
    return _fableworld(name, measure=measure_ablation, **settings)


def _deep(name: str, config: Mapping[str, Any] | None = None, **settings: Any) -> Experiment:
    """Return a short run of eight narrow blocks."""
    fields = {"width": 48, "depth": 8, "num_heads": 4, **(config or {})}
    return _ablation(f"8 blocks: {name}", fields, **settings)


def _translation(name: str, language: str) -> Experiment:
    settings = {
        "config": {"width": 96, "depth": 2, "num_heads": 4, "max_length": STORY_LENGTH, "norm_first": True},
        "steps": 1_200,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "language": language,
        "stories": 2_000,
        "sentences": (1, 2, 3),
    }
    return Experiment(measure_translation, name, "fableworld", seeds=(0, 1, 2), settings=settings)


EXPERIMENTS = {
    "fableworld-gpt": _fableworld("GPT"),
    # About half an hour: the same model on five times as many stories, each read twice as often.
    "fableworld-gpt-long": dataclasses.replace(
        _fableworld("GPT, ten times the training", tokens=5_000_000, epochs=4), seeds=(0,), limit_minutes=90
    ),
    "fableworld-llama": _fableworld(
        "Llama",
        "llama",
        config={
            "width": 96,
            "depth": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "hidden_dim": 256,
            "max_length": STORY_LENGTH,
        },
    ),
    "pythondocs-gpt": Experiment(
        measure_pythondocs,
        "GPT, characters",
        "pythondocs",
        seeds=(0, 1, 2),
        settings={
            "config": {
                "width": 128,
                "depth": 3,
                "num_heads": 4,
                "max_length": 128,
                "positions": "rotary",
                "dropout": 0.1,
            },
            "steps": 1_500,
            "batch_size": 12,
            "learning_rate": 3e-3,
        },
    ),
    "translation-transformer-fr": _translation("Transformer, English to French", "fr"),
    "translation-transformer-zh": _translation("Transformer, English to Chinese", "zh"),
    "masked-bert": Experiment(
        measure_masked,
        "BERT",
        "fableworld",
        seeds=(0, 1, 2),
        settings={
            "config": {"width": 96, "depth": 2, "num_heads": 4},
            "tokens": 400_000,
            "epochs": 5,
            "batch_size": 16,
            "learning_rate": 3e-3,
        },
    ),
    "ablation-base": _ablation("nothing left out"),
    "ablation-positions-none": _ablation("no positions", {"positions": "none"}),
    "ablation-positions-learned": _ablation("learned positions", {"positions": "learned"}),
    "ablation-positions-sinusoidal": _ablation("sinusoidal positions", {"positions": "sinusoidal"}),
    "ablation-positions-alibi": _ablation("ALiBi", {"positions": "alibi"}),
    "ablation-small-start": _ablation("weights start at 0.02", {"initializer_stddev": 0.02}),
    "ablation-depth-1": _ablation("1 block", {"depth": 1}),
    "ablation-heads-1": _ablation("1 head", {"num_heads": 1}),
    "ablation-heads-2": _ablation("2 heads", {"num_heads": 2}),
    "ablation-heads-8": _ablation("8 heads", {"num_heads": 8}),
    "ablation-wide-heads": _ablation("4 heads as wide as the model", {"head_dim": 96}),
    "ablation-deep-pre-norm": _deep("pre-norm"),
    "ablation-deep-post-norm": _deep("post-norm", {"norm_first": False}),
    "ablation-deep-no-norm": _deep("no norm", {"norm": "none"}),
    "ablation-deep-one-residual": _deep("one residual path", residual="one"),
    "ablation-deep-no-residual": _deep("no residual path", residual="none"),
}
