"""The tests of chapter 4's exercises.

Letters for shapes: `B` rows, `T` positions, `S` slots of a cache, `D` width of the model, `F` width in the middle of a
feed-forward layer, `H` heads, `G` heads of keys, `K` head width, `V` vocabulary, `N` distances.
"""

import numpy as np

from lmcourse.grading import assert_close, assert_equal, assert_shape, exercise
from lmcourse.grading.assertions import CheckFailure


def _random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def _uniform(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).uniform(size=shape)


def _softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _are(answer, *names):
    """Return what the answer gave, if it is one thing for each name."""
    if not isinstance(answer, tuple | list):
        raise CheckFailure(f"({', '.join(names)})", f"one {type(answer).__name__}")
    if len(answer) != len(names):
        raise CheckFailure(f"({', '.join(names)})", f"{len(answer)} things")
    return [np.asarray(part) for part in answer]


def _assert_kind(array, kinds, expected, what):
    if array.dtype.kind not in kinds:
        raise CheckFailure(f"{expected} array", f"dtype {array.dtype}", f"for {what}")


def _tensors(*arrays):
    from keras import ops

    return [ops.convert_to_tensor(np.asarray(array, dtype="float32")) for array in arrays]


def _assert_gradients(function, arrays, names):
    """Check that a gradient of the sum of squares reaches each of the tensors, and return them all."""
    import tensorflow as tf

    tensors = _tensors(*arrays)
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        output = function(*tensors)
        if not tf.is_tensor(output):
            raise CheckFailure("a tensor", f"one {type(output).__name__}", "as the result")
        loss = tf.reduce_sum(output**2)
    for name, gradient in zip(names, tape.gradient(loss, tensors), strict=True):
        if gradient is None or not np.abs(gradient).max() > 0:
            raise CheckFailure("a gradient", "none" if gradient is None else "zeros or NaN", f"for {name}")


@exercise(
    "4.1",
    points=0.5,
    hint="at position 0, the first row, every angle is 0: each sine is 0, each cosine 1. In which "
    "columns do the sines stand, and where does the counting begin?",
)
def test_the_first_row_is_zeros_and_ones(sinusoidal_encoding):
    for length, width in ((5, 8), (1, 2)):
        encoding = sinusoidal_encoding(length, width)
        assert_shape(encoding, (length, width), f"the encoding of {length} positions, {width} wide")
        assert_close(encoding[0], [0, 1] * (width // 2), f"the first of {length} positions")


@exercise(
    "4.1",
    points=0.5,
    hint="the sine and the cosine of a pair have the same angle, so their squares sum to one: does "
    "your angle depend on the number of the column or on that of the pair?",
)
def test_a_pair_of_columns_shares_its_angle(sinusoidal_encoding):
    pairs = np.asarray(sinusoidal_encoding(6, 10)).reshape(6, 5, 2)
    assert_close((pairs**2).sum(axis=-1), np.ones((6, 5)), "sine² + cosine² by position and pair")


@exercise(
    "4.1",
    points=0.5,
    hint="a position is encoded alike in a short text and in a long one: an angle knows nothing of the "
    "length.",
)
def test_the_length_changes_no_position(sinusoidal_encoding):
    short, long = sinusoidal_encoding(3, 8), sinusoidal_encoding(50, 8)
    assert_close(short, np.asarray(long)[:3], "3 positions, encoded as the first of 50")


@exercise(
    "4.1",
    points=0.5,
    hint="the first pair turns by one radian a position and each further pair more slowly, by the same "
    "factor from pair to pair. A pair further and the power rises by 2/D: what is your power in the "
    "last pair?",
)
def test_angles_are_those_of_the_paper(sinusoidal_encoding):
    # As unit complex numbers: a pair's turn for one position, multiplied again and again.
    for width in (2, 8, 64):
        turns = np.exp(1j / np.array([10000.0 ** (2 * pair / width) for pair in range(width // 2)]))
        expected = turns ** np.arange(20)[:, None]
        encoding = np.asarray(sinusoidal_encoding(20, width))
        assert_close(encoding[:, 0::2], expected.imag, f"the sines with width={width}", atol=1e-8)
        assert_close(encoding[:, 1::2], expected.real, f"the cosines with width={width}", atol=1e-8)


WIDE = 3 + 2 * _random(2, 3, 8)
ONES, ZEROS = np.ones(8), np.zeros(8)


@exercise(
    "4.2",
    points=0.5,
    hint="each token is normalised for itself, over its D numbers: afterwards the mean of each vector "
    "is 0. Over which axis do you average, and do you keep the axis?",
)
def test_each_vector_has_mean_zero(layer_norm):
    for x in (WIDE, WIDE[0], WIDE[0, 0]):
        normed = layer_norm(x.copy(), ONES, ZEROS)
        assert_shape(normed, x.shape, "layer_norm's output")
        means, zeros = np.asarray(normed).mean(axis=-1), np.zeros(x.shape[:-1])
        assert_close(means, zeros, f"the means of vectors in an array {x.shape}", atol=1e-7)


@exercise(
    "4.2",
    points=0.25,
    hint="after layer norm the squares of a vector's numbers have the mean 1: by what did you divide "
    "the sum of the squares, and what did you take the root of?",
)
def test_each_vector_has_variance_one(layer_norm):
    normed = np.asarray(layer_norm(WIDE.copy(), ONES, ZEROS, 0.0))
    assert_close((normed**2).mean(axis=-1), np.ones((2, 3)), "the variances of the vectors")


@exercise(
    "4.2",
    points=0.25,
    hint="epsilon keeps a vector of equal numbers from 0/0, and it is part of what the root is taken of.",
)
def test_epsilon_stands_under_the_root(layer_norm):
    level = layer_norm(np.full((1, 8), 7.0), ONES, ZEROS)
    assert_close(level, np.zeros((1, 8)), "layer_norm of equal numbers")
    # Variance 16, and 16 + 9 = 5².
    normed = layer_norm(np.array([[-4.0, 4.0]]), np.ones(2), np.zeros(2), 9.0)
    assert_close(normed, [[-0.8, 0.8]], "layer_norm of [-4, 4] with epsilon=9")


@exercise(
    "4.2",
    points=0.25,
    hint="first normalise, then multiply by the scale, then add the shift: the shift is not multiplied.",
)
def test_scale_and_shift_come_last(layer_norm):
    scale, shift = np.array([2.0, 3.0]), np.array([10.0, 20.0])
    normed = layer_norm(np.array([[3.0, 7.0], [7.0, 3.0]]), scale, shift, 0.0)
    assert_close(normed, [[8, 23], [12, 17]], "layer_norm with scale [2, 3] and shift [10, 20]")


@exercise(
    "4.2",
    points=0.5,
    hint="RMS norm is not layer norm: it leaves the mean where it is, and divides each vector by the "
    "root of the mean of its squares, epsilon under the root. The scale is all that follows.",
)
def test_rms_norm_divides_by_the_root_of_the_mean_square(rms_norm):
    # Mean squares 25 and 1, and 25 + 11 = 6², 1 + 8 = 3².
    assert_close(
        rms_norm(np.array([[[1.0, 7.0]]]), np.ones(2), 11.0), [[[1 / 6, 7 / 6]]], "rms_norm of [1, 7]"
    )
    pair = np.array([[1.0, 1.0], [3.0, 3.0]])
    assert_close(rms_norm(pair, np.array([6.0, 9.0]), 0.0), [[6, 9], [6, 9]], "rms_norm with scale [6, 9]")
    assert_close(rms_norm(np.ones((1, 2)), np.ones(2), 8.0), [[1 / 3, 1 / 3]], "rms_norm with epsilon=8")
    expected = WIDE / np.linalg.norm(WIDE, axis=-1, keepdims=True) * np.sqrt(8)
    assert_close(rms_norm(WIDE.copy(), ONES, 0.0), expected, "rms_norm of random vectors")


@exercise("4.2", points=0.25, hint="leave the caller's array as it is: return a new one.")
def test_the_input_is_left_as_it_is(layer_norm, rms_norm):
    x = WIDE.copy()
    layer_norm(x, ONES, ZEROS)
    assert_equal(x, WIDE, "x after layer_norm")
    rms_norm(x, ONES)
    assert_equal(x, WIDE, "x after rms_norm")


def _fed(answer, x, w1=1.0, b1=0.0, w2=1.0, b2=0.0):
    """Return what a feed-forward layer with D = F = 1 makes of the numbers in x."""
    arrays = [[[number] for number in x]], [[w1]], [b1], [[w2]], [b2]
    output = answer(*_tensors(*arrays))
    assert_shape(output, (1, len(x), 1), "the output")
    return np.asarray(output)[0, :, 0]


@exercise(
    "4.3",
    points=0.125,
    hint="where the second matrix and its bias are zero, so is the output: the path on which x itself goes on "
    "is the block's affair, not the layer's.",
)
def test_x_itself_is_not_added(feed_forward):
    assert_close(_fed(feed_forward, [1.0, 2.0], w2=0.0), [0, 0], "the output for x = 1 and 2 with w2 = 0")


@exercise(
    "4.3",
    points=0.25,
    hint="the layer must be able to answer with numbers below its last bias: what comes after the "
    "second matrix?",
)
def test_outputs_may_be_negative(feed_forward):
    output = _fed(feed_forward, [1.0, 2.0], w2=-3.0)
    if not (output < 0).all():
        raise CheckFailure(
            "-3 and -6", f"{output[0]:g} and {output[1]:g}", "for x = 1 and 2 with w1 = 1, w2 = -3"
        )


@exercise(
    "4.3",
    points=0.125,
    hint="between the two matrices stands a ReLU, and there is none with you: -1 comes through it as 0. Without "
    "it two matrices are no more than one.",
)
def test_something_bent_stands_in_the_middle(feed_forward):
    low, high, twice = _fed(feed_forward, [-1.0, 1.0, 2.0])
    if abs(low + high) < 1e-3 and abs(twice - 2 * high) < 1e-3:
        raise CheckFailure(
            "no straight line", f"{low:g}, {high:g} and {twice:g}", "through x = -1, 1 and 2 with w1 = w2 = 1"
        )


@exercise(
    "4.3",
    points=0.125,
    hint="what is below 0 in the middle becomes exactly 0, and what is above stays as it is: that is ReLU, as in "
    "the paper. tanh, or GELU and silu of later models, are other functions.",
)
def test_what_is_below_zero_becomes_zero(feed_forward):
    output = _fed(feed_forward, [-2.0, -0.5, 0.5, 2.0])
    assert_close(output, [0, 0, 0.5, 2], "the output for x = -2, -0.5, 0.5 and 2 with w1 = w2 = 1", atol=1e-6)


@exercise(
    "4.3",
    points=0.125,
    hint="the first bias is added before the ReLU: it moves the place below which there is 0.",
)
def test_the_first_bias_comes_before_the_relu(feed_forward):
    output = _fed(feed_forward, [1.0, 4.0], b1=-3.0)
    assert_close(output, [0, 1], "the output for x = 1 and 4 with b1 = -3", atol=1e-6)


@exercise(
    "4.3",
    points=0.125,
    hint="the second bias is added last, to what comes out of the second matrix: where is it with you?",
)
def test_the_second_bias_is_added_last(feed_forward):
    output = _fed(feed_forward, [1.0, -2.0], w2=2.0, b2=5.0)
    assert_close(output, [7, 5], "the output for x = 1 and -2 with w2 = 2 and b2 = 5", rtol=1e-6)


def _feed_forward_arrays():
    return _random(2, 3, 4), _random(4, 6), _random(6), _random(6, 4), _random(4, seed=1)


@exercise(
    "4.3",
    points=0.125,
    hint="with one number it is right, with several it is not: x W is a product of matrices, by which each of "
    "the F numbers hears of all D.",
)
def test_each_token_goes_through_both_matrices(feed_forward):
    x, w1, b1, w2, b2 = _feed_forward_arrays()
    output = np.asarray(feed_forward(*_tensors(x, w1, b1, w2, b2)))
    assert_shape(output, (2, 3, 4), "the output")
    middle = x @ w1 + b1
    middle[middle < 0] = 0
    # float32, sums of six terms near one
    assert_close(output, middle @ w2 + b2, "the output", rtol=1e-5, atol=1e-5)


def _gated(answer, gate, up, down=1.0):
    """Return what a SwiGLU layer with D = F = 1 makes of 1."""
    output = answer(*_tensors([[[1.0]]], [[gate]], [[up]], [[down]]))
    assert_shape(output, (1, 1, 1), "the output")
    return np.asarray(output).item()


@exercise(
    "4.3",
    points=0.125,
    hint="G and U are exchanged: it is x G that goes through silu, and x U that comes as it is.",
)
def test_gate_and_up_are_not_exchanged(swiglu):
    less, one, two = (_gated(swiglu, gate, 0.5) for gate in (-1.0, 1.0, 2.0))
    if abs(two - 2 * one) < 1e-3 and abs(less + one) < 1e-3:
        raise CheckFailure(
            "a curve",
            f"a straight line, {less:.4g}, {one:.4g} and {two:.4g}",
            "for G = -1, 1 and 2 with U = 0.5",
        )


@exercise(
    "4.3",
    points=0.125,
    hint="where the second matrix, U, is zero, so is the result: in the middle the two are multiplied, not "
    "added.",
)
def test_the_gate_multiplies(swiglu):
    assert_close(_gated(swiglu, 2.0, 0.0), 0.0, "the output for x = 1 with G = 2, U = 0, W = 1", atol=1e-7)


@exercise(
    "4.3",
    points=0.125,
    hint="twice U, twice the result: only x G goes through silu, and that before the two are multiplied.",
)
def test_only_the_gate_is_bent(swiglu):
    one, two = _gated(swiglu, 1.0, 0.5), _gated(swiglu, 1.0, 1.0)
    assert_close(two, 2 * one, "the output with U = 1, by that with U = 0.5", rtol=1e-5)


@exercise(
    "4.3",
    points=0.125,
    hint="silu(z) is z · sigmoid(z): close to z itself where z is large, not to 1, and a little below 0 where z is. "
    "ReLU and GELU look much like it, and are other functions.",
)
def test_the_gate_goes_through_silu(swiglu):
    for z in (2.0, -1.0, 20.0):
        expected = z * (1 + np.tanh(z / 2)) / 2
        assert_close(_gated(swiglu, z, 1.0), expected, f"silu({z:g})", rtol=1e-5, atol=1e-6)


def _swiglu_arrays():
    return _random(2, 3, 4), _random(4, 6), _random(4, 6, seed=1), _random(6, 4)


@exercise(
    "4.3",
    points=0.25,
    hint="the middle is right, and the result is not: the third matrix, W, takes it from F numbers back to D.",
)
def test_the_third_matrix_leads_back(swiglu):
    x, gate, up, down = _swiglu_arrays()
    output = np.asarray(swiglu(*_tensors(x, gate, up, down)))
    assert_shape(output, (2, 3, 4), "the output")
    z = x @ gate
    expected = (z * (1 + np.tanh(z / 2)) / 2 * (x @ up)) @ down
    # float32, sums of six products near one
    assert_close(output, expected, "swiglu's output", rtol=1e-5, atol=1e-5)


@exercise(
    "4.3",
    points=0.25,
    hint="both layers are learned, and no gradient comes through NumPy: is each step from the "
    "arguments to the result one of keras.ops?",
)
def test_gradients_reach_all_matrices(feed_forward, swiglu):
    _assert_gradients(feed_forward, _feed_forward_arrays(), ("x", "w1", "b1", "w2", "b2"))
    _assert_gradients(swiglu, _swiglu_arrays(), ("x", "gate", "up", "down"))


def _parts(width=3):
    """Sublayers and norms that no two orders of give the same: affine maps, each with numbers of its own."""

    def affine(seed):
        matrix, constant = _random(width, width, seed=seed), _random(width, seed=seed)
        return lambda x: x @ matrix + constant

    return [affine(seed) for seed in range(1, 6)]


def _nothing(x):
    return np.zeros_like(x)


BLOCK_INPUT = _random(2, 4, 3)


def _same(x):
    return x


def _doubled(x):
    return 2 * x


def _ones(x):
    return np.ones_like(x)


@exercise(
    "4.4",
    points=0.125,
    hint="where both sublayers give zeros, nothing is left of x in your pre-norm block: there is a path around "
    "the sublayers.",
)
def test_something_of_x_goes_around_the_sublayers(pre_norm_block):
    output = pre_norm_block(BLOCK_INPUT.copy(), _nothing, _nothing, _same, _same)
    assert_close(
        output, BLOCK_INPUT, "the output of a pre-norm block whose sublayers give zeros, without norms"
    )


@exercise(
    "4.4",
    points=0.125,
    hint="there are two residual paths, not one: what attention has added must come out even where the "
    "feed-forward layer gives zeros, and the second path begins where the first ends.",
)
def test_what_attention_adds_comes_out_of_a_pre_norm_block(pre_norm_block):
    attend = _parts()[0]
    output = pre_norm_block(BLOCK_INPUT.copy(), attend, _nothing, _same, _same)
    what = "the output of a pre-norm block whose feed-forward layer gives zeros, without norms"
    assert_close(output, BLOCK_INPUT + attend(BLOCK_INPUT), what)


@exercise(
    "4.4",
    points=0.125,
    hint="the feed-forward layer comes second: it reads x with what attention has added, not the x that "
    "attention read.",
)
def test_the_feed_forward_layer_reads_what_attention_added(pre_norm_block):
    attend, feed = _parts()[:2]
    output = pre_norm_block(BLOCK_INPUT.copy(), attend, feed, _same, _same)
    between = BLOCK_INPUT + attend(BLOCK_INPUT)
    assert_close(output, between + feed(between), "the output of a pre-norm block without norms")


@exercise(
    "4.4",
    points=0.125,
    hint="a sum has gone through a norm, as in the post-norm block: in a pre-norm block only the copy that a sublayer "
    "reads is normalised.",
)
def test_a_pre_norm_block_normalises_no_sum(pre_norm_block):
    for parts, where in (
        ((_ones, _nothing, _doubled, _same), "first"),
        ((_nothing, _ones, _same, _doubled), "second"),
    ):
        output = pre_norm_block(np.zeros((1, 2, 3)), *parts)
        what = (
            f"the output for x = 0 where the {where} sublayer gives ones and its norm doubles what it reads"
        )
        assert_close(output, np.ones((1, 2, 3)), what)


@exercise(
    "4.4",
    points=0.125,
    hint="where both sublayers give zeros, a pre-norm block hands on x itself: the path around a "
    "sublayer goes around its norm, too.",
)
def test_a_pre_norm_block_that_adds_nothing_hands_x_on(pre_norm_block):
    norm1, norm2 = _parts()[:2]
    output = pre_norm_block(BLOCK_INPUT.copy(), _nothing, _nothing, norm1, norm2)
    assert_close(output, BLOCK_INPUT, "the output of a pre-norm block whose sublayers give zeros")


@exercise(
    "4.4",
    points=0.125,
    hint="attention reads a copy of x that has gone through the first norm: what does it read with you?",
)
def test_attention_reads_through_the_first_norm(pre_norm_block):
    attend, _, norm1, norm2, _ = _parts()
    output = pre_norm_block(BLOCK_INPUT.copy(), attend, _nothing, norm1, norm2)
    expected = BLOCK_INPUT + attend(norm1(BLOCK_INPUT))
    assert_close(output, expected, "the output of a pre-norm block whose feed-forward layer gives zeros")


@exercise(
    "4.4",
    points=0.125,
    hint="the second norm is the feed-forward layer's: through which does it read with you, if through any?",
)
def test_the_feed_forward_layer_reads_through_the_second_norm(pre_norm_block):
    attend, feed, norm1, norm2, _ = _parts()
    output = pre_norm_block(BLOCK_INPUT.copy(), attend, feed, norm1, norm2)
    between = BLOCK_INPUT + attend(norm1(BLOCK_INPUT))
    assert_close(output, between + feed(norm2(between)), "the output of a pre-norm block")


@exercise(
    "4.4",
    points=0.125,
    hint="in the post-norm block, too, each sublayer has a residual path of its own: look at what goes around "
    "attention, and what goes around the feed-forward layer.",
)
def test_a_post_norm_block_has_two_residual_paths(post_norm_block):
    attend, feed = _parts()[:2]
    output = post_norm_block(BLOCK_INPUT.copy(), attend, feed, _same, _same)
    between = BLOCK_INPUT + attend(BLOCK_INPUT)
    assert_close(output, between + feed(between), "the output of a post-norm block without norms")


@exercise(
    "4.4",
    points=0.125,
    hint="this is the pre-norm block: in the post-norm block a sublayer reads no copy normalised for it, and "
    "what it adds goes through a norm afterwards.",
)
def test_what_is_added_in_a_post_norm_block_is_normalised(post_norm_block):
    for parts, where in (
        ((_ones, _nothing, _doubled, _same), "first"),
        ((_nothing, _ones, _same, _doubled), "second"),
    ):
        output = post_norm_block(np.zeros((1, 2, 3)), *parts)
        what = (
            f"the output for x = 0 where the {where} sublayer gives ones and the norm after it doubles them"
        )
        assert_close(output, np.full((1, 2, 3), 2.0), what)


@exercise(
    "4.4",
    points=0.25,
    hint="in the post-norm block it is the sum that is normalised, the residual path with it, and not only what "
    "the sublayer gave; first by norm1, then by norm2.",
)
def test_a_post_norm_block_normalises_the_sums(post_norm_block):
    attend, feed, norm1, norm2, _ = _parts()
    between = norm1(BLOCK_INPUT + attend(BLOCK_INPUT))
    output = post_norm_block(BLOCK_INPUT.copy(), attend, feed, norm1, norm2)
    assert_close(output, norm2(between + feed(between)), "the output of a post-norm block")


def _asked(answer, slots):
    """Return what a decoder block hands to its cross-attention, call by call, where every sublayer gives zeros."""
    source, calls = _random(2, slots, 3, seed=7), []

    def cross(query, memory):
        calls.append((np.array(query), np.array(memory)))
        return np.zeros_like(BLOCK_INPUT)

    answer(BLOCK_INPUT.copy(), source.copy(), _nothing, cross, _nothing, _same, _same, _same)
    return calls, source


def _decoded(answer, attend, feed, norms=(_same, _same, _same)):
    """Return what a decoder block gives, and what is right."""
    source, mixer = _random(2, 5, 3, seed=7), _random(3, 3, seed=8)

    def cross(query, memory):
        return _softmax(query @ mixer @ memory.swapaxes(1, 2)) @ memory

    output = answer(BLOCK_INPUT.copy(), source.copy(), attend, cross, feed, *norms)
    x = norms[0](BLOCK_INPUT + attend(BLOCK_INPUT))
    x = norms[1](x + cross(x, source))
    return output, norms[2](x + feed(x))


@exercise(
    "4.4",
    points=0.125,
    hint="this is an encoder block: a decoder block has a third sublayer, cross-attention, by which it looks at "
    "the source.",
)
def test_a_decoder_block_has_three_sublayers(decoder_block):
    calls = len(_asked(decoder_block, 5)[0])
    if calls != 1:
        raise CheckFailure("one call of `cross`", f"{calls}", "in a decoder block")


@exercise(
    "4.4",
    points=0.125,
    hint="the decoder asks and the source answers: cross-attention takes the values so far as its queries, "
    "first, and the encoder's output second.",
)
def test_cross_attention_asks_with_the_decoder(decoder_block):
    ((query, memory),), source = _asked(decoder_block, 5)
    assert_close(memory, source, "what cross-attention reads second")
    assert_close(query, BLOCK_INPUT, "what cross-attention reads first")


@exercise(
    "4.4",
    points=0.125,
    hint="cross-attention is a sublayer like the others, with a residual path of its own: what it finds is added "
    "to what was there.",
)
def test_cross_attention_has_a_residual_path(decoder_block):
    output, expected = _decoded(decoder_block, _nothing, _nothing)
    assert_close(output, expected, "the output of a decoder block where only cross-attention gives something")


@exercise(
    "4.4",
    points=0.125,
    hint="the sublayers are in another order with you: first the decoder attends to itself, then to the source, "
    "and the feed-forward layer comes last.",
)
def test_cross_attention_stands_between_the_others(decoder_block):
    attend, feed = _parts()[:2]
    output, expected = _decoded(decoder_block, attend, feed)
    assert_close(output, expected, "the output of a decoder block without norms")


@exercise(
    "4.4",
    points=0.125,
    hint="each of the three sums goes through a norm of its own, norm1, norm2, norm3 in the order of the "
    "sublayers: which of them stands elsewhere with you?",
)
def test_a_decoder_block_normalises_three_sums(decoder_block):
    attend, feed, *norms = _parts()
    output, expected = _decoded(decoder_block, attend, feed, norms)
    assert_close(output, expected, "the output of a decoder block")


ROWS = [[7, 8, 9], [4], [5, 6]]


def _decoder_batch(answer, rows, *ids):
    shape = (len(rows), max(map(len, rows)) + 1)
    inputs, targets, weights = _are(answer([*map(list, rows)], *ids), "inputs", "targets", "weights")
    for array, what in ((inputs, "the inputs"), (targets, "the targets"), (weights, "the weights")):
        assert_shape(array, shape, what)
    return inputs, targets, weights


@exercise(
    "4.5",
    points=0.5,
    hint="three arrays of one shape, (B, T), ids of an int dtype; T is one more than the longest row: "
    "a row of three tokens has four things to write, the end among them.",
)
def test_the_batch_is_three_arrays_one_longer_than_the_longest_row(decoder_batch):
    for rows in (ROWS, [[5, 6]]):
        inputs, targets, _ = _decoder_batch(decoder_batch, rows, 1, 2, 0)
        _assert_kind(inputs, "iu", "an int", "the inputs")
        _assert_kind(targets, "iu", "an int", "the targets")


@exercise(
    "4.5",
    points=0.5,
    hint="what a decoder reads at a position must not be what it is to write there, or it learns to "
    "copy: it reads the token before, at first the start.",
)
def test_each_input_is_the_token_before_its_target(decoder_batch):
    for ids in ((1, 2, 0), (30, 40, 50)):
        inputs, _, _ = _decoder_batch(decoder_batch, ROWS, *ids)
        for b, row in enumerate(ROWS):
            read = inputs[b, : len(row) + 1].tolist()
            assert_equal(
                read, [ids[0], *row], f"the inputs of the row {row} with start_id={ids[0]}, up to its end"
            )


@exercise(
    "4.5",
    points=0.5,
    hint="the targets are the row, at once after it the end, and only then padding, as often as is needed.",
)
def test_the_end_follows_the_last_token(decoder_batch):
    for start, end, pad in ((1, 2, 0), (30, 40, 50)):
        _, targets, _ = _decoder_batch(decoder_batch, ROWS, start, end, pad)
        expected = [[7, 8, 9, end], [4, end, pad, pad], [5, 6, end, pad]]
        assert_equal(targets.tolist(), expected, f"the targets with end_id={end} and pad_id={pad}")


@exercise(
    "4.5",
    points=0.5,
    hint="the end has to be learned like any token, even where it has the same id as padding: an id "
    "does not tell what is padding. What does?",
)
def test_weights_count_every_token_and_its_end(decoder_batch):
    expected = [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    for ids in ((1, 2, 0), (0, 0, 0), (0, 9, 9)):
        weights = _decoder_batch(decoder_batch, ROWS, *ids)[2]
        assert_close(weights, expected, f"the weights with start_id, end_id, pad_id = {ids}")


PROMPTS = [[5, 6, 7], [8], [9, 0]]


def _left_padded(answer, prompts, pad_id=0):
    parts = _are(answer([*map(list, prompts)], pad_id), "ids", "mask", "positions")
    shape = (len(prompts), max(map(len, prompts)))
    for array, what in zip(parts, ("the ids", "the mask", "the positions"), strict=True):
        assert_shape(array, shape, what)
    return parts


@exercise(
    "4.6",
    points=0.5,
    hint="three arrays (B, T) with T as long as the longest prompt; ids and positions are of an int "
    "dtype, and a mask says True or False.",
)
def test_ids_mask_and_positions_have_their_types(left_padded):
    for prompts in (PROMPTS, [[3]]):
        ids, mask, positions = _left_padded(left_padded, prompts)
        _assert_kind(ids, "iu", "an int", "the ids")
        _assert_kind(mask, "b", "a bool", "the mask")
        _assert_kind(positions, "iu", "an int", "the positions")


@exercise(
    "4.6",
    points=0.5,
    hint="the next token of every prompt goes into the same new column, so every prompt ends in the "
    "last one, its tokens in their order.",
)
def test_every_prompt_ends_in_the_last_column(left_padded):
    ids = _left_padded(left_padded, [[5, 6, 7], [8], [9, 4]], 1)[0]
    assert_equal(ids.tolist(), [[5, 6, 7], [1, 1, 8], [1, 9, 4]], "the ids with pad_id=1")


@exercise(
    "4.6",
    points=0.5,
    hint="True is a real token, whichever its id: a prompt may hold the id that pads, and the mask "
    "must not take it for padding.",
)
def test_the_mask_knows_padding_by_its_place(left_padded):
    mask = _left_padded(left_padded, PROMPTS)[1]
    expected = [[1, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert_equal(mask.astype(int).tolist(), expected, f"the mask of {PROMPTS} with pad_id=0")


@exercise(
    "4.6",
    points=0.5,
    hint="a prompt reads the same alone and in a batch: its own first token stands at position 0, "
    "however much padding is before it. And padding has position 0, for a table has no rows below.",
)
def test_positions_count_from_the_first_real_token(left_padded):
    positions = _left_padded(left_padded, PROMPTS)[2]
    assert_equal(positions.tolist(), [[0, 1, 2], [0, 0, 0], [0, 0, 1]], f"the positions in {PROMPTS}")


def _turned(x, positions, base=10000.0):
    """Rotary embedding with complex numbers: (first half) + i (second half), multiplied by a number of length one."""
    half = x.shape[-1] // 2
    points = x[..., :half] + 1j * x[..., half:]
    speeds = np.array([base ** (-2 * i / x.shape[-1]) for i in range(half)])
    points = points * np.exp(1j * np.asarray(positions)[..., None] * speeds)
    return np.concatenate([points.real, points.imag], axis=-1)


def _turn(answer, vector, position, base=10000.0):
    """Return one vector, turned at one position."""
    turned = answer(np.array([[[vector]]], dtype=float), np.array([[position]]), base)
    assert_shape(turned, (1, 1, 1, len(vector)), "the rotated array")
    return np.asarray(turned)[0, 0, 0]


@exercise(
    "4.7",
    points=0.125,
    hint="zeros were turned into something else: nothing is added to x here. Sines and cosines multiply it.",
)
def test_nothing_is_added(rotate):
    assert_close(_turn(rotate, [0, 0, 0, 0], 3), [0, 0, 0, 0], "zeros, rotated at position 3")


@exercise(
    "4.7",
    points=0.125,
    hint="sine and cosine are exchanged: at position 0 the angle is 0, where the cosine is 1 and keeps a number "
    "in its place.",
)
def test_sine_and_cosine_are_not_exchanged(rotate):
    turned = _turn(rotate, [1, 0], 0)
    if np.abs(turned[0]) < 1e-6:
        raise CheckFailure("(1, 0)", f"({turned[0]:g}, {turned[1]:g})", "for (1, 0) at position 0")


@exercise(
    "4.7",
    points=0.125,
    hint="at position 0 nothing turns: do your positions begin at 1?",
)
def test_at_position_zero_nothing_turns(rotate):
    x = _random(6)
    assert_close(_turn(rotate, x, 0), x, "a vector rotated at position 0")


@exercise(
    "4.7",
    points=0.125,
    hint="a token stands where `positions` says, not where its column is: with padding before a text the two "
    "differ.",
)
def test_positions_are_those_given(rotate):
    x = _random(1, 3, 4, 6)
    turned = rotate(x.copy(), np.zeros((1, 4), dtype=int))
    assert_shape(turned, (1, 3, 4, 6), "the rotated array")
    assert_close(turned, x, "four tokens, all of them rotated at position 0")


@exercise(
    "4.7",
    points=0.125,
    hint="(1, 0) became longer or shorter: both new coordinates are made of the two *old* ones. Was the first "
    "written over before the second was computed?",
)
def test_both_coordinates_are_made_of_the_old_ones(rotate):
    for position in (1, 2):
        length = np.linalg.norm(_turn(rotate, [1, 0], position))
        assert_close(length, 1.0, f"the length of (1, 0), rotated at position {position}")


@exercise(
    "4.7",
    points=0.25,
    hint="a rotation makes no vector longer or shorter: of the four products in a plane exactly one "
    "has a minus.",
)
def test_a_rotation_keeps_the_length(rotate):
    x = _random(1, 3, 4, 6)
    turned = np.asarray(rotate(x.copy(), np.array([[0, 1, 5, 70]])))
    before, after = np.linalg.norm(x, axis=-1), np.linalg.norm(turned, axis=-1)
    assert_close(after, before, "the lengths of the rotated vectors")


@exercise(
    "4.7",
    points=0.25,
    hint="number i turns together with number i + K/2: a vector that is 1 at index 0 and 0 elsewhere "
    "may, after its rotation, differ from 0 at two indices. At which two with you?",
)
def test_a_number_turns_with_the_one_half_the_width_away(rotate):
    for index in range(8):
        x = np.zeros((1, 1, 1, 8))
        x[..., index] = 1.0
        reached = np.flatnonzero(np.abs(np.asarray(rotate(x, np.array([[1]])))[0, 0, 0]) > 1e-12)
        expected = sorted((index, (index + 4) % 8))
        assert_equal(reached.tolist(), expected, f"the indices that a 1 at index {index} reaches, K = 8")


@exercise(
    "4.7",
    points=0.125,
    hint="it turns the other way: (1, 0) is to turn towards (0, 1). Which of the two sines has the minus?",
)
def test_one_zero_turns_towards_zero_one(rotate):
    turned = _turn(rotate, [1, 0], 1)
    if not turned[1] > 0:
        raise CheckFailure(
            "(0.5403, 0.8415)", f"({turned[0]:.4f}, {turned[1]:.4f})", "for (1, 0) at position 1"
        )


@exercise(
    "4.7",
    points=0.125,
    hint="plane 0 turns by one radian a position, and each further plane more slowly: with you they all turn at one "
    "speed, or the later the faster.",
)
def test_later_planes_turn_more_slowly(rotate):
    turned = _turn(rotate, [1, 1, 0, 0], 1)
    first, second = np.arctan2(turned[2:], turned[:2])
    if not second < first - 1e-6:
        raise CheckFailure(
            "less than in plane 0", f"{second:.4g} after {first:.4g}", "for the angle in plane 1"
        )


@exercise(
    "4.7",
    points=0.125,
    hint="another `base` changes nothing: is the number 10000 written down where the argument belongs?",
)
def test_the_base_is_the_one_given(rotate):
    large, small = _turn(rotate, [1, 1, 0, 0], 1, 10000.0), _turn(rotate, [1, 1, 0, 0], 1, 100.0)
    if np.allclose(large, small, atol=1e-9):
        raise CheckFailure("two results", "the same", "for the bases 10000 and 100")


@exercise(
    "4.7",
    points=0.25,
    hint="direction and base are right, a plane's speed is not: plane i turns by base^(-2i/K) radians a position, so "
    "that in the last plane the power is nearly -1. What is it with you?",
)
def test_plane_i_turns_at_its_own_speed(rotate):
    x, positions = _random(1, 1, 5, 8), np.array([[0, 1, 2, 9, 500]])
    for base in (10000.0, 100.0):
        expected = _turned(x, positions[:, None], base)
        what = f"the rotated array, base {base:g}"
        assert_close(rotate(x.copy(), positions, base), expected, what, atol=1e-8)


def _rows_and_heads(answer, heads):
    x, positions = _random(3, heads, 4, 6), np.array([[0, 1, 2, 3], [0, 0, 0, 1], [7, 3, 5, 4]])
    turned = answer(x.copy(), positions)
    assert_shape(turned, x.shape, "the rotated array")
    return np.asarray(turned), _turned(x, np.broadcast_to(positions[:, None], (3, heads, 4)))


@exercise(
    "4.7",
    points=0.25,
    hint="the heads of one token share its position: with you the rows of `positions` meet the heads of x. "
    "Where do the angles need an axis of 1?",
)
def test_the_heads_of_a_row_share_its_positions(rotate):
    turned, expected = _rows_and_heads(rotate, heads=3)
    assert_close(turned[0], expected[0], "the three heads of row 0", atol=1e-8)


@exercise(
    "4.7",
    points=0.25,
    hint="the first row is right, the others are not: each row has positions of its own.",
)
def test_rows_have_positions_of_their_own(rotate):
    turned, expected = _rows_and_heads(rotate, heads=2)
    assert_close(turned, expected, "the rotated array of three rows and two heads", atol=1e-8)


def _score(answer, query, key, distance):
    return float(np.ravel(answer(np.array(query), np.array(key), np.array([distance]), 10000.0))[0])


@exercise(
    "4.7",
    points=0.125,
    hint="at distance 0 nothing turns, and the score is the dot product itself: a scale such as 1/√K is not "
    "asked for here.",
)
def test_at_distance_zero_the_score_is_the_dot_product(scores_at):
    query, key = _random(6), _random(6, seed=1)
    scores = scores_at(query.copy(), key.copy(), np.array([0, 0]), 10000.0)
    assert_shape(scores, (2,), "the scores at two distances")
    assert_close(scores, np.full(2, query @ key), "the scores at distance 0", rtol=1e-6, atol=1e-8)


@exercise(
    "4.7",
    points=0.125,
    hint="the score does not depend on the distance: did you turn query and key by the same angle?",
)
def test_scores_change_with_the_distance(scores_at):
    query, key = _random(6), _random(6, seed=1)
    near, far = _score(scores_at, query, key, 0), _score(scores_at, query, key, 4)
    if np.isclose(near, far, atol=1e-9):
        raise CheckFailure("another score at distance 4 than at 0", f"{far:.4g}")


@exercise(
    "4.7",
    points=0.125,
    hint="a key as far after the query has the same score as one before it: did the sign of the distance get "
    "lost?",
)
def test_before_and_after_differ(scores_at):
    query, key = _random(6), _random(6, seed=1)
    before, after = _score(scores_at, query, key, 3), _score(scores_at, query, key, -3)
    if np.isclose(before, after, atol=1e-9):
        raise CheckFailure("two scores", f"{before:.4g} twice", "at the distances 3 and -3")


@exercise(
    "4.7",
    points=0.125,
    hint="before and after are exchanged: with a positive distance the key is the earlier one, so it is the "
    "query that has turned further.",
)
def test_a_positive_distance_is_a_key_before_the_query(scores_at):
    score = _score(scores_at, [1.0, 0.0], [0.0, 1.0], 1)
    if not score > 0:
        raise CheckFailure("0.8415", f"{score:.4f}", "for query (1, 0) and key (0, 1) at distance 1")


@exercise(
    "4.7",
    points=0.25,
    hint="only the difference of the two angles counts, and it is that of *one* distance: put one of the two "
    "where it need not turn. And is the `base` that is given the one that is used?",
)
def test_scores_depend_on_the_distance_alone(scores_at):
    query, key, distances = _random(6), _random(6, seed=1), np.array([0, 1, -1, 4, 30])
    for base, position in ((10000.0, 0), (10000.0, 17), (50.0, 1000)):
        queries = _turned(np.tile(query, (5, 1)), np.full(5, position), base)
        keys = _turned(np.tile(key, (5, 1)), position - distances, base)
        expected = (queries * keys).sum(axis=-1)
        scores = scores_at(query.copy(), key.copy(), distances.copy(), base)
        assert_close(scores, expected, f"the scores for a query at position {position}", rtol=1e-6, atol=1e-8)


@exercise(
    "4.8",
    points=0.5,
    hint="without any block a GPT still has its tokens, its positions and its last norm. And a tied "
    "output layer has no matrix of its own.",
)
def test_a_gpt_without_blocks_has_tables_and_a_norm(gpt_parameters):
    for vocabulary, length, width in ((10, 4, 2), (50, 7, 12)):
        count = gpt_parameters(vocabulary, length, width, 0)
        expected = vocabulary * width + length * width + 2 * width
        assert_equal(
            count, expected, f"the parameters for V, T, D = {vocabulary}, {length}, {width} and no blocks"
        )


def _in_a_gpt_block(width, hidden):
    shapes = [(width, width)] * 4 + [(width, hidden), (hidden, width)]
    return sum(rows * columns + columns for rows, columns in shapes) + 2 * (width + width)


@exercise(
    "4.8",
    points=0.5,
    hint="each block brings the same: six matrices, each with as many biases as numbers come out of "
    "it, and two norms of two vectors. Which of these does your block leave out, or what does it count "
    "twice?",
)
def test_each_block_of_a_gpt_brings_the_same(gpt_parameters):
    for width in (2, 12):
        none, one, two = (gpt_parameters(10, 4, width, depth) for depth in range(3))
        assert_equal(
            one - none, _in_a_gpt_block(width, 4 * width), f"what the first block adds, width={width}"
        )
        assert_equal(two - one, _in_a_gpt_block(width, 4 * width), f"what the second adds, width={width}")
    # The published checkpoint's tensors, added up.
    assert_equal(gpt_parameters(50257, 1024, 768, 12), 124_439_808, "the parameters of the smallest GPT-2")


@exercise(
    "4.8",
    points=0.5,
    hint="the middle of the feed-forward layer may have any width: four times the model's is only what "
    "None stands for.",
)
def test_the_middle_may_have_any_width(gpt_parameters):
    for hidden in (1, 5, 100):
        added = gpt_parameters(10, 4, 6, 1, hidden) - gpt_parameters(10, 4, 6, 0, hidden)
        assert_equal(
            added, _in_a_gpt_block(6, hidden), f"what a block adds with width=6, hidden_dim={hidden}"
        )


@exercise(
    "4.8",
    points=0.5,
    hint="untied, GPT's output layer is a matrix of its own, from D to V, and nothing else: it has no "
    "biases.",
)
def test_an_untied_gpt_has_one_matrix_more(gpt_parameters):
    for depth in (0, 3):
        more = gpt_parameters(10, 4, 6, depth, tied=False) - gpt_parameters(10, 4, 6, depth, tied=True)
        assert_equal(more, 60, "what an output layer of its own adds with V = 10, D = 6")


def _in_a_llama_block(width, heads, kv_heads, hidden):
    head = width // heads
    outputs = [heads * head, kv_heads * head, kv_heads * head, width, hidden, hidden]
    return sum(width * columns for columns in outputs) + hidden * width + 2 * width


@exercise(
    "4.8",
    points=0.5,
    hint="a Llama's block: queries and output as wide as the model, keys and values only G heads wide, "
    "three matrices in the feed-forward layer, two norms of one vector each, no biases.",
)
def test_each_block_of_a_llama_brings_the_same(llama_parameters):
    for sizes in ((4, 2, 1, 8), (24, 6, 6, 10), (24, 6, 2, 64)):
        width, heads, kv_heads, hidden = sizes
        counts = [llama_parameters(10, width, depth, heads, kv_heads, hidden) for depth in range(3)]
        for more in np.diff(counts).tolist():
            assert_equal(more, _in_a_llama_block(*sizes), f"what a block adds with D, H, G, F = {sizes}")


@exercise(
    "4.8",
    points=0.5,
    hint="outside its blocks a Llama has its table of tokens, its last norm of one vector, and where "
    "it is not tied an output layer. It has no table of positions, for it rotates.",
)
def test_llamas_are_counted_as_published(llama_parameters):
    assert_equal(llama_parameters(10, 4, 0, 2, 1, 8), 44, "the parameters for V = 10, D = 4 and no blocks")
    # The published checkpoints' tensors, added up: SmolLM2-135M and Llama 2 7B (arXiv:2307.09288).
    assert_equal(llama_parameters(49152, 576, 30, 9, 3, 1536), 134_515_008, "the parameters of SmolLM2-135M")
    untied = llama_parameters(32000, 4096, 32, 32, 32, 11008, tied=False)
    assert_equal(untied, 6_738_415_616, "the parameters of Llama 2 7B, which is not tied")


IDS = np.array([[1, 11, 12, 13, 14, 15, 2, 0], [1, 16, 17, 18, 19, 20, 21, 2]])
SPECIAL = [0, 1, 2, 3]


def _masked(answer, choice, fate, *, rate=0.15, ids=IDS, mask_id=3):
    random_ids = np.arange(100, 100 + ids.size).reshape(ids.shape)
    parts = _are(
        answer(ids.copy(), [*SPECIAL], choice.copy(), fate.copy(), random_ids, mask_id, rate),
        "inputs",
        "targets",
        "weights",
    )
    for array, what in zip(parts, ("the inputs", "the targets", "the weights"), strict=True):
        assert_shape(array, ids.shape, what)
    return parts


@exercise(
    "4.9",
    points=0.5,
    hint="a token is chosen where its `choice` is below `rate`, and what is not chosen stays as it is "
    "in the inputs: is the comparison the right way round, and its limit the one given?",
)
def test_tokens_are_chosen_by_the_rate(masked_batch):
    ids = np.arange(10, 26).reshape(2, 8)
    choice = _uniform(2, 8)
    for rate, mask_id in ((0.15, 3), (0.4, 2)):
        # What is not chosen has every fate in turn, and none of them must matter.
        fate = np.where(choice < rate, 0.5, np.resize([0.5, 0.85, 0.95], (2, 8)))
        inputs = _masked(masked_batch, choice, fate, rate=rate, ids=ids, mask_id=mask_id)[0]
        expected = [mask_id if c < rate else i for i, c in zip(ids.flat, choice.flat, strict=True)]
        what = f"the inputs where the fate of all chosen is 0.5, rate={rate}, mask_id={mask_id}"
        assert_equal(inputs, np.reshape(expected, (2, 8)), what)


@exercise(
    "4.9",
    points=0.5,
    hint="special tokens are no words to guess: none is ever hidden, none is predicted, whatever the "
    "numbers say, padding included.",
)
def test_special_tokens_are_never_chosen(masked_batch):
    zeros, special = np.zeros(IDS.shape), np.isin(IDS, SPECIAL)
    inputs, _, weights = _masked(masked_batch, zeros, zeros)
    assert_equal(inputs[special].tolist(), [1, 2, 0, 1, 2], "the special tokens after masking")
    assert_close(weights[special], np.zeros(5), "their weights")
    assert_equal(inputs[~special].tolist(), [3] * 11, "all other tokens, where every choice is 0")


FATE = np.array([[0, 0.79, 0.8, 0.85, 0.899, 0.9, 0.95, 0], [0, 0.05, 0.1, 0.5, 0.81, 0.91, 0.999, 0]])


@exercise(
    "4.9",
    points=0.5,
    hint="of the chosen tokens four fifths are hidden, a tenth becomes a random token, and a tenth "
    "stays: fate below 0.8, from there to below 0.9, and the rest.",
)
def test_fate_divides_the_chosen_in_three(masked_batch):
    inputs = _masked(masked_batch, np.zeros(IDS.shape), FATE)[0]
    expected = [[1, 3, 102, 103, 104, 15, 2, 0], [1, 3, 3, 3, 112, 20, 21, 2]]
    assert_equal(inputs.tolist(), expected, "the inputs where all are chosen")


@exercise(
    "4.9",
    points=0.5,
    hint="all that was chosen is predicted, also what stayed as it was or became another word: inputs "
    "alone do not tell which these are.",
)
def test_all_that_was_chosen_is_predicted(masked_batch):
    choice = np.where(np.arange(8) % 3 == 0, 0.5, 0.1) * np.ones((2, 1))
    weights = _masked(masked_batch, choice, FATE)[2]
    expected = [[0, 1, 1, 0, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1, 0, 0]]
    assert_close(weights, expected, "the weights where every third token is not chosen")


@exercise(
    "4.9",
    points=0.5,
    hint="what the model has to say is the token that stood there first, not what it was replaced by.",
)
def test_targets_are_the_tokens_that_were_there(masked_batch):
    _, targets, _ = _masked(masked_batch, np.zeros(IDS.shape), FATE)
    _assert_kind(targets, "iu", "an int", "the targets")
    counted = ~np.isin(IDS, SPECIAL)
    assert_equal(targets[counted].tolist(), IDS[counted].tolist(), "the targets that count")


@exercise(
    "4.9",
    points=0.5,
    hint="the batch is masked anew each time it is seen: leave the caller's ids as they are.",
)
def test_the_ids_are_left_as_they_are(masked_batch):
    ids, zeros = IDS.copy(), np.zeros(IDS.shape)
    masked_batch(ids, [*SPECIAL], zeros, FATE, np.full(IDS.shape, 99), 3, 0.15)
    assert_equal(ids, IDS, "the ids after the call")


def _smoothed(answer, logits, targets, weights, *smoothing):
    from keras import ops

    tensors = _tensors(logits, weights)
    loss = answer(
        tensors[0], ops.convert_to_tensor(np.asarray(targets), dtype="int32"), tensors[1], *smoothing
    )
    assert_shape(loss, (), "the loss")
    return np.asarray(loss)


LOGITS, TARGETS = 3 * _random(2, 3, 5), np.array([[0, 3, 4], [2, 2, 1]])


def _losses(smoothing):
    """The loss of each token of LOGITS, with the whole distribution."""
    smooth = np.full((2, 3, 5), smoothing / 5)
    for index in np.ndindex(2, 3):
        smooth[(*index, TARGETS[index])] += 1 - smoothing
    return -(smooth * np.log(_softmax(LOGITS))).sum(axis=-1)


@exercise(
    "4.10",
    points=0.25,
    hint="with ε = 0 this is plain cross-entropy: minus the natural logarithm of the right token's "
    "probability, as a mean over the tokens.",
)
def test_without_smoothing_it_is_plain_cross_entropy(smoothed_cross_entropy):
    loss = _smoothed(smoothed_cross_entropy, LOGITS, TARGETS, np.ones((2, 3)), 0.0)
    # float32, logits up to ten
    assert_close(loss, _losses(0.0).mean(), "the loss without smoothing", rtol=1e-5)


@exercise(
    "4.10",
    points=0.5,
    hint="the target is a distribution over V tokens that sums to one, and the right token has a share "
    "in what is spread evenly: how much does each get from your ε?",
)
def test_smoothing_spreads_over_all_tokens(smoothed_cross_entropy):
    for smoothing in (0.1, 0.3):
        loss = _smoothed(smoothed_cross_entropy, LOGITS, TARGETS, np.ones((2, 3)), smoothing)
        assert_close(loss, _losses(smoothing).mean(), f"the loss with smoothing={smoothing}", rtol=1e-5)
    loss = _smoothed(smoothed_cross_entropy, LOGITS, TARGETS, np.ones((2, 3)))
    assert_close(loss, _losses(0.1).mean(), "the loss with smoothing left at 0.1", rtol=1e-5)


@exercise(
    "4.10",
    points=0.5,
    hint="padding has no say, neither in the sum nor in the number of tokens that you divide by; and "
    "every token that counts counts alike, in a short row too.",
)
def test_padding_has_no_say(smoothed_cross_entropy):
    weights = np.array([[1, 0, 0], [1, 1, 1]])
    loss = _smoothed(smoothed_cross_entropy, LOGITS, TARGETS, weights, 0.1)
    assert_close(loss, _losses(0.1)[weights > 0].mean(), "the mean of the four tokens that count", rtol=1e-5)


@exercise(
    "4.10",
    points=0.5,
    hint="logits may be of any size: a probability that is 0 in float32 has no logarithm. Where do you "
    "leave the logarithm's scale that you could have stayed on?",
)
def test_logits_may_be_of_any_size(smoothed_cross_entropy):
    for size in (300.0, 10_000.0):
        logits = [[[size, 0.0], [-size, -size]]]
        loss = _smoothed(smoothed_cross_entropy, logits, [[1, 0]], np.ones((1, 2)), 0.1)
        expected = (0.95 * size + np.log(2)) / 2
        assert_close(loss, expected, f"the loss of logits of {size:g}, 0 and -{size:g} twice", rtol=1e-5)


@exercise(
    "4.10",
    points=0.25,
    hint="a loss is there for its gradient, probabilities minus target: no step may leave keras.ops, "
    "and none may round or choose.",
)
def test_the_gradient_is_probabilities_minus_target(smoothed_cross_entropy):
    import tensorflow as tf

    logits, weights = _tensors(LOGITS, np.ones((2, 3)))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = smoothed_cross_entropy(logits, tf.constant(TARGETS, dtype="int32"), weights, 0.1)
        if not tf.is_tensor(loss):
            raise CheckFailure("a tensor", f"one {type(loss).__name__}", "as the loss")
    gradient = tape.gradient(loss, logits)
    if gradient is None:
        raise CheckFailure("a gradient", "none", "for the logits")
    target = 0.9 * np.eye(5)[TARGETS] + 0.02
    expected = (_softmax(LOGITS) - target) / 6
    assert_close(np.asarray(gradient), expected, "the gradient for the logits", rtol=1e-4, atol=1e-6)


def _rates(schedule, *steps):
    return [float(np.asarray(schedule(step))) for step in steps]


@exercise(
    "4.11",
    points=0.125,
    hint="Keras's first step is number 0, the paper's number 1: at your step 0 the rate is 0 or not finite, and "
    "the first batch teaches nothing.",
)
def test_the_first_step_teaches_something(WarmupSchedule):
    rate = _rates(WarmupSchedule(64, 4), 0)[0]
    if not 0 < rate < np.inf:
        raise CheckFailure("a finite number above 0", f"{rate:g}", "as the rate at step 0")


@exercise(
    "4.11",
    points=0.25,
    hint="there is no warm-up: the rate is to rise for W steps before it falls, and yours does not rise. Of the two "
    "terms, is it the smaller that you take, with n itself in the one for the warm-up?",
)
def test_the_rate_rises_at_first(WarmupSchedule):
    rates = _rates(WarmupSchedule(64, 4), 0, 3)
    if not rates[0] < rates[1]:
        raise CheckFailure(
            "a higher rate at step 3 than at step 0", f"{rates[0]:g}, then {rates[1]:g}", "with W = 4"
        )


@exercise(
    "4.11",
    points=0.25,
    hint="the rates are those of other steps: each of Keras's steps is one less than the paper's, not only "
    "step 0.",
)
def test_every_step_is_one_less_than_the_papers(WarmupSchedule):
    rates = _rates(WarmupSchedule(64, 4), 0, 1, 2, 3)
    rates = np.asarray(rates) / rates[0]
    assert_close(rates, [1, 2, 3, 4], "the rates at steps 0 to 3 over that at step 0, W = 4", rtol=1e-5)


@exercise(
    "4.11",
    points=0.125,
    hint="a model four times as wide is to be trained at half the rate: it falls with the root of the width. "
    "What does the width do with you?",
)
def test_the_rate_falls_with_the_root_of_the_width(WarmupSchedule):
    narrow, wide = _rates(WarmupSchedule(64, 4), 3)[0], _rates(WarmupSchedule(256, 4), 3)[0]
    assert_close(wide / narrow, 0.5, "the rate with D = 256 over that with D = 64", rtol=1e-5)


@exercise(
    "4.11",
    points=0.25,
    hint="where the two terms meet, after W steps, the rate is highest: 1/√(D W). It depends on W, too: what "
    "is your power of it in the warm-up?",
)
def test_the_rate_is_highest_when_the_warm_up_ends(WarmupSchedule):
    for width, warmup in ((64, 4), (512, 4000), (64, 100), (256, 100)):
        schedule = WarmupSchedule(width, warmup)
        rates = _rates(schedule, warmup // 2 - 1, warmup - 1)
        peak = 1 / np.sqrt(width * warmup)
        what = f"the rates half-way and at the end of W = {warmup}, D = {width}"
        assert_close(rates, [peak / 2, peak], what, rtol=1e-5)


@exercise(
    "4.11",
    points=0.125,
    hint="after the warm-up the rate stays as it is with you: there it has to fall.",
)
def test_the_rate_falls_after_the_warm_up(WarmupSchedule):
    rates = _rates(WarmupSchedule(64, 4), 3, 63)
    if not rates[1] < 0.9 * rates[0]:
        raise CheckFailure(
            "a lower rate at step 63 than at step 3", f"{rates[0]:g}, then {rates[1]:g}", "with W = 4"
        )


@exercise(
    "4.11",
    points=0.125,
    hint="after the warm-up the rate falls with the root of the step: four times the steps, half the rate.",
)
def test_the_rate_falls_with_the_root_of_the_step(WarmupSchedule):
    rates = _rates(WarmupSchedule(64, 4), 15, 63, 399)
    assert_close(
        rates, [1 / 32, 1 / 64, 1 / 160], "the rates at steps 15, 63 and 399, D = 64, W = 4", rtol=1e-5
    )


def _rate_in_a_graph(schedule, graph_step):
    """Return the rate that a compiled function gets for a step whose value it does not know."""
    import tensorflow as tf

    # As in an optimizer, whose graph is made without translating Python's statements.
    @tf.function(input_signature=[tf.TensorSpec((), graph_step)], autograph=False)
    def rate(step):
        return tf.convert_to_tensor(schedule(step))

    try:
        return rate(tf.constant(15, graph_step)).numpy()
    except Exception as error:
        # TensorFlow raises NotImplementedError for a tensor without a value, which is not what it means here.
        raise CheckFailure(
            "a learning rate", type(error).__name__, f"for a step that is a {graph_step} tensor in a graph"
        ) from error


@exercise(
    "4.11",
    points=0.25,
    hint="in an optimizer the step is a tensor whose value is not known while the graph is made: Python's `min`, "
    "`if` and `float` and all of NumPy fail there.",
)
def test_the_step_may_be_a_tensor_in_a_graph(WarmupSchedule):
    schedule = WarmupSchedule(64, 4)
    schedule(0)
    _rate_in_a_graph(schedule, "float32")


@exercise(
    "4.11",
    points=0.25,
    hint="in an optimizer the step is a whole number: a root, a power of -1.5 and a quotient need it as a "
    "float32 first.",
)
def test_it_works_in_a_compiled_optimizer(WarmupSchedule):
    import keras
    import tensorflow as tf

    schedule = WarmupSchedule(64, 4)
    schedule(0)
    _rate_in_a_graph(schedule, "int64")
    optimizer, weight = keras.optimizers.SGD(schedule), keras.Variable(np.zeros(1, dtype="float32"))
    optimizer.build([weight])

    @tf.function
    def train():
        optimizer.apply([tf.ones(1)])

    path = []
    try:
        for _ in range(6):
            before = np.asarray(weight).item()
            train()
            path.append(before - np.asarray(weight).item())
    except Exception as error:
        raise CheckFailure(
            "a learning rate", type(error).__name__, "in a compiled step of training"
        ) from error
    expected = [1 / 64, 2 / 64, 3 / 64, 4 / 64, 1 / np.sqrt(64 * 5), 1 / np.sqrt(64 * 6)]
    assert_close(path, expected, "the first six steps of SGD along a gradient of 1", rtol=1e-5)


@exercise(
    "4.11",
    points=0.25,
    hint="a saved optimizer makes its schedule anew from the config: it must hold everything that the "
    "constructor was given.",
)
def test_its_config_makes_the_same_schedule(WarmupSchedule):
    schedule = WarmupSchedule(width=100, warmup_steps=9)
    copy = WarmupSchedule.from_config(schedule.get_config())
    assert_close(_rates(copy, 0, 8, 50), _rates(schedule, 0, 8, 50), "the copy's rates", rtol=1e-6)


def _cache(rows=2, heads=3, slots=6, width=4):
    return _random(rows, heads, slots, width), _random(rows, heads, slots, width, seed=1)


def _token(seed, rows=2, heads=3, width=4):
    return [_random(rows, heads, 1, width, seed=10 * seed + part) for part in (3, 4, 5)]


def _cached(answer, token, cache, index, padding):
    arrays = [array.copy() for array in (*token, *cache)]
    parts = _are(answer(*arrays, index, np.array(padding)), "output", "keys", "values")
    for array, shape, what in zip(
        parts,
        (token[2].shape, cache[0].shape, cache[1].shape),
        ("the output", "the keys", "the values"),
        strict=True,
    ):
        assert_shape(array, shape, what)
    return parts


@exercise(
    "4.12",
    points=0.75,
    hint="the cache keeps its size: the new key goes into slot `index` of the keys, the new value into "
    "the same slot of the values, and every other slot stays as it is.",
)
def test_the_new_token_takes_its_slot(cached_attention):
    keys, values = _cache()
    for index in (0, 2, 5):
        token = _token(index)
        _, new_keys, new_values = _cached(cached_attention, token, (keys, values), index, [0, 0])
        for old, new, part, what in (
            (keys, new_keys, token[1], "keys"),
            (values, new_values, token[2], "values"),
        ):
            expected = np.concatenate([old[:, :, :index], part, old[:, :, index + 1 :]], axis=2)
            assert_close(new, expected, f"the {what} with index={index}")


@exercise(
    "4.12",
    points=0.75,
    hint="a token sees itself and all before it, but no slot after it: what is left over there is no "
    "text. How many slots is that at index 0?",
)
def test_what_is_left_over_is_not_seen(cached_attention):
    zeros, before = np.zeros((1, 1, 1, 2)), np.array([3.0, 5.0, 70.0, 900.0])
    cache = np.zeros((1, 1, 4, 2)), np.stack([before, -before], axis=-1)[None, None]
    token = (zeros, zeros, np.array([[[[13.0, -13.0]]]]))
    for index, mean in ((0, 13.0), (1, (3 + 13) / 2), (2, (3 + 5 + 13) / 3), (3, (3 + 5 + 70 + 13) / 4)):
        output = _cached(cached_attention, token, cache, index, [0])[0]
        assert_close(output, [[[[mean, -mean]]]], f"the mean of values, the new one 13, at index={index}")
    # What is left over may score as high as it likes.
    token, keys, values = _token(0, 1, 1), *_cache(1, 1)
    low, high = keys.copy(), keys.copy()
    low[:, :, 2:], high[:, :, 2:] = 0.0, 1e6 * np.sign(token[0])
    outputs = [_cached(cached_attention, token, (part, values), 1, [0])[0] for part in (low, high)]
    assert_close(outputs[1], outputs[0], "the output beside scores of a million after it")


def _full(queries, keys, values, padding):
    """Attention over whole texts, query by query, each over the real tokens up to itself."""
    output = np.zeros(queries.shape)
    for b, h, t in np.ndindex(*queries.shape[:3]):
        seen = slice(padding[b], t + 1)
        if padding[b] <= t:
            scores = keys[b, h, seen] @ queries[b, h, t] / np.sqrt(queries.shape[-1])
            output[b, h, t] = _softmax(scores) @ values[b, h, seen]
    return output


def _step_by_step(answer, padding, what):
    shape = (2, 3, 7, 4)
    queries, keys, values = _random(*shape), _random(*shape, seed=1), _random(*shape, seed=2)
    expected = _full(queries, keys, values, padding)
    first = max(padding)
    cache = [np.full(shape, 50.0), np.full(shape, 50.0)]
    for part, whole in zip(cache, (keys, values), strict=True):
        part[:, :, :first] = whole[:, :, :first]
    for t in range(first, 7):
        token = [whole[:, :, t : t + 1] for whole in (queries, keys, values)]
        output, *cache = _cached(answer, token, cache, t, padding)
        assert_close(output[:, :, 0], expected[:, :, t], f"the output at index={t}, {what}")


def _two_slots(answer, query):
    """Return the output where slot 0 has the key (2 ln 3, 0, 0, 0) and the value 1, and the new token zeros."""
    keys, values = np.zeros((1, 1, 3, 4)), np.zeros((1, 1, 3, 4))
    keys[..., 0, 0], values[..., 0, :] = 2 * np.log(3), 1.0
    zeros = np.zeros((1, 1, 1, 4))
    token = np.array([[[query]]], dtype=float), zeros, zeros
    return np.asarray(_cached(answer, token, (keys, values), 1, [0])[0])[0, 0, 0]


@exercise(
    "4.12",
    points=0.25,
    hint="the same comes out whatever the query is: its dot products with the keys decide who gets how much, and "
    "with you all slots that are seen have equal shares.",
)
def test_the_query_has_a_say(cached_attention):
    one, other = _two_slots(cached_attention, [1, 0, 0, 0]), _two_slots(cached_attention, [-1, 0, 0, 0])
    if np.allclose(one, other):
        raise CheckFailure("two outputs", f"{one[0]:.4g} twice", "for a query and its opposite")


@exercise(
    "4.12",
    points=0.25,
    hint="each score is a dot product divided by √K, with K the width of a head: by the root of what do you "
    "divide, if at all?",
)
def test_scores_are_divided_by_the_root_of_the_width(cached_attention):
    output = _two_slots(cached_attention, [1, 0, 0, 0])
    assert_close(
        output, [0.75] * 4, "the output for scores of ln 3 and 0, values 1 and 0, K = 4, three slots"
    )


@exercise(
    "4.12",
    points=0.25,
    hint="for one row and one head it is right, for several it is not: step by step it must give what full causal "
    "attention gives for the whole text, with keys and values of its own for each row and head.",
)
def test_step_by_step_equals_full_attention(cached_attention):
    _step_by_step(cached_attention, [0, 0], "no padding")


@exercise(
    "4.12",
    points=0.75,
    hint="padding stands at the beginning and gets no weight at all, in each row as many slots as that "
    "row has; the weights of the others sum to one without it.",
)
def test_padding_at_the_beginning_is_not_seen(cached_attention):
    _step_by_step(cached_attention, [2, 0], "padding [2, 0]")
    _step_by_step(cached_attention, [1, 3], "padding [1, 3]")


def _interleaved(x, position, base=10000.0):
    """Rotary embedding of one vector with neighbours as pairs."""
    speeds = base ** (-np.arange(0, len(x), 2) / len(x))
    points = (x[0::2] + 1j * x[1::2]) * np.exp(1j * position * speeds)
    return np.stack([points.real, points.imag], axis=-1).ravel()


def _assert_rows_in_their_head(result, weight, heads):
    width = len(weight) // heads
    for head in range(heads):
        rows = slice(head * width, (head + 1) * width)
        if sorted(map(tuple, weight[rows])) != sorted(map(tuple, np.asarray(result)[rows])):
            raise CheckFailure("its own rows, reordered", "others", f"in head {head} of {heads}")


def _orders(heads, width):
    """Return where each row comes from when a file's rows are reordered for `rotate`, and on the way back."""
    pairs = np.arange(heads * width).reshape(heads, width // 2, 2).swapaxes(1, 2).ravel()
    return pairs, np.argsort(pairs)


# Heads and head widths. With four rows to a head there and back are the same.
HEADS = ((1, 8), (3, 4), (2, 12))


@exercise(
    "4.13",
    points=0.125,
    hint="it is the rows that are reordered, and a matrix (H·K, D) is to come back, no other shape: which axes "
    "did you exchange?",
)
def test_the_weight_keeps_its_shape(unpermute):
    for heads, width in HEADS:
        weight = _random(heads * width, 5)
        assert_shape(
            unpermute(weight.copy(), heads), weight.shape, f"the weight with H, K = {heads}, {width}"
        )


@exercise(
    "4.13",
    points=0.125,
    hint="the rows are reordered as if they were one large head: each head's rows stay among themselves, and "
    "`num_heads` says how many heads there are.",
)
def test_the_rows_are_more_than_one_head(unpermute):
    for heads, width in ((3, 4), (2, 12)):
        weight = _random(heads * width, 5)
        result = np.asarray(unpermute(weight.copy(), heads))
        if any(np.array_equal(result, weight[order]) for order in _orders(1, heads * width)):
            raise CheckFailure(f"{heads} heads", "one", f"among {heads * width} rows")


@exercise(
    "4.13",
    points=0.25,
    hint="rows left their head: the rows of head 0 stay the first K. Into how many parts did you cut the rows, "
    "and which of these axes are the heads?",
)
def test_rows_stay_in_their_head(unpermute):
    for heads, width in HEADS:
        weight = _random(heads * width, 5)
        _assert_rows_in_their_head(unpermute(weight.copy(), heads), weight, heads)


@exercise("4.13", points=0.125, hint="the rows stand as they stood: nothing was reordered.")
def test_the_rows_are_reordered(unpermute):
    weight = _random(8, 5)
    if np.array_equal(unpermute(weight.copy(), 1), weight):
        raise CheckFailure("other rows than 0, 1, 2, ...", "these", "in their order, for one head of 8")


@exercise(
    "4.13",
    points=0.125,
    hint="this is `permute`: the two directions are exchanged. In the file 2i and 2i + 1 are neighbours, and "
    "half a head apart afterwards.",
)
def test_the_two_directions_are_not_exchanged(unpermute):
    weight = _random(8, 5)
    if np.array_equal(unpermute(weight.copy(), 1), weight[_orders(1, 8)[1]]):
        raise CheckFailure("the way from the file", "the way back", "for one head of 8 rows")


@exercise(
    "4.13",
    points=0.25,
    hint="`rotate` turns row i together with row i + K/2, at the speed of plane i: are these the file's rows 2i "
    "and 2i + 1 with you?",
)
def test_pairs_of_the_file_are_pairs_of_rotate(unpermute):
    for heads, width in HEADS:
        order = np.asarray(unpermute(np.arange(heads * width)[:, None] * np.ones(3), heads))[:, 0].astype(int)
        for head, i in np.ndindex(heads, width // 2):
            first, second = head * width + i, head * width + i + width // 2
            assert_equal(
                sorted((int(order[first]), int(order[second]))),
                [head * width + 2 * i, head * width + 2 * i + 1],
                f"the file's rows that stand at {first} and {second} with H, K = {heads}, {width}",
            )


@exercise(
    "4.13",
    points=0.5,
    hint="the pairs are right, and yet they turn the other way: of 2i and 2i + 1 it is the even one that is the "
    "first coordinate.",
)
def test_scores_are_those_of_the_file(unpermute):
    for heads, width in ((1, 8), (3, 4), (2, 16)):
        files = [_random(heads * width, 5, seed=seed) for seed in (1, 2)]
        ours = [np.asarray(unpermute(weight.copy(), heads)) for weight in files]
        tokens = _random(2, 5)
        for head in range(heads):
            rows = slice(head * width, (head + 1) * width)
            for positions in ((3, 3), (5, 2), (40, 1)):
                vectors = [
                    _interleaved(w[rows] @ x, p) for w, x, p in zip(files, tokens, positions, strict=True)
                ]
                turned = [_turned(w[rows] @ x, p) for w, x, p in zip(ours, tokens, positions, strict=True)]
                what = f"the score in head {head} of {heads}, width {width}, at positions {positions}"
                assert_close(turned[0] @ turned[1], vectors[0] @ vectors[1], what, rtol=1e-6, atol=1e-8)


@exercise(
    "4.13",
    points=0.25,
    hint="on the way back, too, the rows stay in their head: what did you do with `num_heads`?",
)
def test_permute_keeps_rows_in_their_head(permute):
    for heads, width in HEADS:
        weight = _random(heads * width, 5)
        result = permute(weight.copy(), heads)
        assert_shape(result, weight.shape, f"the file's weight with H, K = {heads}, {width}")
        _assert_rows_in_their_head(result, weight, heads)


@exercise(
    "4.13",
    points=0.25,
    hint="there and back, every row must stand where it stood: the way back is not the same step once "
    "more, except where a head has no more than four rows.",
)
def test_permute_is_the_way_back(permute):
    # Written row by row, so that it holds whatever `unpermute` is.
    for heads, width in HEADS:
        weight = _random(heads * width, 5)
        expected = np.empty_like(weight)
        for head, i, second in np.ndindex(heads, width // 2, 2):
            expected[head * width + 2 * i + second] = weight[head * width + i + second * (width // 2)]
        assert_close(
            permute(weight.copy(), heads), expected, f"the file's weight with H, K = {heads}, {width}"
        )


# Budgets with a vocabulary and a length, from a toy to the largest GPT-2.
BUDGETS = (
    (60_000, 100, 32), (1_000_000, 1000, 128), (7_500_000, 8000, 256), (30_000_000, 16000, 512),
    (124_500_000, 50257, 1024), (1_600_000_000, 50257, 1024),
)  # fmt: skip


def _shapes(answer):
    """Yield what the answer chooses for each budget, in words and in numbers."""
    for budget, vocabulary, length in BUDGETS:
        shape = answer(budget, vocabulary, length)
        if not isinstance(shape, dict) or set(shape) != {"width", "depth", "num_heads"}:
            raise CheckFailure('a dict with "width", "depth" and "num_heads"', f"{shape!r:.80}")
        for name, number in shape.items():
            if not isinstance(number, int | np.integer) or number < 1:
                raise CheckFailure("an int of at least 1", f"{number!r:.40}", f'for "{name}"')
        shape = {name: int(shape[name]) for name in ("width", "depth", "num_heads")}
        width, depth, heads = shape.values()
        what = f"with a budget of {budget:,}, V = {vocabulary}, T = {length}, for {shape}"
        count = (vocabulary + length + 2) * width + depth * _in_a_gpt_block(width, 4 * width)
        yield what, budget, count, width, depth, heads


@exercise(
    "4.14",
    points=0.5,
    hint="a head has 32, 64 or 128 numbers, and the heads together the model's width, with nothing "
    "left over.",
)
def test_heads_have_one_of_three_widths(choose_shape):
    for what, _, _, width, _, heads in _shapes(choose_shape):
        if width not in (32 * heads, 64 * heads, 128 * heads):
            raise CheckFailure("heads of 32, 64 or 128", f"{width / heads:g}", what)


@exercise(
    "4.14",
    points=1,
    hint="more is spent than there is: do you count the two tables, the biases and the norms, as 4.8 "
    "does? In a small model the tables are most of it.",
)
def test_the_budget_is_not_exceeded(choose_shape):
    for what, budget, count, *_ in _shapes(choose_shape):
        if count > budget:
            raise CheckFailure(f"at most {budget:,} parameters", f"{count:,}", what)


@exercise(
    "4.14",
    points=1,
    hint="more than a tenth is left over: of the shapes that fit, do you look for one that uses the "
    "budget, small and large ones alike?",
)
def test_nine_tenths_are_spent(choose_shape):
    for what, budget, count, *_ in _shapes(choose_shape):
        if count < 0.9 * budget:
            raise CheckFailure(f"at least {0.9 * budget:,.0f} parameters", f"{count:,}", what)


@exercise(
    "4.14",
    points=0.5,
    hint="neither a pancake nor a tower: width and number of blocks are to grow together.",
)
def test_width_and_depth_are_in_proportion(choose_shape):
    for what, _, _, width, depth, _ in _shapes(choose_shape):
        if not 16 * depth <= width <= 128 * depth:
            raise CheckFailure("a width of 16 to 128 times the depth", f"{width / depth:.4g} times", what)
