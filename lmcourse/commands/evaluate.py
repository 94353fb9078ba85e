"""`lmcourse evaluate`: how well a model predicts text that it was not trained on."""

import argparse
import dataclasses
import json
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from lmcourse.cli import UsageError
from lmcourse.commands.arguments import check_range, integer
from lmcourse.commands.models import MODEL_HELP, LoadedModel, documents_ids, load_model
from lmcourse.commands.texts import CORPORA, FABLEWORLD, HeldOutTexts, check_dataset, held_out_texts
from lmcourse.core import (
    NATS_PER_BIT,
    Score,
    excess_bits_by_label,
    excess_bits_per_token,
    token_surprisals_nats,
)
from lmcourse.datasets import DatasetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The most tokens that a published model reads at once here: attention over all it could read takes gigabytes.
WINDOW = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--model", required=True, metavar="DIR|FILE|NAME", help=MODEL_HELP)
    names = ", ".join((FABLEWORLD, *CORPORA))
    parser.add_argument(
        "--dataset",
        metavar="NAME|FILE",
        help=f"{names}, or a text file (default: what the run was trained on)",
    )
    parser.add_argument(
        "--documents",
        type=integer,
        metavar="N",
        help="only the first so many (default: all that is held out)",
    )
    parser.add_argument(
        "--context",
        type=integer,
        metavar="N",
        help=f"the most tokens read at once (default: the model's, at most {WINDOW})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(args: argparse.Namespace) -> int:
    """Print the measures; 1 if data is not there."""
    check_range(1, None, documents=args.documents, context=args.context)
    if args.dataset is not None:
        check_dataset(args.dataset)
    try:
        loaded = load_model(args.model)
        dataset = args.dataset or (loaded.record or {}).get("settings", {}).get("dataset")
        if dataset is None:
            raise UsageError("--dataset must be given for a model that was not trained here.")
        texts = held_out_texts(dataset, args.documents)
        _note_other_text(loaded, dataset, texts)
        measures = evaluate(loaded, texts, args.context)
    except DatasetError as error:
        print(f"lmcourse evaluate: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({"model": args.model, "dataset": dataset, **as_json(measures)}, indent=2))
    else:
        _print_tables(measures, f"{args.model} on {dataset}")
    return 0


@dataclasses.dataclass(frozen=True)
class Phenomenon:
    """What a model does at the tokens of one label.

    Attributes:
        tokens: how many there are.
        floor_bits: what the source itself pays for one of them, on average.
        model_bits: what the model pays.
        excess_share: what they add to the excess per token of the whole text.
    """

    tokens: int
    floor_bits: float
    model_bits: float
    excess_share: float


@dataclasses.dataclass(frozen=True)
class Measures:
    """How well a model predicts a text.

    Attributes:
        score: of the whole text.
        floor: the source's own score of it, in canonical tokens; None where nobody knows the source.
        by_label: for each phenomenon of Fableworld; empty where the model has other tokens.
        data_sha256: of the text.
    """

    score: Score
    floor: Score | None
    by_label: dict[str, Phenomenon]
    data_sha256: str


def evaluate(loaded: LoadedModel, texts: HeldOutTexts, context: int | None = None) -> Measures:
    """Measure a model on a text.

    Args:
        loaded: the model.
        texts: what to measure it on.
        context: the most tokens that it reads at once. A longer document is read through a window that slides over
            it by half; see `SlidingContext`.

    Raises:
        UsageError: if the tokenizer cannot spell the text, or context is more than the model can read.
    """
    from lmcourse.training import SlidingContext

    if None not in (context, loaded.context) and context > loaded.context:
        raise UsageError(f"--context must be at most the model's {loaded.context}; got {context}.")
    if context is None and loaded.context is not None:
        context = min(loaded.context, WINDOW)
    documents = documents_ids(loaded.tokenizer, texts.documents)
    model = SlidingContext(loaded.model, context)
    nats = token_surprisals_nats(model, documents)
    score = Score(float(sum(part.sum() for part in nats)), sum(map(len, documents)), texts.utf8_bytes)
    if not texts.stories:
        return Measures(score, None, {}, texts.sha256)
    from lmcourse.datasets import fableworld

    oracle = fableworld.FableOracle()
    canonical = [oracle.tokenizer.ids_of(story.tokens) for story in texts.stories]
    floor_nats = token_surprisals_nats(oracle, canonical)
    floor = Score(float(sum(part.sum() for part in floor_nats)), sum(map(len, canonical)))
    by_label = {}
    if documents == canonical:
        by_label = _by_label(nats, floor_nats, [story.labels for story in texts.stories])
    return Measures(score, floor, by_label, texts.sha256)


def _by_label(
    nats: "list[NDArray[np.float64]]", floor_nats: "list[NDArray[np.float64]]", labels: list[tuple[str, ...]]
) -> dict[str, Phenomenon]:
    """Return what happens at each label's tokens, the largest part of the excess first."""
    shares = excess_bits_by_label(nats, floor_nats, labels)
    model, floor = (np.concatenate(parts) / NATS_PER_BIT for parts in (nats, floor_nats))
    names = np.concatenate([np.asarray(part) for part in labels])
    return {
        label: Phenomenon(
            int((names == label).sum()),
            float(floor[names == label].mean()),
            float(model[names == label].mean()),
            share,
        )
        for label, share in sorted(shares.items(), key=lambda item: -item[1])
    }


def as_json(measures: Measures) -> dict[str, Any]:
    """Return the measures as JSON can hold them, units in the names; what is infinite is written as a string."""
    score = measures.score
    numbers: dict[str, Any] = {
        "tokens": score.tokens,
        "utf8_bytes": score.utf8_bytes,
        "perplexity": score.perplexity,
        "bits_per_token": score.bits_per_token,
        "bits_per_byte": score.bits_per_byte,
    }
    if measures.floor is not None:
        numbers["canonical_tokens"] = measures.floor.tokens
        numbers["floor_bits_per_canonical_token"] = measures.floor.bits_per_token
        numbers["excess_bits_per_canonical_token"] = excess_bits_per_token(score, measures.floor)
    return {
        **{name: value if math.isfinite(value) else str(value) for name, value in numbers.items()},
        "by_phenomenon": {
            label: {
                "tokens": found.tokens,
                "floor_bits_per_token": found.floor_bits,
                "bits_per_token": found.model_bits,
                "excess_bits_per_token_of_all": found.excess_share,
            }
            for label, found in measures.by_label.items()
        },
        "data_sha256": measures.data_sha256,
    }


def _print_tables(measures: Measures, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console, score = Console(), measures.score
    console.print(title, style="bold", soft_wrap=True)
    whole = Table(show_header=False, box=None, pad_edge=False)
    rows = [
        ("tokens", f"{score.tokens:,}"),
        ("bytes of UTF-8", f"{score.utf8_bytes:,}"),
        ("perplexity a token", f"{score.perplexity:,.4g}"),
        ("bits a token", f"{score.bits_per_token:.4f}"),
        ("bits a byte", f"{score.bits_per_byte:.4f}"),
    ]
    if measures.floor is not None:
        rows += [
            ("floor, bits a canonical token", f"{measures.floor.bits_per_token:.4f}"),
            ("excess over it", f"{excess_bits_per_token(score, measures.floor):.4f}"),
        ]
    for name, value in rows:
        whole.add_row(name, value)
    console.print(whole)
    if not measures.by_label:
        return
    console.print("\nBits a token, by phenomenon", style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("at tokens of")
    for heading in ("tokens", "floor", "model", "excess", "excess, shared by all tokens"):
        table.add_column(heading, justify="right")
    for label, found in measures.by_label.items():
        excess = found.model_bits - found.floor_bits
        numbers = (found.floor_bits, found.model_bits, excess, found.excess_share)
        table.add_row(label, f"{found.tokens:,}", *(f"{number:.3f}" for number in numbers))
    console.print(table)


def _note_other_text(loaded: LoadedModel, dataset: str, texts: HeldOutTexts) -> None:
    """Say so if what is held out now is not what was when the model was trained."""
    record = loaded.record or {}
    then = record.get("data_sha256", {}).get("held_out")
    if record.get("settings", {}).get("dataset") == dataset and then not in (None, texts.sha256):
        print(
            f"lmcourse evaluate: {dataset} is not the text that it was when the model was trained, which may have seen "
            "parts of what is measured here.",
            file=sys.stderr,
        )
