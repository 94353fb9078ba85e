"""Word vectors: learning them from neighbours in text, and asking which words lie close.

Letters for shapes: `N` pairs, `B` rows, `V` vocabulary, `E` width of a vector, `K` negative samples.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import document_ids


@keras.saving.register_keras_serializable(package="lmcourse")
class SkipGram(keras.Model):
    """Vectors from which a word's neighbours in text can be told.

    Each token has two vectors: one as the centre, which is kept, and one as a neighbour. The product of the two
    says how likely a pair is. With negative sampling the model only tells real neighbours from tokens drawn by
    chance; with the full softmax it predicts the neighbour among all V tokens.

    Args:
        vocab_size: V.
        embedding_dim: E.
        negatives: K, how many tokens are drawn for each real neighbour; 0 for the full softmax.
        seed: of the weights.
        **kwargs: what every Keras model takes.

    Raises:
        ValueError: if vocab_size or embedding_dim is less than 1, or negatives less than 0.

    Example:
        >>> model = SkipGram(vocab_size=5, embedding_dim=3).learn([[1, 2, 1, 2], [3, 4, 3, 4]], steps=5, seed=0)
        >>> model.vectors.shape
        (5, 3)

    Reference: Mikolov, Sutskever, Chen, Corrado and Dean 2013, "Distributed representations of words and phrases
    and their compositionality", arXiv:1310.4546, section 2.
    """

    def __init__(
        self, vocab_size: int, embedding_dim: int = 32, *, negatives: int = 5, seed: int = 0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        for name, number in (("vocab_size", vocab_size), ("embedding_dim", embedding_dim)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1; got {number}.")
        if negatives < 0:
            raise ValueError(f"negatives must be at least 0; got {negatives}.")
        self.vocab_size, self.embedding_dim = vocab_size, embedding_dim
        self.negatives, self.seed = negatives, seed
        # As word2vec does: small random centres, neighbours at zero, so that every product begins at zero.
        small = keras.initializers.RandomUniform(-0.5 / embedding_dim, 0.5 / embedding_dim, seed=seed)
        self.centres = keras.layers.Embedding(vocab_size, embedding_dim, small, name="centres")
        self.neighbours = keras.layers.Embedding(vocab_size, embedding_dim, "zeros", name="neighbours")

    def build(self, input_shape: Any = None) -> None:
        """Make the two tables."""
        self.centres.build((None,))
        self.neighbours.build((None, None))
        self.built = True

    def call(self, pairs: tuple[Any, Any], training: bool | None = None) -> Any:
        """Return a score for each centre with each of its candidates.

        Args:
            pairs: the centres, ints (B,), and the candidates of each, ints (B, C).
            training: makes no difference.

        Returns:
            Products of their vectors, (B, C): logits.
        """
        centres, candidates = pairs
        return ops.einsum("be,bce->bc", self.centres(centres), self.neighbours(candidates))

    @property
    def vectors(self) -> NDArray[np.float32]:
        """The tokens' vectors, (V, E)."""
        if not self.built:
            self.build()
        return ops.convert_to_numpy(self.centres.embeddings)

    def learn(
        self,
        documents: Sequence[ArrayLike],
        *,
        window: int = 3,
        steps: int = 1_500,
        batch_size: int = 1_024,
        learning_rate: float = 0.01,
        seed: int = 0,
    ) -> "SkipGram":
        """Learn the vectors from pairs of tokens that stand close in the documents.

        The whole training is one compiled loop per hundred steps; 1,500 steps take a few seconds on one core.

        Args:
            documents: sequences of ids.
            window: the largest distance of a pair, in tokens.
            steps: how many batches.
            batch_size: B, pairs in a batch.
            learning_rate: of Adam, at the beginning; it falls to zero along a line.
            seed: of the pairs' order and the negative samples.

        Returns:
            The model itself.

        Raises:
            ValueError: if the documents have no pair, hold an id outside 0..V-1, or a number is not positive.
        """
        for name, number in (("window", window), ("steps", steps), ("batch_size", batch_size)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1; got {number}.")
        documents = document_ids(documents, self.vocab_size)
        pairs = skipgram_pairs(documents, window)
        counts = np.bincount(pairs[:, 1], minlength=self.vocab_size)
        if not self.built:
            self.build()
        schedule = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, end_learning_rate=0.0)
        optimizer = keras.optimizers.Adam(schedule)
        optimizer.build(self.trainable_variables)
        train = self._training_loop(tf.constant(pairs), noise_distribution(counts), optimizer, batch_size)
        done = 0
        while done < steps:
            now = min(100, steps - done)
            train(tf.constant(now), tf.constant([seed, done]))
            done += now
        return self

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("vocab_size", "embedding_dim", "negatives", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def _training_loop(self, pairs: tf.Tensor, noise: NDArray, optimizer: Any, batch_size: int) -> Any:
        """Return a compiled function that takes so many steps, with random numbers from a seed."""
        cumulative = tf.constant(np.cumsum(noise), tf.float32)

        def draw(seed):
            rows = tf.random.stateless_uniform((batch_size,), seed, maxval=len(pairs), dtype=tf.int32)
            centres, contexts = tf.unstack(tf.gather(pairs, rows), axis=1)
            cuts = tf.random.stateless_uniform((batch_size * self.negatives,), [seed[0] + 2**30, seed[1]])
            drawn = tf.minimum(tf.searchsorted(cumulative, cuts, side="right"), self.vocab_size - 1)
            return centres, contexts, tf.reshape(drawn, (batch_size, self.negatives))

        @tf.function
        def train(steps, seed):
            for step in tf.range(steps):
                centres, contexts, negatives = draw(tf.stack([seed[0], seed[1] + step]))
                with tf.GradientTape() as tape:
                    loss = self._loss(centres, contexts, negatives)
                gradients = tape.gradient(loss, [weight.value for weight in self.trainable_variables])
                optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients])

        return train

    def _loss(self, centres: Any, contexts: Any, negatives: Any) -> Any:
        """Return the mean loss of pairs: equation 4 of the paper, or the full softmax's cross-entropy."""
        if not self.negatives:
            logits = ops.matmul(
                self.centres(centres), ops.transpose(self.neighbours.embeddings.value)
            )  # (B, V)
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(contexts, logits))
        logits = self((centres, tf.concat([contexts[:, None], negatives], axis=1)))  # (B, 1 + K)
        real = tf.concat([tf.ones_like(logits[:, :1]), tf.zeros_like(logits[:, 1:])], axis=1)
        each = tf.nn.sigmoid_cross_entropy_with_logits(real, logits)
        return tf.reduce_mean(tf.reduce_sum(each, axis=1))


def skipgram_pairs(documents: Sequence[ArrayLike], window: int) -> NDArray[np.int32]:
    """Return all pairs of a token and one that stands at most `window` tokens away in the same document.

    Args:
        documents: sequences of ids.
        window: the largest distance, at least 1.

    Returns:
        Pairs (centre, neighbour), int32 (N, 2); each pair is there both ways.

    Raises:
        ValueError: if there is no pair, or window is less than 1.

    Example:
        >>> skipgram_pairs([[7, 8, 9]], window=1).tolist()
        [[7, 8], [8, 9], [8, 7], [9, 8]]
    """
    if window < 1:
        raise ValueError(f"window must be at least 1; got {window}.")
    rows = document_ids(documents)
    tokens = np.concatenate([np.empty(0, np.int64), *rows])
    document = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    found = []
    for distance in range(1, window + 1):
        together = document[distance:] == document[:-distance]
        pair = np.stack([tokens[:-distance][together], tokens[distance:][together]], axis=1)
        found += [pair, pair[:, ::-1]]
    pairs = np.concatenate(found).astype(np.int32)
    if not len(pairs):
        raise ValueError("documents must hold at least one pair of tokens; got none of two tokens or more.")
    return pairs


def noise_distribution(counts: ArrayLike, power: float = 0.75) -> NDArray[np.float64]:
    """Return the probabilities that negative samples are drawn with: counts to the power of 3/4.

    Rare tokens are drawn more often than they occur, so that the model has to tell them from real neighbours too.

    Args:
        counts: how often each token occurs, (V,).
        power: 1 is the tokens' own distribution, 0 the uniform one.

    Raises:
        ValueError: if no count is positive, or one is negative.

    Example:
        >>> noise_distribution([16, 1]).round(3).tolist()  # 8 : 1
        [0.889, 0.111]

    Reference: Mikolov et al. 2013, arXiv:1310.4546, section 2.2.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not counts.sum() > 0 or counts.min() < 0:
        raise ValueError(f"counts must be non-negative numbers (V,), not all zero; got shape {counts.shape}.")
    weights = np.where(counts > 0, counts**power, 0.0)
    return weights / weights.sum()


def cosine_similarities(vectors: ArrayLike) -> NDArray[np.float64]:
    """Return the cosine of the angle between each two vectors.

    Args:
        vectors: floats of shape (V, E).

    Returns:
        Numbers from -1 to 1, (V, V); 0 where a vector is zero.

    Raises:
        ValueError: if vectors is not (V, E).

    Example:
        >>> cosine_similarities([[2.0, 0.0], [3.0, 3.0]]).round(4).tolist()
        [[1.0, 0.7071], [0.7071, 1.0]]
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2:
        raise ValueError(f"vectors must have shape (V, E); got {vectors.shape}.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return directions @ directions.T


def neighbours(vectors: ArrayLike, token: int, count: int = 5) -> list[tuple[int, float]]:
    """Return the tokens whose vectors point most nearly in the direction of a token's, the closest first.

    Args:
        vectors: floats of shape (V, E), as `SkipGram.vectors` or a model's embedding.
        token: an id.
        count: how many.

    Returns:
        Pairs of an id and its cosine; the token itself is left out.

    Raises:
        ValueError: if the token is not an id of the vectors, or count is less than 1.

    Example:
        >>> neighbours([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]], token=0, count=1)[0][0]
        2
    """
    vectors = np.asarray(vectors)
    if not 0 <= token < len(vectors):
        raise ValueError(f"token must be between 0 and V - 1 = {len(vectors) - 1}; got {token}.")
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}.")
    cosines = cosine_similarities(vectors)[token]
    order = np.argsort(-cosines, kind="stable")
    return [(int(other), float(cosines[other])) for other in order if other != token][:count]


def mean_rank(vectors: ArrayLike, groups: Sequence[Sequence[int]]) -> float:
    """Return how far up a token's neighbours the other tokens of its group stand, on average.

    Args:
        vectors: floats of shape (V, E).
        groups: sequences of ids that belong together (the names; the numbers), each of at least two.

    Returns:
        The mean over groups, tokens and the others of the token's group of (rank - 1) / (V - 2), where the closest
        of the V - 1 other tokens has rank 1. Chance gives 1/2; groups of n in which each token's closest n - 1 are
        the others give the least, (n - 2) / 2 / (V - 2).

    Raises:
        ValueError: if there is no group of two.

    Example:
        >>> mean_rank([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]], [[0, 1]])
        0.0
    """
    if not groups or min(len(set(group)) for group in groups) < 2:
        raise ValueError(f"groups must be sequences of at least two ids; got {groups}.")
    cosines = cosine_similarities(vectors)
    np.fill_diagonal(cosines, np.inf)
    ranks = (-cosines).argsort(axis=1).argsort(axis=1) - 1  # (V, V): -1 on the diagonal, 0 for the closest
    found = [ranks[a, b] for group in groups for a in set(group) for b in set(group) if a != b]
    return float(np.mean(found)) / (len(cosines) - 2)
