"""The parameters of recurrent networks, by formula.

Letters: `V` vocabulary, `E` width of the embedding, `D` width of a layer's input, `H` units.
"""

from collections.abc import Sequence

from lmcourse.core import check_positive
from lmcourse.recurrent.layers import layer_named


def layer_parameters(kind: str, width: int, units: int, *, reset_after: bool = True) -> int:
    """Return the number of weights of one recurrent layer.

    Each gate has a matrix from the input, one from the state before, and a bias: H (D + H + 1). A simple RNN has
    one such block, a GRU three, an LSTM four. A GRU that resets after the product has a second bias for each gate.

    Args:
        kind: "simple", "gru" or "lstm".
        width: D.
        units: H.
        reset_after: of a GRU.

    Raises:
        ValueError: if there is no such layer, or a number is less than 1.

    Example:
        >>> layer_parameters("lstm", width=128, units=256)  # 4 · 256 · (128 + 256 + 1)
        394240
    """
    check_positive(width=width, units=units)
    biases = 2 if kind == "gru" and reset_after else 1
    return layer_named(kind).gates * units * (width + units + biases)


def language_model_parameters(
    vocab_size: int, embedding_dim: int, units: Sequence[int], *, layer: str = "lstm", tied: bool = False
) -> dict[str, int]:
    """Return the number of parameters of each part of a recurrent language model.

    Args:
        vocab_size: V.
        embedding_dim: E.
        units: H of each recurrent layer, from the bottom up.
        layer: "simple", "gru" or "lstm".
        tied: whether the logits are weighed by the embedding; see `RecurrentLanguageModel`.

    Returns:
        Numbers by part, in the order in which a token passes them; their sum is the model's `count_params()`.

    Raises:
        ValueError: if a number is less than 1, or there is no recurrent layer.

    Example:
        >>> parts = language_model_parameters(10_000, 128, [256, 256])
        >>> parts
        {'embedding': 1280000, 'lstm_1': 394240, 'lstm_2': 525312, 'to_logits': 2570000}
        >>> sum(parts.values())
        4769552
    """
    if not units:
        raise ValueError(f"units must have one number for each recurrent layer; got {units}.")
    check_positive(vocab_size=vocab_size, embedding_dim=embedding_dim)
    parts = {"embedding": vocab_size * embedding_dim}  # a row for each token, no bias
    for i, (width, height) in enumerate(zip([embedding_dim, *units], units, strict=False), start=1):
        parts[f"{layer}_{i}"] = layer_parameters(layer, width, height)
    if not tied:
        return {**parts, "to_logits": (units[-1] + 1) * vocab_size}
    if units[-1] != embedding_dim:
        parts["to_embedding"] = units[-1] * embedding_dim
    return {**parts, "logits_bias": vocab_size}
