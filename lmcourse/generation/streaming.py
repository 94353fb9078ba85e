"""Text as it is generated: each piece as soon as nothing that comes can change it."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from lmcourse.core import LanguageModel
from lmcourse.generation.sampling import stream
from lmcourse.text import Tokenizer

# How decoders show bytes that are not UTF-8, or not yet: a character's first bytes may be a token of their own.
REPLACEMENT = "\ufffd"


def stream_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    max_new_tokens: int,
    *,
    stop: Collection[int] = (),
    stop_texts: Sequence[str] = (),
    **settings: Any,
) -> Iterator[str]:
    """Continue a prompt and yield the text of the continuation piece by piece.

    Args:
        model: any language model.
        tokenizer: its tokenizer.
        prompt: ids.
        max_new_tokens: how many tokens to add at most.
        stop: ids that end the text; see `stream`.
        stop_texts: texts that end it, wherever they begin; they are not part of it.
        **settings: the other arguments of `stream`. They are checked at the call.

    Yields:
        Pieces that are not empty. A character of several tokens comes when it is complete.

    Raises:
        ValueError: as `stream`, or if a stop text is empty.

    Example:
        >>> import numpy as np
        >>> from lmcourse.text import BPETokenizer
        >>> tokenizer = BPETokenizer.train([], merges=0)  # every byte is a token
        >>> class Says(LanguageModel):
        ...     vocab_size = tokenizer.vocab_size
        ...     def token_log_probs(self, ids, mask=None):
        ...         raise NotImplementedError
        ...     def next_log_probs(self, prefixes):
        ...         text = tokenizer.encode("été!")
        ...         return np.log(np.eye(self.vocab_size)[[text[len(prefix)] for prefix in prefixes]] + 1e-9)
        >>> list(stream_text(Says(), tokenizer, [], 6, greedy=True))
        ['é', 't', 'é', '!']
    """
    text = TextStream(tokenizer, prompt, stop_texts)
    tokens = stream(model, prompt, max_new_tokens, stop=stop, **settings)
    return _pieces(text, tokens)


class TextStream:
    """The text of a growing sequence of ids.

    Args:
        tokenizer: of the ids.
        prompt: the ids that stand before; their text is not part of what is given.
        stop_texts: texts at which it ends.

    Attributes:
        stopped: whether a stop text has come. What would follow is not given.

    Raises:
        ValueError: if a stop text is empty.

    Example:
        >>> from lmcourse.text import CharTokenizer
        >>> text = TextStream(CharTokenizer("abc."), stop_texts=[".."])
        >>> [text.push(token) for token in (0, 3, 1, 3, 3)], text.stopped
        (['a', '', '.b', '', ''], True)
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = (), stop_texts: Sequence[str] = ()):
        if "" in stop_texts:
            raise ValueError("stop_texts must not hold the empty text, which is everywhere.")
        self._tokenizer, self._ids, self._stop_texts = tokenizer, list(prompt), tuple(stop_texts)
        self._prompt = tokenizer.decode(self._ids)
        self._given = 0  # characters after the prompt
        self.stopped = False

    def push(self, token: int) -> str:
        """Take one more id, and return the text that is certain now; it may be empty."""
        self._ids.append(token)
        return self._give(self._text().rstrip(REPLACEMENT), is_last=False)

    def finish(self) -> str:
        """Return what was held back, since nothing follows."""
        return self._give(self._text(), is_last=True)

    def _text(self) -> str:
        return self._tokenizer.decode(self._ids)[len(self._prompt) :]

    def _give(self, text: str, *, is_last: bool) -> str:
        if self.stopped:
            return ""
        ends = [place for stop in self._stop_texts if (place := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            text = text[: min(ends)]
        elif not is_last:
            text = text[: len(text) - self._begun_stop(text)]
        piece = text[self._given :]
        self._given += len(piece)
        return piece

    def _begun_stop(self, text: str) -> int:
        """Return how many characters at the end may be the beginning of a stop text."""
        longest = max(map(len, self._stop_texts), default=1) - 1
        sizes = range(min(longest, len(text)), 0, -1)
        return next((n for n in sizes if any(s.startswith(text[-n:]) for s in self._stop_texts)), 0)


def _pieces(text: TextStream, tokens: Iterator[int]) -> Iterator[str]:
    for token in tokens:
        if piece := text.push(token):
            yield piece
        if text.stopped:
            return
    if piece := text.finish():
        yield piece
