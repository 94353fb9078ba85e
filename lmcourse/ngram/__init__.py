"""Chapter 1: language models by counting."""

from lmcourse.ngram.arpa import ArpaError, read_arpa, write_arpa
from lmcourse.ngram.counts import NgramCounts, NgramTable
from lmcourse.ngram.model import NgramModel
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
    "read_arpa",
    "write_arpa",
]
