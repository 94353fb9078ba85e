"""`lmcourse train`: train a model on a text, into a folder that the other commands read."""

import argparse
import contextlib
import dataclasses
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcourse.cli import UsageError
from lmcourse.commands import arguments
from lmcourse.commands.arguments import flag, integer, number
from lmcourse.commands.models import ARCHITECTURES, check_architecture, check_preset, make_model
from lmcourse.commands.quiet import import_tensorflow
from lmcourse.commands.streamed import INTERRUPTED
from lmcourse.commands.texts import CORPORA, FABLEWORLD, TOKENIZERS, check_dataset, training_texts
from lmcourse.datasets import DatasetError
from lmcourse.text import Tokenizer

if TYPE_CHECKING:
    from lmcourse.commands.texts import TrainingTexts
    from lmcourse.training import Batches, NeuralLanguageModel, RunFolder

# What a run is made of. None: what follows from the others, as `--help` says.
DEFAULTS: Mapping[str, Any] = {
    "model": "gpt",
    "preset": "tiny",
    "dataset": FABLEWORLD,
    "tokens": None,
    "tokenizer": "bpe",
    "merges": 1000,
    "context": None,
    "steps": None,
    "batch_size": 16,
    "learning_rate": None,
    "jit": False,
    "validate_every": None,
    "seed": 0,
}

FOLDER = Path("runs")

EPOCHS = 2

# Tokens in a row of a model that could read on without end: where the gradient is cut.
ROW_TOKENS = 128

VALIDATIONS = 10  # in a run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; a default of None tells what was given from what was not."""
    add = parser.add_argument
    add("--model", metavar="NAME", help=f"what to train: {', '.join(ARCHITECTURES)} (default: gpt)")
    add("--preset", metavar="NAME", help="its size; a wrong name lists what there is (default: tiny)")
    names = ", ".join((FABLEWORLD, *CORPORA))
    add("--dataset", metavar="NAME|FILE", help=f"{names}, or a text file (default: {FABLEWORLD})")
    add(
        "--tokens",
        type=integer,
        metavar="N",
        help="train on about so many (default: all; of Fableworld 1,000,000)",
    )
    kinds = " or ".join(TOKENIZERS)
    add("--tokenizer", metavar="KIND", help=f"{kinds}; Fableworld has its own words (default: bpe)")
    add("--merges", type=integer, metavar="N", help="of byte-pair encoding (default: 1000)")
    add("--context", type=integer, metavar="N", help="the most tokens read at once (default: the preset's)")
    add("--steps", type=integer, metavar="N", help=f"of training (default: {EPOCHS} epochs)")
    add("--batch-size", type=integer, metavar="N", help="documents, or rows of text, a step (default: 16)")
    add(
        "--learning-rate", type=number, metavar="RATE", help="the largest (default: one that suits the model)"
    )
    add("--jit", action="store_const", const=True, help="compile with XLA: starts later, then trains faster")
    add("--validate-every", type=integer, metavar="N", help="steps (default: a tenth of all)")
    add("--seed", type=integer, metavar="N", help="of the text, the weights and the order (default: 0)")
    add(
        "--out",
        metavar="DIR",
        type=arguments.folder,
        help="the run's folder (default: runs/MODEL-PRESET-DATASET)",
    )
    add("--checkpoint-every", type=integer, metavar="N", help="steps (default: about once a minute)")
    going_on = parser.add_mutually_exclusive_group()
    going_on.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    going_on.add_argument(
        "--again", action="store_true", help="train anew, in place of the run in the folder"
    )


def run(args: argparse.Namespace) -> int:
    """Train; 130 if interrupted, 1 if the data is not there or the folder can no longer be written."""
    given = _given(args)
    import_tensorflow()
    from lmcourse.training import RunFolder

    folder = RunFolder(args.out or _default_folder({**DEFAULTS, **given}))
    with _memory_told_of():
        try:
            prepared = _taken_up(folder, given) if args.resume else _begun(folder, given, args.again)
        except DatasetError as error:
            print(f"lmcourse train: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            raise UsageError(f"--out {folder.path} cannot be used: {error.strerror or error}.") from None
        if folder.has_model():
            print(f"{folder.path} has ended already, after {prepared.settings['steps']} steps.")
            return 0
        return _train(prepared, folder, args.checkpoint_every)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, made from its settings alone: the same whenever they are the same.

    Attributes:
        settings: complete.
        texts: what it learns from.
        network: the model that comes of it.
        trained: what is trained for that: the network, or what carries its state.
        batches: what it reads.
    """

    settings: dict[str, Any]
    texts: "TrainingTexts"
    network: "NeuralLanguageModel"
    trained: "NeuralLanguageModel"
    batches: "Batches"


def prepare(settings: Mapping[str, Any], tokenizer: Tokenizer | None = None) -> Prepared:
    """Load the text, make and compile the model.

    Args:
        settings: a value for each key of `DEFAULTS`; None becomes what it stands for.
        tokenizer: the run's, if it was begun before.

    Raises:
        UsageError: if a setting is not possible; the message says what would be.
        DatasetError: if the dataset was not fetched.
    """
    check_preset(settings["model"], settings["preset"])
    check_dataset(settings["dataset"])
    import keras

    from lmcourse.training import DocumentBatches, StreamBatches, scheduled_adam

    architecture = ARCHITECTURES[settings["model"]]
    try:
        texts = training_texts(
            settings["dataset"],
            tokens=settings["tokens"],
            seed=settings["seed"],
            kind=settings["tokenizer"],
            merges=settings["merges"],
            tokenizer=tokenizer,
        )
        keras.utils.set_random_seed(settings["seed"])
        network = make_model(
            settings["model"], settings["preset"], texts.tokenizer.vocab_size, settings["context"]
        )
        context = network.max_length or settings["context"] or ROW_TOKENS
        size, seed = settings["batch_size"], settings["seed"]
        trained: NeuralLanguageModel = network
        if texts.is_stream:
            _require_a_batch(texts, size, context)
            batches = StreamBatches(texts.train, size, context, seed=seed)
            trained = architecture.to_train_on(network, batches)
        else:
            batches = DocumentBatches(texts.train, size, max_length=context, seed=seed)
    except ValueError as error:
        raise UsageError(str(error)) from None
    steps = settings["steps"] or EPOCHS * batches.steps_per_epoch
    complete = {
        **settings,
        "context": context,
        "steps": steps,
        "learning_rate": settings["learning_rate"] or architecture.learning_rate(network),
        "validate_every": settings["validate_every"] or -(-steps // VALIDATIONS),
    }
    trained.compile(scheduled_adam(complete["learning_rate"], steps), jit_compile=settings["jit"])
    return Prepared(complete, texts, network, trained, batches)


def _require_a_batch(texts: "TrainingTexts", rows: int, context: int) -> None:
    tokens = sum(map(len, texts.train))
    if tokens < rows * context:
        raise UsageError(
            f"the text has {tokens:,} tokens to train on, too few for one batch of {rows} rows of {context}; give a "
            "smaller --batch-size or --context, or more text."
        )


def _begun(folder: "RunFolder", given: Mapping[str, Any], again: bool) -> Prepared:
    """Return a new run, whose folder is written."""
    from lmcourse.results import installed_versions

    if folder.exists() and not again:
        raise UsageError(
            f"{folder.path} holds a run already: go on with it by --resume, train anew in its place by --again, or "
            "give another folder with --out."
        )
    prepared = prepare({**DEFAULTS, **given})
    folder.begin(
        prepared.settings,
        prepared.texts.tokenizer,
        versions=installed_versions(),
        data_sha256=prepared.texts.sha256,
    )
    return prepared


def _taken_up(folder: "RunFolder", given: Mapping[str, Any]) -> Prepared:
    """Return the run in the folder as it was begun."""
    from lmcourse.training import RunError

    if not folder.exists():
        raise UsageError(f"--out {folder.path} holds no run to go on with; leave --resume out to begin one.")
    try:
        record, tokenizer = folder.record(), folder.tokenizer()
    except RunError as error:
        raise UsageError(str(error)) from None
    saved = record["settings"]
    other = [
        f"{flag(name)} is {saved.get(name)} there and {value} here"
        for name, value in given.items()
        if saved.get(name) != value
    ]
    if other:
        raise UsageError(
            f"a run goes on only with the settings it was begun with: {'; '.join(other)}. Leave them out, or train "
            "anew with --again or another --out."
        )
    prepared = prepare({**DEFAULTS, **saved}, tokenizer)
    changed = [name for name, sha in prepared.texts.sha256.items() if record["data_sha256"].get(name) != sha]
    if changed:
        raise UsageError(
            f"the text of {saved['dataset']} is not what the run was begun with ({', '.join(changed)}): restore it, or "
            "train anew with --again."
        )
    _note_other_versions(record.get("versions", {}))
    return prepared


def _train(prepared: Prepared, folder: "RunFolder", checkpoint_every: int | None) -> int:
    from lmcourse.training import CheckpointError, fit

    _say(_description(prepared))
    _say(f"{folder.path}: {prepared.settings['steps']:,} steps of {prepared.settings['batch_size']} rows")
    go_on = shlex.join(["lmcourse", "train", "--resume", "--out", str(folder.path)])
    try:
        with _kill_as_ctrl_c():
            history = fit(
                prepared.trained,
                prepared.batches,
                steps=prepared.settings["steps"],
                validation=_validation(prepared.texts.validation),
                validate_every=prepared.settings["validate_every"],
                checkpoint=folder.checkpoint,
                checkpoint_every=checkpoint_every,
            )
            folder.finish(prepared.network, history)
    except KeyboardInterrupt:
        _say(f"\nInterrupted. Go on with: {go_on}")
        return INTERRUPTED
    except CheckpointError as error:
        raise UsageError(f"{error} Or train anew with --again.") from None
    except OSError as error:
        _say(
            f"lmcourse train: {folder.path} cannot be written: {error.strerror or error}. Go on with: {go_on}"
        )
        return 1
    _say(history.describe())
    print(f"The model is in {folder.path}. Look at what it has learned:")
    for command in ("evaluate", "generate"):
        print("  " + shlex.join(["lmcourse", command, "--model", str(folder.path)]))
    return 0


def _validation(documents: list[list[int]]) -> Any:
    """Return a function that measures a model in nats per token, and shows what it found."""
    from tqdm import tqdm

    from lmcourse.core import score
    from lmcourse.training import SlidingContext

    def validate(model: "NeuralLanguageModel") -> float:
        nats = score(SlidingContext(model), documents).nats_per_token
        step = int(model.optimizer.iterations)
        tqdm.write(f"step {step:,}: {nats:.4f} nats a token on held-out text", file=sys.stderr)
        return nats

    return validate


@contextlib.contextmanager
def _memory_told_of() -> Iterator[None]:
    """Say in one line that there is too little memory, where TensorFlow notices it."""
    import tensorflow as tf

    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise UsageError(
            "the model and its batches must fit into the memory; give a smaller --preset, --context or --batch-size."
        ) from None


@contextlib.contextmanager
def _kill_as_ctrl_c() -> Iterator[None]:
    """Make of a plain `kill` what Ctrl-C is: `fit` lets the step in hand end, and writes a checkpoint."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _description(prepared: Prepared) -> str:
    settings, texts = prepared.settings, prepared.texts
    return (
        f"{settings['model']} ({settings['preset']}), {prepared.network.count_params():,} parameters, on "
        f"{sum(map(len, texts.train)):,} tokens of {settings['dataset']}; vocabulary {texts.tokenizer.vocab_size:,}"
    )


def _note_other_versions(versions: Mapping[str, str]) -> None:
    from lmcourse.results import installed_versions

    other = [
        f"{package} {versions.get(package)} then, {version} now"
        for package, version in installed_versions().items()
        if versions.get(package) != version
    ]
    if other:
        _say(f"Other versions may give slightly other weights: {'; '.join(other)}.")


def _default_folder(settings: Mapping[str, Any]) -> Path:
    return FOLDER / f"{settings['model']}-{settings['preset']}-{Path(settings['dataset']).stem}"


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given.

    Raises:
        UsageError: if one can be seen to be wrong before anything is loaded.
    """
    given = {name: getattr(args, name) for name in DEFAULTS if getattr(args, name) is not None}
    counts = ("tokens", "context", "steps", "batch_size", "validate_every", "checkpoint_every")
    most = arguments.INT32_MOST
    arguments.check_range(1, most, **{name: getattr(args, name) for name in counts})
    arguments.check_range(0, most, merges=args.merges)
    arguments.check_range(0, 2**32 - 1, seed=args.seed)  # as NumPy's generator takes it
    arguments.check_positive_number(learning_rate=args.learning_rate)
    arguments.check_choice(TOKENIZERS, tokenizer=args.tokenizer)
    check_architecture(given.get("model", DEFAULTS["model"]))
    if "dataset" in given:
        check_dataset(given["dataset"])
        if given["dataset"] not in (FABLEWORLD, *CORPORA):
            given["dataset"] = str(Path(given["dataset"]).resolve())
    return given


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
