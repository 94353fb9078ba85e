"""The tests of chapter 3's exercises.

Letters for shapes: `B` rows, `T` queries, `S` keys, `H` heads, `G` heads of keys, `K` head width, `V` value width.
"""

import numpy as np

from lmcourse.grading import assert_close, assert_distribution, assert_equal, assert_shape, exercise
from lmcourse.grading.assertions import CheckFailure


def _random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def _softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _attend(query, key, value):
    """The output for one head of one row, without a mask."""
    return _softmax(query @ key.T / np.sqrt(query.shape[-1])) @ value


def _are(answer, names):
    """Return what the answer gave, if it is one thing for each name."""
    if not isinstance(answer, tuple | list):
        raise CheckFailure(f"({', '.join(names)})", f"one {type(answer).__name__}")
    if len(answer) != len(names):
        raise CheckFailure(f"({', '.join(names)})", f"{len(answer)} things")
    return [np.asarray(part) for part in answer]


def _pair(answer):
    return _are(answer, ("output", "weights"))


SCORES = _random(2, 3, 4)
MASK = np.array([[True, False, True, True], [True, True, False, False], [False, True, True, True]])


@exercise(
    "3.1",
    points=0.5,
    hint="what the mask forbids must get exactly 0, and what it allows more than that: True is where "
    "attending is allowed, and a score of 0 is no weight of 0, for exp 0 = 1.",
)
def test_forbidden_keys_get_exactly_nothing(masked_softmax):
    weights = masked_softmax(SCORES[0].copy(), MASK.copy())
    assert_shape(weights, (3, 4), "the weights")
    assert_equal(np.asarray(weights) > 0, MASK, "where the weights are above 0")


@exercise(
    "3.1",
    points=0.5,
    hint="the weights of each query must sum to one over its keys, with a mask too: along which axis, and "
    "before or after the mask, do you normalise?",
)
def test_weights_sum_to_one_over_the_keys(masked_softmax):
    mask = np.stack([MASK, np.ones((3, 4), dtype=bool)])
    weights = masked_softmax(SCORES.copy(), mask)
    assert_shape(weights, (2, 3, 4), "the weights")
    assert_distribution(weights, "the weights")


@exercise(
    "3.1",
    points=0.25,
    hint="a key whose score is higher by ln 2 gets twice the weight, whichever the scores are.",
)
def test_weights_are_in_proportion_to_the_exponentials(masked_softmax):
    scores = np.log(np.array([[1.0, 2.0, 5.0, 9.0], [3.0, 0.5, 4.0, 0.5]]))
    mask = np.array([[True, True, True, False], [True, True, True, True]])
    expected = [[1 / 8, 2 / 8, 5 / 8, 0], [3 / 8, 1 / 16, 4 / 8, 1 / 16]]
    assert_close(masked_softmax(scores, mask), expected, "the weights")


@exercise(
    "3.1",
    points=0.25,
    hint="exp 1000 is no float, and a sum of exponentials that are all 0 divides by nothing. A softmax may "
    "be shifted: what did you subtract from the scores?",
)
def test_scores_may_be_of_any_size(masked_softmax):
    for shift in (0.0, 1000.0, -1000.0):
        weights = masked_softmax(np.array([[np.log(3), 0.0]]) + shift, np.array([[True, True]]))
        assert_close(weights, [[0.75, 0.25]], f"the weights of scores near {shift:g}")


@exercise(
    "3.1",
    points=0.25,
    hint="each row has a maximum of its own: where the highest score of *all* queries is subtracted, a row that "
    "lies 1,000 below it has nothing left but zeros.",
)
def test_each_query_is_shifted_by_its_own_maximum(masked_softmax):
    scores = np.array([[np.log(3), 0.0], [2000.0, 2000.0], [-5000.0, np.log(3) - 5000.0]])
    expected = np.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]])
    mask = np.ones((3, 2), dtype=bool)
    assert_close(masked_softmax(scores, mask), expected, "the weights of rows thousands apart")
    batch = np.stack([scores, scores[::-1] + 10_000.0])
    assert_close(
        masked_softmax(batch, np.stack([mask] * 2)),
        np.stack([expected, expected[::-1]]),
        "the weights of two batches of rows thousands apart",
    )


@exercise(
    "3.1",
    points=0.25,
    hint="a key that the mask forbids has no say in the shift: beside a forbidden score of 2,000 all others "
    "would become 0. Is the maximum taken before the mask?",
)
def test_forbidden_keys_have_no_say_in_the_shift(masked_softmax):
    scores, mask = np.array([[0.0, 0.0, 2000.0]]), np.array([[True, True, False]])
    assert_close(masked_softmax(scores, mask), [[0.5, 0.5, 0.0]], "the weights beside a forbidden 2000")


@exercise(
    "3.1",
    points=0.5,
    hint="a query that may attend to nothing has weights of 0 for every key: neither NaN nor equal shares.",
)
def test_a_query_that_sees_nothing_gets_zeros(masked_softmax):
    mask = np.array([[False] * 4, [True] * 4, [False] * 4])
    weights = masked_softmax(np.array([[9.0, -2000, 5, 1], [1.0, 1, 1, 1], [0.0, 0, 0, 0]]), mask)
    assert_close(weights, [[0] * 4, [0.25] * 4, [0] * 4], "the weights")


@exercise(
    "3.1",
    points=0.25,
    hint="the mask may have fewer axes than the scores, or be True alone: did you use it as an index?",
)
def test_the_mask_broadcasts(masked_softmax):
    for mask in (np.array([True, True, False, True]), MASK, MASK[:, :1] | True, True):
        whole = np.broadcast_to(mask, SCORES.shape).copy()
        expected = _softmax(np.where(whole, SCORES, -1e9))
        assert_close(masked_softmax(SCORES.copy(), mask), expected, f"the weights, mask {np.shape(mask)}")


@exercise("3.1", points=0.25, hint="leave the caller's scores and mask as they are: return a new array.")
def test_the_scores_are_left_as_they_are(masked_softmax):
    scores, mask = SCORES.copy(), np.stack([MASK, ~MASK])
    masked_softmax(scores, mask)
    assert_equal(scores, SCORES, "the scores after the call")
    assert_equal(mask, np.stack([MASK, ~MASK]), "the mask after the call")


@exercise(
    "3.2",
    points=0.25,
    hint="does 3.1 pass, also with `True` for a mask? If it does: two arrays are asked for, (output, weights), in "
    "this order.",
)
def test_the_output_comes_before_the_weights(attention):
    output, weights = _pair(attention(_random(3, 4), _random(5, 4), _random(5, 4)))
    assert_shape(output, (3, 4), "the output of 3 queries to 5 keys, with values of width 4")
    assert_shape(weights, (3, 5), "the weights of 3 queries to 5 keys")


@exercise(
    "3.2",
    points=0.25,
    hint="does 3.1 pass? If it does: each query has shares in the keys, so its weights sum to one over them. Which "
    "axis of your scores are the keys?",
)
def test_each_querys_weights_sum_to_one(attention):
    _, weights = _pair(attention(_random(3, 4), _random(5, 4), _random(5, 2)))
    assert_distribution(weights, "the weights of 3 queries to 5 keys")


@exercise(
    "3.2",
    points=0.25,
    hint="does 3.1 pass, for any number of axes? If it does: without a batch it is right, with one it is not. `.T` "
    "turns all axes round, those of the batch too.",
)
def test_output_and_weights_have_a_row_for_each_query(attention):
    output, weights = _pair(attention(_random(2, 3, 6), _random(2, 5, 6), _random(2, 5, 6)))
    assert_shape(output, (2, 3, 6), "the output")
    assert_shape(weights, (2, 3, 5), "the weights")
    assert_distribution(weights, "the weights")


@exercise(
    "3.2",
    points=0.25,
    hint="does 3.1 pass, also with `True` for a mask? If it does: with a single key its weight is 1, whatever the "
    "score, and the output is its value, nothing else. Is something divided after the softmax, or something "
    "other than the values mixed?",
)
def test_a_single_key_hands_over_its_value(attention):
    query, key, value = np.array([[1.0, 2, 3]]), np.array([[4.0, 5, 6]]), np.array([[7.0, 8, 9]])
    output, weights = _pair(attention(query, key, value))
    assert_close(output, [[7, 8, 9]], "the output for one key, whose value is [7, 8, 9]")
    assert_close(weights, [[1]], "its weight")


@exercise(
    "3.2",
    points=0.5,
    hint="the scores are dot products over a square root: of what number? It is the number of terms in each "
    "dot product.",
)
def test_scores_are_divided_by_the_root_of_the_width(attention):
    query = np.array([[1.0, 0, 0, 0]])
    key = np.array([[2 * np.log(3), 0, 0, 0], [0, 1.0, 0, 0], [2 * np.log(4), 0, 9.0, 0]])
    value = np.array([[8.0, 0], [0.0, 16], [16.0, 0]])
    output, weights = _pair(attention(query, key, value))
    assert_close(weights, [[3 / 8, 1 / 8, 4 / 8]], "the weights of scores ln 3, 0, ln 4")
    assert_close(output, [[11, 2]], "the output")


@exercise(
    "3.2",
    points=0.5,
    hint="does 3.1 pass? If it does: the mask decides who takes part in the softmax, the same for any number of "
    "leading axes. Where does it come in with you?",
)
def test_the_mask_is_heeded(attention):
    query, key, value = _random(2, 3, 5, 4), _random(2, 3, 5, 4, seed=1), _random(2, 3, 5, 2)
    causal = np.tri(5, dtype=bool)
    output, weights = _pair(attention(query, key, value, causal))
    for b, h, t in np.ndindex(2, 3, 5):
        expected = _attend(query[b, h, t : t + 1], key[b, h, : t + 1], value[b, h, : t + 1])
        assert_close(output[b, h, t], expected[0], f"the output at [{b}, {h}, {t}], causal mask")
    assert_close(weights[..., 0, :], [[[1, 0, 0, 0, 0]] * 3] * 2, "the first query's weights")


def _mask(answer):
    array = np.asarray(answer)
    if array.dtype != bool:
        raise CheckFailure("a bool array", f"dtype {array.dtype}", "for the mask")
    return array


@exercise(
    "3.3",
    points=0.5,
    hint="a mask says True or False, and says it for every row, query and key: (B, T, T), of dtype bool.",
)
def test_the_mask_is_bool_for_every_row_query_and_key(attention_mask):
    for window in (None, 2):
        mask = attention_mask(np.array([4, 2, 3]), 4, window)
        assert_shape(mask, (3, 4, 4), "the mask")
        _mask(mask)


@exercise(
    "3.3",
    points=0.5,
    hint="a query must not see a key after it: the axes are [row, query, key], and the first query sees one "
    "key.",
)
def test_no_query_sees_the_future(attention_mask):
    for window in (None, 3):
        mask = _mask(attention_mask(np.array([5]), 5, window))[0]
        assert_equal(int(np.triu(mask, k=1).sum()), 0, "the number of allowed pairs with s after t")


@exercise(
    "3.3",
    points=0.5,
    hint="without a window a query sees all that came before it and, last of all, its own position: s = t is "
    "not after t.",
)
def test_every_query_sees_the_past_and_itself(attention_mask):
    mask = _mask(attention_mask(np.array([4]), 4))[0]
    assert_equal(mask.astype(int).tolist(), np.tri(4, dtype=int).tolist(), "the mask of 4 tokens")


@exercise(
    "3.3",
    points=0.5,
    hint="a window of w has w keys at most and counts the query itself: with 1 a query sees only itself, "
    "with T it sees as much as without a window.",
)
def test_the_window_counts_the_query_itself(attention_mask):
    for window in (1, 2, 3, 4, 9):
        mask = _mask(attention_mask(np.array([4]), 4, window))[0]
        seen = [min(window, t + 1) for t in range(4)]
        assert_equal(mask.sum(axis=1).tolist(), seen, f"the number of keys seen with window={window}")
        expected = np.tri(4, dtype=bool) & ~np.tri(4, k=-window, dtype=bool)
        assert_equal(mask, expected, f"the mask with window={window}")


@exercise(
    "3.3",
    points=0.5,
    hint="padding is what nobody may see: it is keys that are hidden, and here they stand at the beginning "
    "of the row.",
)
def test_padding_is_seen_by_nobody(attention_mask):
    mask = _mask(attention_mask(np.array([2, 4, 1]), 4))
    seen = mask.any(axis=1).astype(int).tolist()
    assert_equal(seen, [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]], "the keys that any query sees")
    assert_equal(mask[0, 3].astype(int).tolist(), [0, 0, 1, 1], "what the last token of row 0 sees")


@exercise(
    "3.3",
    points=0.5,
    hint="a key must pass all three rules at once, with a window as well as without: a query on padding then "
    "sees nothing, not even itself.",
)
def test_the_three_rules_hold_together(attention_mask):
    mask = _mask(attention_mask(np.array([2, 3]), 4, 2)).astype(int).tolist()
    assert_equal(
        mask[0], [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]], "row 0, 2 tokens, window=2"
    )
    assert_equal(
        mask[1], [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], "row 1, 3 tokens, window=2"
    )


def _tensors(*arrays):
    from keras import ops

    return [ops.convert_to_tensor(array, dtype="float32") for array in arrays]


def _additive(width=4, key_width=5, units=6):
    return (
        _random(2, 3, width), _random(2, 7, key_width, seed=1),
        _random(width, units), _random(key_width, units, seed=1), _random(units),
    )  # fmt: skip


@exercise(
    "3.4",
    points=0.5,
    hint="every query meets every key of its row: (B, T, S) scores. Where must query and key have an axis of "
    "1 for that?",
)
def test_every_query_has_a_score_for_every_key(additive_scores):
    assert_shape(additive_scores(*_tensors(*_additive())), (2, 3, 7), "the scores")


@exercise(
    "3.4",
    points=0.5,
    hint="v · tanh(q W + k U): the tanh is taken of the sum, number by number, and before v adds the units "
    "up.",
)
def test_scores_equal_the_formula(additive_scores):
    scores = np.asarray(additive_scores(*_tensors([[[0], [1]]], [[[0], [1], [-1]]], [[1]], [[1]], [2])))
    expected = [[[0, 2 * np.tanh(1), -2 * np.tanh(1)], [2 * np.tanh(1), 2 * np.tanh(2), 0]]]
    assert_close(scores, expected, "the scores with one unit and v = 2", rtol=1e-5, atol=1e-6)
    two = np.asarray(additive_scores(*_tensors([[[1]]], [[[2]]], [[1, -1]], [[1, -1]], [1, 3])))
    assert_close(two, [[[np.tanh(3) - 3 * np.tanh(3)]]], "the score with two units", rtol=1e-5)


@exercise(
    "3.4",
    points=0.5,
    hint="queries go through w and keys through u, both with all of their width; what comes out meets within "
    "its own row of the batch.",
)
def test_queries_and_keys_have_a_matrix_each(additive_scores):
    for width, key_width in ((4, 4), (4, 5)):
        query, key, w, u, v = _additive(width, key_width)
        scores = np.asarray(additive_scores(*_tensors(query, key, w, u, v)))
        for b, t, s in np.ndindex(2, 3, 7):
            expected = v @ np.tanh(query[b, t] @ w + key[b, s] @ u)
            # float32, sums of at most six terms near one
            assert_close(scores[b, t, s], expected, f"the score at [{b}, {t}, {s}]", rtol=1e-5, atol=1e-5)


@exercise(
    "3.4",
    points=0.5,
    hint="the score must be learned, and no gradient comes through NumPy: is each step from the arguments to "
    "the result one of keras.ops?",
)
def test_gradients_reach_the_parameters(additive_scores):
    import tensorflow as tf

    tensors = _tensors(*_additive())
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        scores = additive_scores(*tensors)
        if not tf.is_tensor(scores):
            raise CheckFailure("a tensor", f"one {type(scores).__name__}", "for the scores")
        loss = tf.reduce_sum(scores**2)
    names = ("query", "key", "w", "u", "v")
    for name, gradient in zip(names, tape.gradient(loss, tensors), strict=True):
        if gradient is None or not np.abs(gradient).max() > 0:
            raise CheckFailure("a gradient", "none" if gradient is None else "zeros or NaN", f"for {name}")


@exercise(
    "3.5",
    points=0.5,
    hint="head h of a token has the token's numbers from h K to (h + 1) K. A reshape only cuts the numbers "
    "anew in the order in which they lie in memory; it exchanges no axes.",
)
def test_a_head_is_a_slice_of_the_width(split_heads):
    x = _random(2, 3, 8)
    for heads in (1, 2, 4):
        split = split_heads(x, heads)
        assert_shape(split, (2, heads, 3, 8 // heads), f"the split with num_heads={heads}")
        for h in range(heads):
            expected = x[:, :, h * (8 // heads) : (h + 1) * (8 // heads)]
            assert_equal(np.asarray(split)[:, h], expected, f"head {h} with num_heads={heads}")


@exercise(
    "3.5",
    points=0.5,
    hint="joining is splitting backwards: the heads of one token must lie side by side again before they "
    "become one axis.",
)
def test_joining_lays_a_tokens_heads_side_by_side(join_heads):
    heads = _random(2, 4, 3, 5)
    joined = join_heads(heads)
    assert_shape(joined, (2, 3, 20), "the joined heads")
    assert_equal(
        np.asarray(joined), np.concatenate([heads[:, h] for h in range(4)], axis=-1), "the joined heads"
    )


def _projections(width=6, heads=2, head_width=4):
    inner = heads * head_width
    shapes = [(width, inner)] * 3 + [(inner, width)]
    return [_random(*shape, seed=seed) for seed, shape in enumerate(shapes)]


def _by_head(x, w_query, w_key, w_value, w_output, heads, allowed):
    """Multi-head self-attention, head by head and query by query, where `allowed[b, t]` lists the keys seen."""
    parts = [np.split(w, heads, axis=1) for w in (w_query, w_key, w_value)]
    outputs = np.zeros((*x.shape[:2], w_query.shape[1]))
    for b, t in np.ndindex(*x.shape[:2]):
        seen = x[b, allowed[b, t]]
        mixed = [_attend(x[b, t : t + 1] @ q, seen @ k, seen @ v) for q, k, v in zip(*parts, strict=True)]
        outputs[b, t] = np.concatenate(mixed, axis=-1)[0]
    return outputs @ w_output


IDENTITY = [np.eye(4)] * 4


def _one_head(answer, rows, mask=None):
    """Return what one head with four identity matrices makes of x, and what is right."""
    x = _random(rows, 5, 4)
    given = () if mask is None else (np.broadcast_to(mask, (rows, 5, 5)).copy(),)
    output = answer(x, *IDENTITY, 1, *given)
    allowed = np.ones((rows, 5, 5), dtype=bool) if mask is None else np.broadcast_to(mask, (rows, 5, 5))
    expected = _by_head(x, *IDENTITY, 1, allowed)
    if np.size(output) != expected.size:
        raise CheckFailure(
            f"shape {expected.shape}", f"shape {np.shape(output)}", "of the output of one head"
        )
    # The shape is a matter of its own: an answer may have lost an axis of 1.
    return np.reshape(output, expected.shape), expected


@exercise(
    "3.5",
    points=0.125,
    hint="does 3.2 pass, for four axes, too? If it does not, mend it first. If it does: no token has heard of "
    "another. It is tokens that attend to tokens, not heads to heads: what stands on the axis before the last?",
)
def test_tokens_attend_to_tokens(multi_head_attention):
    x = _random(2, 5, 4)
    if np.array_equal(np.shape(alone := multi_head_attention(x, *IDENTITY, 1)), x.shape) and np.allclose(
        alone, x
    ):
        raise CheckFailure(
            "a mixture of tokens", "each token as it was", "from one head with identity matrices"
        )


@exercise(
    "3.5",
    points=0.25,
    hint="does 3.2 pass? If it does not, mend it first: with one head, and matrices that change nothing, this is "
    "your `attention` of x to x. If it does, is it (output, weights)[0] that you go on with?",
)
def test_one_head_is_attention_as_in_exercise_2(multi_head_attention):
    output, expected = _one_head(multi_head_attention, 2)
    assert_close(output, expected, "the output of one head with four identity matrices")


@exercise(
    "3.5",
    points=0.25,
    hint="with one head, too, it goes wrong: which matrix makes queries, which keys and which values, and which "
    "comes last, after the heads were joined?",
)
def test_each_matrix_has_its_place(multi_head_attention):
    x, weights = _random(2, 5, 6), _projections(heads=1)
    expected = _by_head(x, *weights, 1, np.ones((2, 5, 5), dtype=bool))
    assert_close(multi_head_attention(x, *weights, 1), expected, "the output with num_heads=1")


@exercise(
    "3.5",
    points=0.125,
    hint="all heads came to the same weights, as one head of the whole width does: where are queries and keys cut "
    "before they meet?",
)
def test_the_heads_are_more_than_one(multi_head_attention):
    x, weights = _random(2, 5, 6), _projections(heads=2)
    output = multi_head_attention(x, *weights, 2)
    one = _by_head(x, *weights, 1, np.ones((2, 5, 5), dtype=bool))
    if np.shape(output) == one.shape and np.allclose(output, one):
        raise CheckFailure("two heads", "one of their width together", "for num_heads=2")


@exercise(
    "3.5",
    points=0.25,
    hint="with one head it is right, with several it is not: each head's scores are divided by the root of its "
    "own width, K, and each keeps its place when they are joined.",
)
def test_each_head_attends_for_itself(multi_head_attention):
    x = _random(2, 5, 6)
    everything = np.ones((2, 5, 5), dtype=bool)
    for heads in (1, 2, 4):
        output = multi_head_attention(x, *_projections(heads=heads), heads)
        expected = _by_head(x, *_projections(heads=heads), heads, everything)
        assert_close(output, expected, f"the output with num_heads={heads}")


@exercise(
    "3.5",
    points=0.25,
    hint="does 3.2 pass, with its mask? If it does: with one head, too, yours sees what the mask forbids. Does the "
    "mask reach `attention`?",
)
def test_one_head_heeds_a_mask(multi_head_attention):
    output, expected = _one_head(multi_head_attention, 1, np.tri(5, dtype=bool))
    assert_close(output, expected, "the output of one head with a causal mask (1, 5, 5)")


@exercise(
    "3.5",
    points=0.25,
    hint="do 3.1 and 3.2 pass? If they do: a mask (B, T, T) has no axis for the heads, one of (T, T) has none for the "
    "rows either, and both hold in all heads. Which axis of the mask meets that of the heads in your weights?",
)
def test_the_mask_holds_in_every_head(multi_head_attention):
    x, weights = _random(2, 5, 6), _projections()
    lengths = np.array([5, 3])
    mask = np.tri(5, dtype=bool) & (np.arange(5) < lengths[:, None, None])
    for given in (mask, np.tri(5, dtype=bool)):
        allowed = np.broadcast_to(given, (2, 5, 5))
        expected = _by_head(x, *weights, 2, allowed)
        assert_close(multi_head_attention(x, *weights, 2, given), expected, f"the output, mask {given.shape}")


@exercise(
    "3.5",
    points=0.5,
    hint="keras.layers.MultiHeadAttention comes to another result with the same four matrices: does yours "
    "hold for one row of one token, and where rows, tokens and heads are equally many?",
)
def test_it_equals_keras_with_the_same_weights(multi_head_attention):
    import keras

    width, heads = 8, 4
    weights = [_random(width, width, seed=seed).astype("float32") for seed in range(4)]
    layer = keras.layers.MultiHeadAttention(heads, width // heads, use_bias=False)
    layer.build((None, None, width), (None, None, width))
    kernels = [w.reshape(width, heads, width // heads) for w in weights[:3]]
    layer.set_weights([*kernels, weights[3].reshape(heads, width // heads, width)])
    for rows, time in ((3, 6), (4, 4), (1, 1)):
        x = _random(rows, time, width).astype("float32")
        output = multi_head_attention(x, *weights, heads)
        # float32, sums of eight terms near one in another order, four times
        assert_close(output, np.asarray(layer(x, x)), "Keras's output", rtol=1e-5, atol=1e-5)


def _grouped(query_heads, key_heads):
    return (
        _random(2, query_heads, 3, 4),
        _random(2, key_heads, 5, 4, seed=1),
        _random(2, key_heads, 5, 6, seed=2),
    )


def _grouped_expected(query, key, value):
    group = query.shape[1] // key.shape[1]
    rows, heads = query.shape[:2]
    outputs = [
        [_attend(query[b, h], key[b, h // group], value[b, h // group]) for h in range(heads)]
        for b in range(rows)
    ]
    return np.array(outputs)


@exercise(
    "3.6",
    points=0.25,
    hint="does 3.2 pass? If it does not, mend it first: with one head of queries and one of keys this is your "
    "`attention`. If it does, is it (output, weights)[0] that you return?",
)
def test_one_head_of_each_is_attention_as_in_exercise_2(grouped_query_attention):
    query, key, value = _grouped(1, 1)
    output = grouped_query_attention(query, key, value)
    expected = _grouped_expected(query, key, value)
    if np.size(output) != expected.size:
        raise CheckFailure(
            f"shape {expected.shape}", f"shape {np.shape(output)}", "of the output with H = G = 1"
        )
    assert_close(np.ravel(output), expected.ravel(), "the output with H = G = 1, number by number")


@exercise(
    "3.6",
    points=0.25,
    hint="every query head has an output of its own, (B, H, T, V): it is keys and values that there are too "
    "few of, and heads of them, not tokens.",
)
def test_every_query_head_has_an_output(grouped_query_attention):
    for heads in ((4, 2), (6, 2), (3, 3)):
        output = grouped_query_attention(*_grouped(*heads))
        assert_shape(output, (2, heads[0], 3, 6), f"the output with (H, G) = {heads}")


@exercise(
    "3.6",
    points=0.75,
    hint="query heads that are neighbours share a head of keys, and the values of the same head: with H = 4 "
    "and G = 2 the key heads are to be used in the order 0, 0, 1, 1.",
)
def test_neighbouring_query_heads_share_keys_and_values(grouped_query_attention):
    arrays = _grouped(4, 2)
    assert_close(grouped_query_attention(*arrays), _grouped_expected(*arrays), "the output with H = 4, G = 2")


@exercise(
    "3.6",
    points=0.5,
    hint="the size of a group is H / G: from one head of keys for all to one for each. Is a number written "
    "down that should be computed?",
)
def test_groups_may_be_of_any_size(grouped_query_attention):
    for heads in ((4, 1), (4, 4), (6, 2), (6, 3)):
        arrays = _grouped(*heads)
        output = grouped_query_attention(*arrays)
        assert_close(output, _grouped_expected(*arrays), f"the output with (H, G) = {heads}")


def _parameters_in_keras(width, num_heads, num_kv_heads, head_width, use_bias):
    import keras

    layer = keras.layers.GroupQueryAttention(head_width, num_heads, num_kv_heads, use_bias=use_bias)
    layer.build((1, 1, width), (1, 1, width))
    return layer.count_params()


SIZES = ((8, 4, 2, 2), (12, 3, 1, 5), (7, 4, 2, 3))


@exercise(
    "3.6",
    points=0.75,
    hint="four matrices: queries and output have H heads, keys and values G, and a head need not be as wide "
    "as D / H. Which of the four does your count leave out, or count as wide as another?",
)
def test_matrices_are_counted_as_keras_counts_them(attention_parameters):
    for sizes in SIZES:
        count = attention_parameters(*sizes, False)
        assert_equal(count, _parameters_in_keras(*sizes, False), f"the parameters of {sizes} without biases")


@exercise(
    "3.6",
    points=0.5,
    hint="a projection has a bias for each number that comes *out* of it: how many come out of each of the "
    "four? And without biases, none.",
)
def test_biases_are_counted_as_keras_counts_them(attention_parameters):
    for sizes in SIZES:
        count = attention_parameters(*sizes, True)
        assert_equal(count, _parameters_in_keras(*sizes, True), f"the parameters of {sizes} with biases")


BACKWARD = (_random(3, 4), _random(5, 4, seed=1), _random(5, 2, seed=2), _random(3, 2, seed=3))


def _gradients(answer):
    gradients = answer(*(array.copy() for array in BACKWARD))
    return _are(gradients, ("grad_query", "grad_key", "grad_value"))


def _finite_differences(which, step=1e-5):
    """The gradient of sum(output * grad_output) towards one input, by moving each of its numbers up and down."""
    inputs, grad_output = [array.copy() for array in BACKWARD[:3]], BACKWARD[3]
    gradient = np.zeros_like(inputs[which])
    for index in np.ndindex(gradient.shape):
        losses = []
        for sign in (1, -1):
            moved = [array.copy() for array in inputs]
            moved[which][index] += sign * step
            losses.append((_attend(*moved) * grad_output).sum())
        gradient[index] = (losses[0] - losses[1]) / (2 * step)
    return gradient


def _equals_finite_differences(gradient, which, name):
    # The differences are off by step² times a third derivative near one, and by rounding over step: 1e-10 each.
    assert_close(gradient, _finite_differences(which), f"{name}, by finite differences", rtol=1e-6, atol=1e-8)


@exercise(
    "3.7",
    points=0.25,
    hint="does 3.2 pass? If it does not, mend it first: your weights are not those of attention. If it does, how "
    "did you come by these?",
)
def test_the_weights_are_those_of_exercise_2(attention_gradients):
    query, key = _random(5, 4), BACKWARD[1]
    # With the identity for grad_output, grad_value is the weights themselves, transposed.
    gradients = attention_gradients(query.copy(), key.copy(), np.eye(5), np.eye(5))
    found = _are(gradients, ("grad_query", "grad_key", "grad_value"))[2]
    expected = _softmax(query @ key.T / 2)
    # Only weights that are a softmax, and another one, are a matter of 3.2.
    if found.shape == (5, 5) and found.min() > 0 and np.allclose(found.sum(axis=0), 1):
        assert_close(found.T, expected, "the weights by which grad_value is made")


@exercise(
    "3.7",
    points=0.25,
    hint="does 3.2 pass, which gives (output, weights)? If it does: each gradient has the shape of its input, and "
    "they come in the order query, key, value. Is a matrix of weights or scores to be transposed?",
)
def test_gradients_have_the_shapes_of_the_inputs(attention_gradients):
    for gradient, array, name in zip(
        _gradients(attention_gradients), BACKWARD[:3], ("grad_query", "grad_key", "grad_value"), strict=True
    ):
        assert_shape(gradient, array.shape, name)


@exercise(
    "3.7",
    points=0.5,
    hint="a value takes part in each query's output by its weight, and the output is linear in it: "
    "grad_value needs the weights and grad_output, nothing else.",
)
def test_the_gradient_for_the_values(attention_gradients):
    _equals_finite_differences(_gradients(attention_gradients)[2], 2, "grad_value")


@exercise(
    "3.7",
    points=0.75,
    hint="moving all keys by one and the same vector changes no weight, so grad_key must sum to zero over "
    "the keys. Raising one score lowers the weights of all others: did you take the whole Jacobian of the "
    "softmax?",
)
def test_what_moves_all_keys_alike_changes_nothing(attention_gradients):
    grad_key = _gradients(attention_gradients)[1]
    assert_close(grad_key.sum(axis=0), np.zeros(4), "the sum of grad_key over the keys", atol=1e-9)
    alone = attention_gradients(np.array([[2.0]]), np.array([[3.0]]), np.array([[5.0]]), np.array([[7.0]]))
    assert_close(alone[0], [[0.0]], "grad_query for a single key, whose weight is always 1")


@exercise(
    "3.7",
    points=0.75,
    hint="the gradient of the query disagrees with what happens when you move it a little: trace it back "
    "through the output, the weights and the scores, and do not forget what the scores were divided by.",
)
def test_the_gradient_for_the_query(attention_gradients):
    _equals_finite_differences(_gradients(attention_gradients)[0], 0, "grad_query")


@exercise(
    "3.7",
    points=0.5,
    hint="score t s holds query t and key s alike: whatever is done for one of the two gradients has its "
    "mirror image in the other.",
)
def test_the_gradient_for_the_keys(attention_gradients):
    _equals_finite_differences(_gradients(attention_gradients)[1], 1, "grad_key")


def _chunks(key, value, sizes):
    """Yield (key, value) in chunks, as copies that nothing else holds."""
    start = 0
    for size in sizes:
        yield key[start : start + size].copy(), value[start : start + size].copy()
        start += size


def _equals_plain(answer, query, key, value, sizes, what):
    output = answer(query.copy(), _chunks(key, value, sizes))
    assert_close(output, _attend(query, key, value), what, rtol=1e-9, atol=1e-12)


def _part(query, key, value):
    """What a part answers: its attention, and the logarithm of its total."""
    scores = query @ key.T / np.sqrt(query.shape[-1])
    return _attend(query, key, value), np.logaddexp.reduce(scores, axis=-1)


def _two(answer):
    output, log_total = _are(answer, ("output", "log_total"))
    assert_shape(log_total, output.shape[:1], "log_total")
    return output, log_total


def _parts(sizes, seed=0, width=4):
    """Return a query, the keys and values of each part, and all keys and values."""
    query, key, value = (
        _random(3, width),
        _random(sum(sizes), width, seed=seed),
        _random(sum(sizes), 2, seed=seed),
    )
    ends = np.cumsum(sizes)
    return query, [(key[e - n : e], value[e - n : e]) for e, n in zip(ends, sizes, strict=True)], key, value


@exercise(
    "3.8",
    points=0.25,
    hint="do 3.1 and 3.2 pass? If they do: what a part puts out is plain attention to its own keys, softmax and "
    "all, as if there were no other part.",
)
def test_a_part_puts_out_its_own_attention(attend_part):
    query, [(key, value), _], *_ = _parts([4, 1])
    output, _ = _are(attend_part(query.copy(), key.copy(), value.copy()), ("output", "log_total"))
    assert_close(output, _attend(query, key, value), "the output of a part of four keys")


@exercise(
    "3.8",
    points=0.5,
    hint="log_total is one number for each query, ln(exp s₁ + exp s₂ + …) over the keys of the part, of the scores "
    "that the softmax saw: is it the logarithm, of the sum, of scores that were divided by √K?",
)
def test_log_total_is_the_logarithm_of_the_sum_of_exponentials(attend_part):
    query, [(key, value), _], *_ = _parts([4, 1])
    _, log_total = _two(attend_part(query.copy(), key.copy(), value.copy()))
    assert_close(log_total, _part(query, key, value)[1], "log_total of a part of four keys")


@exercise(
    "3.8",
    points=0.25,
    hint="does 3.1 pass? If it does: a query that sees nothing in this part has a total of 0 there, whose logarithm "
    "is -inf, and an output of zeros; and a key that the mask forbids is not in the total.",
)
def test_what_is_not_seen_is_not_in_the_total(attend_part):
    query, [(key, value), _], *_ = _parts([4, 1])
    mask = np.array([[True, False, True, False], [False] * 4, [True] * 4])
    output, log_total = _two(attend_part(query.copy(), key.copy(), value.copy(), mask))
    seen = _part(query, key[[0, 2]], value[[0, 2]]), _part(query, key, value)
    assert_close(log_total, [seen[0][1][0], -np.inf, seen[1][1][2]], "log_total with a mask")
    assert_close(output, [seen[0][0][0], [0, 0], seen[1][0][2]], "the output with a mask")


@exercise(
    "3.8",
    points=0.25,
    hint="does 3.1 pass? If it does: scores of 1000 and more have a log_total of 1000 and more, no inf. No "
    "exponential may be of a number far above 0, and no logarithm of 0.",
)
def test_log_total_holds_for_scores_of_any_size(attend_part):
    for size in (1000.0, -1000.0):
        key = np.array([[size], [size]])
        output, log_total = _two(attend_part(np.array([[1.0]]), key, np.array([[1.0], [3.0]])))
        assert_close(log_total, [size + np.log(2)], f"log_total of two scores of {size:g}")
        assert_close(output, [[2.0]], f"the output for two scores of {size:g}")


def _merged(answer, first, second):
    return _two(answer(*[tuple(np.copy(array) for array in part) for part in (first, second)]))


@exercise(
    "3.8",
    points=0.5,
    hint="a part counts by its total: where all keys are alike, a part of four keys counts four times as much as "
    "a part of one, and each query has totals of its own.",
)
def test_parts_count_by_their_totals(merge):
    value = np.array([[1.0], [2.0], [3.0], [4.0], [10.0]])
    query, key = _random(2, 3), np.ones((5, 3))
    for size in (4, 1):
        parts = _part(query, key[:size], value[:size]), _part(query, key[size:], value[size:])
        output, _ = _merged(merge, *parts)
        assert_close(output, [[4.0], [4.0]], f"the output for parts of {size} and {5 - size} equal keys")
    query, parts, key, value = _parts([2, 3])
    output, _ = _merged(merge, *(_part(query, *part) for part in parts))
    assert_close(output, _attend(query, key, value), "the output of two parts, merged")


@exercise(
    "3.8",
    points=0.5,
    hint="what was merged is a part like any other, and is merged again: its log_total is that of both parts' "
    "keys together, and logarithms of sums are no sums of logarithms.",
)
def test_what_was_merged_can_be_merged_again(merge):
    query, parts, key, value = _parts([2, 1, 4])
    a, b, c = (_part(query, *part) for part in parts)
    expected = _part(query, key, value)
    for name, first, second in (
        ("(a + b) + c", _merged(merge, a, b), c),
        ("a + (b + c)", a, _merged(merge, b, c)),
    ):
        output, log_total = _merged(merge, first, second)
        assert_close(log_total, expected[1], f"log_total of {name}")
        assert_close(output, expected[0], f"the output of {name}")


@exercise(
    "3.8",
    points=0.5,
    hint="exp of a log_total of 1000 is no float, and where both are -1000 their totals are 0/0: only the "
    "*difference* of the two says how the parts share.",
)
def test_totals_of_any_size_can_be_merged(merge):
    for size in (1000.0, -1000.0):
        parts = (np.array([[1.0]]), np.array([size])), (np.array([[5.0]]), np.array([size + np.log(3)]))
        output, log_total = _merged(merge, *parts)
        assert_close(output, [[4.0]], f"the output of parts with log_total near {size:g}, shares 1/4 and 3/4")
        assert_close(log_total, [size + np.log(4)], f"log_total of parts near {size:g}")


@exercise(
    "3.8",
    points=0.25,
    hint="-inf minus -inf is NaN: a part in which a query sees nothing changes nothing, and where it sees nothing "
    "in either, the result is zeros and -inf again.",
)
def test_a_part_that_sees_nothing_changes_nothing(merge):
    something = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]), np.array([0.5, -0.5, -np.inf])
    nothing = np.zeros((3, 2)), np.full(3, -np.inf)
    for first, second in ((something, nothing), (nothing, something)):
        output, log_total = _merged(merge, first, second)
        assert_close(output, something[0], "the output beside a part that sees nothing")
        assert_close(log_total, something[1], "log_total beside a part that sees nothing")


def _luong(layer_class, units=3, width=4, value_width=5):
    query, value = _random(2, 3, width).astype("float32"), _random(2, 6, value_width).astype("float32")
    layer = layer_class(units, name="reader")
    layer(query, value)  # builds it
    return layer, query, value


def _set_luong(layer, width=4, value_width=5, units=3):
    weights = [
        _random(value_width, width).astype("float32"),
        _random(value_width + width, units).astype("float32"),
    ]
    layer.set_weights(weights)
    return weights


def _luong_expected(query, value, w, c, mask=None):
    scores = np.einsum("btd,bse,ed->bts", query, value, w)
    if mask is not None:
        scores = np.where(mask[:, None], scores, -1e9)
    context = _softmax(scores) @ value
    return np.tanh(np.concatenate([context, query], axis=-1) @ c)


@exercise(
    "3.9",
    points=0.5,
    hint="the layer has two weights and no biases: W takes a value, of width E, to a query's width, and C "
    "takes context and query together to the units. They are made once, in `build`.",
)
def test_the_layer_has_its_two_weights(LuongAttention):
    layer, query, value = _luong(LuongAttention)
    layer(query, value)
    shapes = [tuple(weight.shape) for weight in layer.weights]
    assert_equal(shapes, [(5, 4), (9, 3)], "the weights' shapes with D = 4, E = 5, 3 units")


@exercise(
    "3.9",
    points=0.75,
    hint="go through the formula again: q · (k W) without a scale, a softmax over the values for each query, "
    "the context in front of the query, and tanh last.",
)
def test_the_output_equals_the_formula(LuongAttention):
    layer, query, value = _luong(LuongAttention)
    w, c = _set_luong(layer)
    assert_shape(layer(query, value), (2, 3, 3), "the output")
    expected = _luong_expected(query, value, w, c)
    # float32, scores of about ten in the exponent
    assert_close(np.asarray(layer(query, value)), expected, "the output", rtol=1e-5, atol=1e-5)


@exercise(
    "3.9",
    points=0.75,
    hint="padding must not matter: whatever values stand there, the weights of the others sum to one without "
    "them. And True in the mask is a real value.",
)
def test_padding_does_not_matter(LuongAttention):
    layer, query, value = _luong(LuongAttention)
    w, c = _set_luong(layer)
    mask = np.array([[True] * 4 + [False] * 2, [True] * 6])
    expected = _luong_expected(query, value, w, c, mask)
    for filler in (0.0, 50.0):
        padded = np.where(mask[:, :, None], value, np.float32(filler))
        output = np.asarray(layer(query, padded, value_mask=mask))
        assert_close(output, expected, f"the output with {filler:g} on the padding", rtol=1e-5, atol=1e-5)


@exercise(
    "3.9",
    points=0.5,
    hint="in a Keras model the numbers of rows, queries and values are not known when the layer is called: "
    "shapes hold None, and tensors no numbers yet. Is each step one of keras.ops?",
)
def test_it_works_in_a_model_for_any_length(LuongAttention):
    import keras

    layer, query, value = _luong(LuongAttention)
    w, c = _set_luong(layer)
    inputs = [keras.Input((None, 4)), keras.Input((None, 5))]
    try:
        outputs = layer(*inputs)
    except Exception as error:
        # Keras lets NotImplementedError through for a tensor without numbers, which is not what it means here.
        raise CheckFailure("an output", f"{type(error).__name__}", "for inputs of unknown length") from error
    model = keras.Model(inputs, outputs)
    for time in (3, 1):
        output = np.asarray(model([query[:, :time], value]))
        expected = _luong_expected(query[:, :time], value, w, c)
        assert_close(output, expected, f"the model's output for {time} queries", rtol=1e-5, atol=1e-5)


@exercise(
    "3.9",
    points=0.5,
    hint="a layer that is loaded again must be the same layer: its config holds what the constructor was "
    "given, and what every layer has, as its name and its dtype.",
)
def test_its_config_makes_the_same_layer(LuongAttention):
    layer, query, value = _luong(LuongAttention)
    _set_luong(layer)
    copy = LuongAttention.from_config(layer.get_config())
    assert_equal(copy.name, "reader", "the copy's name")
    copy(query, value)
    copy.set_weights(layer.get_weights())
    assert_close(np.asarray(copy(query, value)), np.asarray(layer(query, value)), "the copy's output")
    half = LuongAttention.from_config(LuongAttention(3, dtype="float16").get_config())
    assert_equal(half.compute_dtype, "float16", "the dtype of a float16 layer's copy")
