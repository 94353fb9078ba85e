"""`lmcourse chat`: a conversation in the terminal, or one turn a line from a pipe."""

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from lmcourse.cli import UsageError
from lmcourse.commands import streamed
from lmcourse.commands.arguments import integer
from lmcourse.commands.models import LoadedModel, load_model
from lmcourse.datasets import DatasetError

MODEL = "smollm2-135m-instruct"

# As the authors of SmolLM2 draw from it: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct
TEMPERATURE, TOP_P = 0.2, 0.9

MAX_TOKENS = 512  # of an answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--model",
        default=MODEL,
        metavar="FILE|NAME",
        help=f"a .gguf file with a chat template, or a published model (default: {MODEL})",
    )
    parser.add_argument(
        "--system", metavar="TEXT", help="what the model is told first (default: the model's own)"
    )
    parser.add_argument(
        "--context",
        type=integer,
        metavar="N",
        help="the most tokens of conversation that it reads (default: the model's)",
    )
    streamed.add_sampling_arguments(parser, temperature=TEMPERATURE, top_p=TOP_P, max_tokens=MAX_TOKENS)


def run(args: argparse.Namespace) -> int:
    """Talk until the input ends; 130 after Ctrl-C, 141 if nobody reads the answers any more."""
    settings = streamed.sampling_settings(args)
    if args.context is not None and args.context < 1:
        raise UsageError(f"--context must be at least 1; got {args.context}.")
    try:
        loaded = load_model(args.model)
    except DatasetError as error:
        print(f"lmcourse chat: {error}", file=sys.stderr)
        return 1
    streamed.check_top_k(args.top_k, loaded.model.vocab_size)
    conversation = Conversation(
        loaded, args.system, context=args.context, max_tokens=args.max_tokens, **settings
    )
    try:
        return _talk(conversation)
    except BrokenPipeError:
        return streamed.close_output()


class TooLong(ValueError):
    """A message is too long for the model to read."""


class Conversation:
    """What was said so far, and what the model says next.

    Args:
        loaded: a model with a chat template.
        system: what it is told first; None is what the template says.
        context: the most tokens that it reads, its answer included; default: what the model can.
        max_tokens: the longest answer; default: 512, or half of the context.
        **settings: of `lmcourse.generation.stream`. Each answer has a seed of its own that follows from `seed`.

    Attributes:
        messages: the turns that the model still sees.

    Raises:
        UsageError: if the model has no chat template, cannot read so much, or an answer has no room.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        system: str | None = None,
        *,
        context: int | None = None,
        max_tokens: int | None = None,
        **settings: Any,
    ):
        if loaded.template is None:
            raise UsageError(
                f"{loaded.name} was not trained on conversations: it has no chat template. Use `lmcourse generate`."
            )
        if None not in (context, loaded.context) and context > loaded.context:
            raise UsageError(f"--context must be at most the model's {loaded.context}; got {context}.")
        self._loaded, self._template, self._settings = loaded, loaded.template, settings
        self._context = context or loaded.context
        self._room = max_tokens or MAX_TOKENS
        if self._context is not None:
            self._room = min(self._room, max(1, self._context // 2))
            if max_tokens is not None and self._room < max_tokens:
                raise UsageError(
                    f"--max-tokens must leave half of the context of {self._context} tokens for what is said before; "
                    f"got {max_tokens}."
                )
        self.messages: list[dict[str, str]] = []
        if system is not None:
            self.messages.append({"role": "system", "content": system})

    def add(self, text: str) -> int:
        """Take what the user says, and forget the oldest turns if there is no room for all.

        Returns:
            How many turns were forgotten: pairs of a message and its answer.

        Raises:
            TooLong: if there would be no room for this message alone; it is not taken.
        """
        system = [message for message in self.messages if message["role"] == "system"]
        turns = [message for message in self.messages if message["role"] != "system"]
        turns.append({"role": "user", "content": text})
        forgotten = 0
        while not self._fits([*system, *turns]):
            if len(turns) == 1:
                raise TooLong(
                    f"This message is too long: the model reads {self._context} tokens, {self._room} of them for its "
                    "answer."
                )
            del turns[:2]  # a message and its answer
            forgotten += 1
        self.messages = [*system, *turns]
        return forgotten

    def answer(self) -> Iterator[str]:
        """Yield the answer piece by piece; as far as it was taken, it becomes a part of the conversation."""
        from lmcourse.generation import stream_text

        model, ids = self._loaded.model, self._ids(self.messages)
        turn = {"role": "assistant", "content": ""}
        seed = self._settings.get("seed")
        settings = {**self._settings, "seed": None if seed is None else seed + len(self.messages)}
        pieces = stream_text(
            model,
            self._loaded.tokenizer,
            ids,
            self._room,
            stop=self._loaded.stop_ids,
            decoder=model.decoder([ids], with_start=False),  # the template writes how a conversation begins
            **settings,
        )
        self.messages.append(turn)
        for piece in pieces:
            turn["content"] += piece
            yield piece

    def _fits(self, messages: list[dict[str, str]]) -> bool:
        return self._context is None or len(self._ids(messages)) + self._room <= self._context

    def _ids(self, messages: list[dict[str, str]]) -> list[int]:
        return self._template.encode(messages, self._loaded.tokenizer)


class AnswerStopped(KeyboardInterrupt):
    """Ctrl-C came while the model spoke."""


def _talk(conversation: Conversation) -> int:
    """Take turns until there is no more input."""
    in_terminal = sys.stdin.isatty()
    if in_terminal:
        with contextlib.suppress(ImportError):  # not on every system: without it the line cannot be edited
            import readline  # noqa: F401
        _note("Ctrl-C stops an answer; Ctrl-D, or Ctrl-C at the prompt, ends.")
    while True:
        try:
            text = input("> " if in_terminal else "")
        except EOFError:
            if in_terminal:
                print()
            return 0
        except KeyboardInterrupt:
            print(flush=True)
            return streamed.INTERRUPTED
        if text.strip():
            _take_turn(conversation, text)


def _take_turn(conversation: Conversation, text: str) -> None:
    try:
        forgotten = conversation.add(text)
    except TooLong as error:
        _note(str(error))
        return
    if forgotten:
        _note(f"The context is full: the oldest {forgotten} of the turns before are forgotten.")
    try:
        with _ctrl_c_stops_the_answer():
            for piece in conversation.answer():
                print(piece, end="", flush=True)
    except AnswerStopped:
        _note("\nStopped.")
        return
    print(flush=True)


@contextlib.contextmanager
def _ctrl_c_stops_the_answer() -> Iterator[None]:
    """Turn Ctrl-C into AnswerStopped, once; a second one, and a plain `kill`, end the command as always."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, previous)
        raise AnswerStopped

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _note(text: str) -> None:
    """Say something that is not part of the conversation."""
    print(text, file=sys.stderr, flush=True)
