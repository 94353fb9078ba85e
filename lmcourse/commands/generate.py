"""`lmcourse generate`: continue a text, piece by piece as the model writes it."""

import argparse
import itertools
import sys

from lmcourse.cli import UsageError
from lmcourse.commands import streamed
from lmcourse.commands.models import MODEL_HELP, load_model, prompt_ids
from lmcourse.datasets import DatasetError

MAX_TOKENS = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--model", required=True, metavar="DIR|FILE|NAME", help=MODEL_HELP)
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what to continue (default: nothing)")
    streamed.add_sampling_arguments(parser, temperature=1.0, top_p=None, max_tokens=MAX_TOKENS)
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end before this; may be given several times",
    )


def run(args: argparse.Namespace) -> int:
    """Write the prompt and what follows; 130 if interrupted, 141 if nobody reads any more."""
    settings = streamed.sampling_settings(args)
    if "" in args.stop:
        raise UsageError("--stop must be a text; got an empty one.")
    try:
        loaded = load_model(args.model)
    except DatasetError as error:
        print(f"lmcourse generate: {error}", file=sys.stderr)
        return 1
    from lmcourse.generation import stream_text

    streamed.check_top_k(args.top_k, loaded.model.vocab_size)
    prompt = prompt_ids(loaded.tokenizer, args.prompt, "--prompt")
    most = streamed.room_for(len(prompt), loaded.context, args.max_tokens, MAX_TOKENS)
    try:
        pieces = stream_text(
            loaded.model,
            loaded.tokenizer,
            prompt,
            most,
            stop=loaded.stop_ids,
            stop_texts=args.stop,
            **settings,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    return streamed.write_out(itertools.chain([loaded.tokenizer.decode(prompt)], pieces))
