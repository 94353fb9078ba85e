"""Chapter 2's layers and models under the contract of all layers and models."""

import numpy as np
from contract import Case, LanguageModelContract, LayerContract, floats, ids

from lmcourse.recurrent import (
    GRU,
    LSTM,
    CarriedState,
    RecurrentLanguageModel,
    SimpleRNN,
    WindowLanguageModel,
)

V = 11
ROWS = ids(2, 5, below=V)
EMPTY = (([np.zeros((0, 5), "int32")], "at least one row and one token"),)


def by_mask(real):
    return {"mask": real}


class TestLayers(LayerContract):
    cases = (
        Case("SimpleRNN", lambda: SimpleRNN(4), [floats(2, 5, 3)], causal=True, masked=by_mask),
        Case("LSTM", lambda: LSTM(4), [floats(2, 5, 3)], causal=True, masked=by_mask),
        Case("GRU", lambda: GRU(4), [floats(2, 5, 3)], causal=True, masked=by_mask),
        Case(
            "GRU, before", lambda: GRU(4, reset_after=False), [floats(2, 5, 3)], causal=True, masked=by_mask
        ),
        Case("LSTM, last state", lambda: LSTM(4, return_state=True), [floats(2, 5, 3)], masked=by_mask),
    )


class TestModels(LanguageModelContract):
    cases = (
        Case("window", lambda: WindowLanguageModel(V, 3, 4, 5), [ROWS], causal=True, wrong=EMPTY),
        Case(
            "simple, two layers",
            lambda: RecurrentLanguageModel(V, layer="simple", units=6, layers=2),
            [ROWS],
            causal=True,
            wrong=EMPTY,
        ),
        Case(
            "LSTM, tied",
            lambda: RecurrentLanguageModel(V, units=6, embedding_dim=4, tied=True, start_id=2),
            [ROWS],
            causal=True,
        ),
        Case(
            "carried state",
            lambda: CarriedState(RecurrentLanguageModel(V, units=6), batch_size=2),
            [ROWS],
            causal=True,
            stateful=True,
        ),
    )
