r"""Chat templates: how a conversation becomes one text for a model that only continues texts.

A model that was tuned on conversations has seen them written in one form, and answers well only in that form. ChatML,
that of many models, opens each turn with a mark and who speaks, and closes it with another:

    <|im_start|>user
    What is the capital of France?<|im_end|>
    <|im_start|>assistant
    The capital of France is Paris.<|im_end|>

To ask for an answer, the text stops after "assistant" and a line break: the model goes on from there, and its own
`<|im_end|>` says that it is done.

Files carry their template as a program in the language of Jinja. Running programs out of a file of weights is more
than reading it needs, so the programs known here are recognised and written out as code; any other is refused.

Reference: https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Self

from lmcourse.text import Tokenizer
from lmcourse.transformer.gguf import GGUFFile

ROLES = ("system", "user", "assistant")
TEMPLATE_KEY = "tokenizer.chat_template"

Message = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    r"""The form ChatML, with or without a system message that stands where a conversation has none.

    Attributes:
        default_system: the system message of a conversation that does not begin with one, or None for none.
        turn_start: the special token that opens a turn.
        turn_end: the special token that closes one: an answer ends with it.

    Example:
        >>> template = ChatTemplate(default_system="Be brief.")
        >>> print(template.render([{"role": "user", "content": "Hello!"}]), end="")
        <|im_start|>system
        Be brief.<|im_end|>
        <|im_start|>user
        Hello!<|im_end|>
        <|im_start|>assistant
    """

    default_system: str | None = None
    turn_start: str = "<|im_start|>"
    turn_end: str = "<|im_end|>"

    @classmethod
    def from_jinja(cls, template: str) -> Self:
        """Recognise a template written in Jinja.

        Args:
            template: the program as model files carry it.

        Raises:
            ValueError: if it is not one of those known here.
        """
        # Within Jinja's quotes a line break and its escape mean the same, and files have either.
        found = _CHATML.fullmatch(template.replace("\\n", "\n"))
        if found is None:
            raise ValueError(
                "template must be ChatML with or without a default system message, the only one known here; "
                f"got {template!r:.200}. Write the conversation's text yourself."
            )
        return cls(default_system=found["system"])

    def render(self, messages: Sequence[Message], *, ask: bool = True) -> str:
        """Return the conversation as one text.

        To give a model ids, use `encode`: in a text, what a user wrote and the marks between turns look alike.

        Args:
            messages: the turns, each with a "role" ("system", "user" or "assistant") and its "content".
            ask: whether to open the assistant's next turn, so that the model writes it.

        Raises:
            ValueError: if there is no message, or one is not of that form.
        """
        turns = [f"{self.turn_start}{text}{self.turn_end}\n" for text in self._turns(messages)]
        return "".join(turns) + (f"{self.turn_start}{_ASSISTANT}" if ask else "")

    def encode(self, messages: Sequence[Message], tokenizer: Tokenizer, *, ask: bool = True) -> list[int]:
        """Return the ids of the conversation.

        They are those of `render`'s text, except where a message itself spells a special token: that stays text, so
        that nobody can end their turn early and speak as someone else.

        Args:
            messages: the turns; see `render`.
            tokenizer: one that has both marks among its special tokens.
            ask: whether to open the assistant's next turn.

        Raises:
            ValueError: if a message is not of that form, or the tokenizer lacks a mark.
        """
        start, end = (self._mark(tokenizer, token) for token in (self.turn_start, self.turn_end))
        line_break = tokenizer.encode("\n", special="text")
        ids: list[int] = []
        for text in self._turns(messages):
            ids += [start, *tokenizer.encode(text, special="text"), end, *line_break]
        return ids + ([start, *tokenizer.encode(_ASSISTANT, special="text")] if ask else [])

    def stop_id(self, tokenizer: Tokenizer) -> int:
        """Return the id with which an answer ends.

        Raises:
            ValueError: if the tokenizer lacks it.
        """
        return self._mark(tokenizer, self.turn_end)

    def _turns(self, messages: Sequence[Message]) -> list[str]:
        """Return what stands between the marks of each turn."""
        _check_messages(messages)
        turns = [f"{message['role']}\n{message['content']}" for message in messages]
        if self.default_system is not None and messages[0]["role"] != "system":
            turns.insert(0, f"system\n{self.default_system}")
        return turns

    def _mark(self, tokenizer: Tokenizer, token: str) -> int:
        if token not in tokenizer.special_tokens:
            there = ", ".join(tokenizer.special_tokens) or "none"
            raise ValueError(f"tokenizer must have the special token {token!r}; it has {there}.")
        return tokenizer.special_tokens[token]


def read_chat_template(file: GGUFFile) -> ChatTemplate:
    """Return the chat template that a GGUF file carries.

    Raises:
        WeightsFileError: if it carries none, or one that is not known here.
    """
    template = file.value(TEMPLATE_KEY, str)
    try:
        return ChatTemplate.from_jinja(template)
    except ValueError as error:
        raise file.error(f"{TEMPLATE_KEY}: {error}".rstrip(".")) from None


_ASSISTANT = "assistant\n"

_FOR_EACH = "{% for message in messages %}"
_DEFAULT_SYSTEM = (
    "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n",
    r"(?P<system>[^'\\]*)",  # what would end the quotes, or be an escape, is not taken
    "<|im_end|>\n' }}{% endif %}",
)
_REST = (
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CHATML = re.compile(
    f"{re.escape(_FOR_EACH)}(?:{re.escape(_DEFAULT_SYSTEM[0])}{_DEFAULT_SYSTEM[1]}{re.escape(_DEFAULT_SYSTEM[2])})?"
    f"{re.escape(_REST)}"
)


def _check_messages(messages: Sequence[Message]) -> None:
    if isinstance(messages, str | Mapping) or not messages:
        raise ValueError(
            f"messages must be a sequence of at least one {{'role': …, 'content': …}}; got {messages!r:.80}."
        )
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise ValueError(f"messages[{i}] must have a 'role' and a 'content'; got {message!r:.80}.")
        if message["role"] not in ROLES:
            raise ValueError(
                f"the role of messages[{i}] must be one of {ROLES}; got {message['role']!r:.40}."
            )
        if not isinstance(message["content"], str):
            raise ValueError(
                f"the content of messages[{i}] must be a string; got {type(message['content']).__name__}."
            )
