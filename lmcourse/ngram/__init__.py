"""Chapter 1: language models by counting."""

from lmcourse.ngram.arpa import ArpaError, read_arpa, write_arpa
from lmcourse.ngram.counts import NgramCounts, NgramTable
from lmcourse.ngram.model import NgramModel
from lmcourse.ngram.shannon import GuessingGame, entropy_bounds_bits, guess_ranks
from lmcourse.ngram.smoothing import (
    SMOOTHINGS,
    AbsoluteDiscounting,
    AddK,
    JelinekMercer,
    KneserNey,
    MaximumLikelihood,
    ModifiedKneserNey,
    Smoothing,
    StupidBackoff,
    WittenBell,
    continuation_counts,
    counts_of_counts,
)

__all__ = [
    "SMOOTHINGS",
    "AbsoluteDiscounting",
    "AddK",
    "ArpaError",
    "GuessingGame",
    "JelinekMercer",
    "KneserNey",
    "MaximumLikelihood",
    "ModifiedKneserNey",
    "NgramCounts",
    "NgramModel",
    "NgramTable",
    "Smoothing",
    "StupidBackoff",
    "WittenBell",
    "continuation_counts",
    "counts_of_counts",
    "entropy_bounds_bits",
    "guess_ranks",
    "read_arpa",
    "write_arpa",
]
