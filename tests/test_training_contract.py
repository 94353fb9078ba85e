"""The base of neural language models, with a small model on it, keeps the contract that every model keeps."""

from contract import Case, LanguageModelContract, ids
from small_models import Bigram, CausalBag


class TestModels(LanguageModelContract):
    cases = (
        Case(
            "a table of bigrams",
            lambda: Bigram(11),
            [ids(2, 6, below=11)],
            causal=True,
            wrong=[([ids(2, 6, below=11) + 8], "vocab_size")],
        ),
        Case(
            "a bag of tokens",
            lambda: CausalBag(11, units=8),
            [ids(2, 6, below=11)],
            causal=True,
            bad_ranks=False,
        ),
    )
