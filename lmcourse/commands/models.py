"""The models that `lmcourse train` makes, and those that other commands find: a run's folder, or published weights.

A new kind of model is one more entry of `ARCHITECTURES`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcourse.cli import UsageError
from lmcourse.commands.arguments import check_choice
from lmcourse.commands.quiet import import_tensorflow
from lmcourse.core import LanguageModel
from lmcourse.text import Tokenizer

if TYPE_CHECKING:
    from lmcourse.training import NeuralLanguageModel, StreamBatches
    from lmcourse.transformer import ChatTemplate
    from lmcourse.transformer.pretrained import ChatModel

GGUF = ".gguf"

# The published weights that predict the next token; `load_pretrained` knows others besides.
PUBLISHED = ("smollm2-135m-instruct",)

MODEL_HELP = f"a run's folder, a {GGUF} file, or {', '.join(PUBLISHED)}"

# The special token that ends a document; the first, so that its id is 0, which is also read before each document.
END = "<end>"

Presets = Mapping[str, Mapping[str, Any]]

# "small" is what `lmcourse results ch02` and `ch03` measure.
RECURRENT_PRESETS: Presets = {
    "tiny": {"units": 64, "embedding_dim": 32},
    "small": {"units": 192, "embedding_dim": 96},
}
ATTENTION_PRESETS: Presets = {
    "tiny": {"units": 64, "embedding_dim": 32},
    "small": {"units": 128, "embedding_dim": 64},
}

# The rate of the rows of chapters 2 and 3.
LEARNING_RATE = 5e-3

# Wide models bear less: 3e-3 up to this width, then falling with it (about GPT-3's 6e-4 at width 768; Brown et al.
# 2020, arXiv:2005.14165, table 2.1).
DECODER_LEARNING_RATE, DECODER_WIDTH = 3e-3, 128


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A kind of model that can be trained by name. Nothing is imported before it is called.

    Attributes:
        presets: returns the sizes that have names.
        make: returns a new model, from a preset's name, V, and the most tokens to read at once (None: the preset's).
        learning_rate: returns the largest rate to train a model with by default.
        carries_state: whether on a stream each batch goes on in the state that the last one left.
    """

    presets: Callable[[], Presets]
    make: Callable[[str, int, int | None], "NeuralLanguageModel"]
    learning_rate: Callable[["NeuralLanguageModel"], float] = lambda model: LEARNING_RATE
    carries_state: bool = False

    def to_train_on(self, model: "NeuralLanguageModel", batches: "StreamBatches") -> "NeuralLanguageModel":
        """Return what is trained in order to train the model on a stream: itself, or what carries its state."""
        if not self.carries_state:
            return model
        from lmcourse.recurrent import CarriedState

        return CarriedState(model, batches.batch_size, reset_every=batches.steps_per_epoch)


def _recurrent(layer: str) -> Architecture:
    def make(preset: str, vocab_size: int, context: int | None) -> "NeuralLanguageModel":
        from lmcourse.recurrent import RecurrentLanguageModel

        return RecurrentLanguageModel(vocab_size, layer=layer, **RECURRENT_PRESETS[preset])

    return Architecture(lambda: RECURRENT_PRESETS, make, carries_state=True)


def _make_attention(preset: str, vocab_size: int, context: int | None) -> "NeuralLanguageModel":
    from lmcourse.attention import AttentionLanguageModel

    return AttentionLanguageModel(vocab_size, **ATTENTION_PRESETS[preset])


def _decoder(name: str) -> Architecture:
    """Return one of the Transformers: `name` is the class, and with "Config" its config."""

    def config_class() -> Any:
        import lmcourse.transformer

        return getattr(lmcourse.transformer, f"{name}Config")

    def make(preset: str, vocab_size: int, context: int | None) -> "NeuralLanguageModel":
        import lmcourse.transformer

        # A preset of a published size has that model's vocabulary and start; here the text's tokenizer decides.
        changes = {"vocab_size": vocab_size, "start_id": 0}
        if context is not None:
            changes["max_length"] = context
        return getattr(lmcourse.transformer, name)(config_class().preset(preset, **changes))

    def learning_rate(model: Any) -> float:
        return DECODER_LEARNING_RATE * min(1.0, DECODER_WIDTH / model.config.width)

    return Architecture(lambda: config_class().PRESETS, make, learning_rate)


ARCHITECTURES = {
    "gpt": _decoder("GPT"),
    "llama": _decoder("Llama"),
    "attention": Architecture(lambda: ATTENTION_PRESETS, _make_attention),
    "lstm": _recurrent("lstm"),
    "gru": _recurrent("gru"),
}


def make_model(name: str, preset: str, vocab_size: int, context: int | None = None) -> "NeuralLanguageModel":
    """Return a new model, built.

    Args:
        name: a key of `ARCHITECTURES`.
        preset: the name of one of its sizes.
        vocab_size: V.
        context: the most tokens to read at once; None is the preset's. Recurrent models read texts of any length.

    Raises:
        UsageError: if there is no such model or preset.
        ValueError: if a number is out of its range.
    """
    check_preset(name, preset)
    model = ARCHITECTURES[name].make(preset, vocab_size, context)
    model.build((None, None))
    return model


def check_architecture(name: str) -> None:
    """Raise UsageError unless there is such a model."""
    check_choice(ARCHITECTURES, model=name)


def check_preset(name: str, preset: str) -> None:
    """Raise UsageError unless there is such a model, and it has this size."""
    check_architecture(name)
    presets = ARCHITECTURES[name].presets()
    if preset not in presets:
        raise UsageError(f"--preset for --model {name} must be one of {', '.join(presets)}; got {preset!r}.")


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model that is ready for use.

    Attributes:
        name: as it was asked for.
        model: of the next token.
        tokenizer: of its tokens.
        template: the form of its conversations, or None if it was not trained on any.
        record: of the run that trained it here, or None.
    """

    name: str
    model: LanguageModel
    tokenizer: Tokenizer
    template: "ChatTemplate | None" = None
    record: Mapping[str, Any] | None = None

    @property
    def context(self) -> int | None:
        """The most tokens that it reads at once, or None if there is no limit."""
        return getattr(self.model, "max_length", None)

    @property
    def stop_ids(self) -> list[int]:
        """The ids that end a text, or an answer: what is read before a document has ended the one before."""
        start = getattr(self.model, "start_id", None)
        ends = [start] if start in self.tokenizer.special_tokens.values() else []
        return ends + ([self.template.stop_id(self.tokenizer)] if self.template is not None else [])


def load_model(name: str) -> LoadedModel:
    """Return a trained model.

    Args:
        name: the path of a run's folder or of a GGUF file, or the name of published weights.

    Raises:
        UsageError: if there is none of these, it is damaged, or it is not a model of the next token.
        DatasetError: if the weights were not fetched.
    """
    import_tensorflow()
    path = Path(name)
    try:
        if path.suffix == GGUF and not path.is_dir():
            from lmcourse.transformer.pretrained import load_chat_model

            return _published(name, load_chat_model(path))
        if name and path.exists():
            from lmcourse.training import load_run

            run = load_run(path)
            return LoadedModel(name, run.model, run.tokenizer, record=run.record)
        if name not in PUBLISHED:
            raise UsageError(
                f"--model must be a folder that `lmcourse train` wrote, a {GGUF} file, or {', '.join(PUBLISHED)}; "
                f"got {name!r}."
            )
        from lmcourse.transformer.pretrained import load_pretrained

        return _published(name, load_pretrained(name))
    except OSError as error:
        raise UsageError(f"--model {name} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:  # of a run's folder or of weights, with its path
        raise UsageError(f"--model: {error}") from None


def _published(name: str, found: "ChatModel") -> LoadedModel:
    return LoadedModel(name, found.model, found.tokenizer, found.template)


def prompt_ids(tokenizer: Tokenizer, text: str, argument: str = "--prompt") -> list[int]:
    """Return a text that is to be continued as ids; what spells a special token is text.

    Args:
        tokenizer: the model's.
        text: what the model is to read.
        argument: what the text was given as.

    Raises:
        UsageError: if the tokenizer cannot spell it.
    """
    from lmcourse.datasets.fableworld import FableTokenizer

    try:
        if isinstance(tokenizer, FableTokenizer):
            return tokenizer.encode(text, special="text", end=False)
        return tokenizer.encode(text, special="text")
    except ValueError as error:
        raise UsageError(f"{argument}: the model cannot read this text: {error}") from None


def documents_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> list[list[int]]:
    """Return whole documents as ids, closed by the end token if the tokenizer has one.

    Raises:
        UsageError: if the tokenizer cannot spell one.
    """
    end = [tokenizer.special_tokens[END]] if END in tokenizer.special_tokens else []
    return [prompt_ids(tokenizer, text, "--dataset") + end for text in texts]
