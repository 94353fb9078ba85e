"""What multi-head attention takes: its parameters and its floating-point operations, by formula.

Letters: `T` queries, `S` keys, `D` width, `H` heads, `G` heads of keys and values, `K` width of a head's keys, `U`
width of its values.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class AttentionSize:
    """The sizes of a `MultiHeadAttention` layer, and what follows from them.

    Attributes:
        width: D, of the queries.
        num_heads: H.
        key_dim: K.
        value_dim: U; K by default.
        num_kv_heads: G; H by default.
        source_width: of what keys and values are made from; D by default.
        output_dim: of the result; D by default.
        use_bias: whether the projections have biases.

    Example:
        The layer of the paper's base model, and one whose heads are each as wide as the model:

        >>> AttentionSize(512, num_heads=8, key_dim=64).parameters
        1050624
        >>> AttentionSize(512, num_heads=8, key_dim=512).parameters
        8401408
    """

    width: int
    num_heads: int
    key_dim: int
    value_dim: int | None = None
    num_kv_heads: int | None = None
    source_width: int | None = None
    output_dim: int | None = None
    use_bias: bool = True

    def __post_init__(self):
        sizes = dataclasses.asdict(self) | {"use_bias": None}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1; got {size}.")

    @property
    def parameters_by_part(self) -> dict[str, int]:
        """The parameters of each projection: a matrix, and a bias for each number it gives."""
        _, source, kv_heads, value_dim, output = self._sizes
        bias = int(self.use_bias)
        return {
            "query": (self.width + bias) * self.num_heads * self.key_dim,
            "key": (source + bias) * kv_heads * self.key_dim,
            "value": (source + bias) * kv_heads * value_dim,
            "output": (self.num_heads * value_dim + bias) * output,
        }

    @property
    def parameters(self) -> int:
        """The parameters in all; the lengths play no part."""
        return sum(self.parameters_by_part.values())

    def flops_by_part(self, queries: int, keys: int) -> dict[str, int]:
        """Return the floating-point operations for one row; a multiplication and its addition count as two.

        Biases, the scale, masks and the softmax are left out: they grow with the same lengths, but with no width.

        Args:
            queries: T.
            keys: S.
        """
        _, source, kv_heads, value_dim, output = self._sizes
        return {
            "query": 2 * queries * self.width * self.num_heads * self.key_dim,
            "key": 2 * keys * source * kv_heads * self.key_dim,
            "value": 2 * keys * source * kv_heads * value_dim,
            "scores": 2 * queries * keys * self.num_heads * self.key_dim,
            "mix": 2 * queries * keys * self.num_heads * value_dim,
            "output": 2 * queries * self.num_heads * value_dim * output,
        }

    def flops(self, queries: int, keys: int) -> int:
        """Return the floating-point operations for one row in all; see `flops_by_part`."""
        return sum(self.flops_by_part(queries, keys).values())

    def cached_numbers(self, keys: int) -> int:
        """Return how many numbers of keys and values a decoder keeps for one row: 2 S G K where U = K."""
        _, _, kv_heads, value_dim, _ = self._sizes
        return keys * kv_heads * (self.key_dim + value_dim)

    @property
    def _sizes(self) -> tuple[int, int, int, int, int]:
        """D, the sources' width, G, U and the output's width, with the defaults filled in."""
        return (
            self.width,
            self.source_width or self.width,
            self.num_kv_heads or self.num_heads,
            self.value_dim or self.key_dim,
            self.output_dim or self.width,
        )
