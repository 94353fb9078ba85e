"""What every layer and every language model of the course has to do, in one place.

A chapter lists its layers; each entry is one line, and each of the contract's tests runs on each entry:

    # tests/test_recurrent_contract.py
    from contract import Case, LanguageModelContract, LayerContract, floats, ids

    class TestLayers(LayerContract):
        cases = [
            Case("LSTM", lambda: LSTM(6), [floats(2, 5, 3)], causal=True, masked=lambda real: {"mask": real}),
            Case("LSTM, last state", lambda: LSTM(6, return_state=True), [floats(2, 5, 3)]),
            Case("WordEmbedding", lambda: WordEmbedding(7, 4), [ids(2, 5, below=7)]),
        ]

    class TestModels(LanguageModelContract):
        cases = [Case("LSTM", lambda: RecurrentLanguageModel(11, units=8), [ids(2, 5, below=11)], causal=True)]

`Case.make` takes no argument and returns a new, unbuilt layer. `Case.inputs` are NumPy arrays, the positional
arguments of its call (or one array for a call with one argument); `Case.kwargs` are further arguments. The first
dimension of every input is the batch. Keep everything tiny: a case costs about two seconds. What a layer cannot do by
its nature is said in its `Case`, with a comment why. `LanguageModelContract` includes `LayerContract`.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lmcourse.core import RecomputingDecoder, check_ids

# float32 keeps 24 bits; some tens of operations on numbers of order one lose a few of them.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
# Half precision keeps 11 bits (float16) or 8 (bfloat16): a result may be off by this part of the largest one.
HALF = {"mixed_float16": 0.02, "mixed_bfloat16": 0.1}


@dataclasses.dataclass(frozen=True)
class Case:
    """One layer or model in one configuration.

    Attributes:
        name: what the test's report calls it.
        make: makes a new one.
        inputs: the positional arguments of its call.
        kwargs: the keyword arguments of its call that are no tensors (flags).
        causal: whether outputs up to time t must not depend on inputs after t; the first input is then (B, T, ...), and
            so is each other one but those that are seen whole, such as the memory of a translator.
        masked: from a bool array (B, T), True on real positions, to the keyword arguments that mask the others.
            None where the layer takes no mask.
        rows_are_independent: False for a layer that mixes the rows of a batch.
        output_dtype: of floating outputs under mixed precision; None: the policy's compute dtype.
        half_precision: False where half precision is refused.
        wrong: further inputs that must be refused, each with a word that the message must have.
        optional: names of constructor arguments that are not in the configuration.
        bad_ranks: False where an input may have any rank.
        trained: False where a case beside it trains the same layers: a model is compiled for it, which takes longest.
        stateful: whether a call changes what the next one gives, so that no two tests may share a layer.
    """

    name: str
    make: Callable[[], keras.layers.Layer]
    inputs: Sequence[Any]
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    causal: bool = False
    masked: Callable[[np.ndarray], dict[str, Any]] | None = None
    rows_are_independent: bool = True
    output_dtype: str | None = None
    half_precision: bool = True
    wrong: Sequence[tuple[Sequence[Any], str]] = ()
    optional: Sequence[str] = ()
    bad_ranks: bool = True
    trained: bool = True
    stateful: bool = False
    _shared: list = dataclasses.field(default_factory=list, init=False, repr=False, compare=False)

    def fresh(self, seed: int = 0) -> keras.layers.Layer:
        """Return a new layer, built, with the weights that the seed gives."""
        keras.utils.set_random_seed(seed)
        layer = self.make()
        layer(*self.inputs, **self.kwargs)
        return layer

    def shared(self) -> keras.layers.Layer:
        """Return the layer that those tests share which leave it as it is: to make one, and its graphs, takes long."""
        if self.stateful:
            return self.fresh()
        if not self._shared:
            self._shared.append(self.fresh())
        return self._shared[0]


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Return normal numbers of this shape, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def ids(*shape: int, below: int, seed: int = 0) -> np.ndarray:
    """Return uniform ids of this shape, int32."""
    return np.random.default_rng(seed).integers(below, size=shape, dtype="int32")


class _Cases:
    """Runs each test on each case."""

    cases: Sequence[Case] = ()

    @staticmethod
    def pytest_generate_tests(metafunc):
        if "case" in metafunc.fixturenames:
            cases = metafunc.cls.cases
            metafunc.parametrize("case", cases, ids=[case.name for case in cases])


class LayerContract(_Cases):
    def test_the_shape_of_the_output_is_known_before_it_is_computed(self, case):
        layer = case.shared()
        found = _shapes(layer(*case.inputs, **case.kwargs))
        assert _shapes(layer.compute_output_spec(*_symbolic(case.inputs), **case.kwargs)) == found
        with_any_batch = _shapes(
            layer.compute_output_spec(*_symbolic(case.inputs, batch=None), **case.kwargs)
        )
        assert [shape[1:] for shape in with_any_batch] == [shape[1:] for shape in found]

    def test_a_compiled_call_gives_what_an_eager_one_gives(self, case):
        layer = case.shared()
        compiled = tf.function(lambda *inputs: layer(*inputs, **case.kwargs), jit_compile=False)
        _assert_close(compiled(*case.inputs), layer(*case.inputs, **case.kwargs), **FLOAT32)

    def test_a_saved_and_loaded_model_gives_the_same(self, case, tmp_path):
        layer = case.shared()
        model = layer if isinstance(layer, keras.Model) else _functional(layer, case)
        model.save(tmp_path / "saved.keras")
        loaded = keras.saving.load_model(tmp_path / "saved.keras", safe_mode=True)
        arguments = case.inputs if isinstance(layer, keras.Model) else [list(case.inputs)]
        kwargs = case.kwargs if isinstance(layer, keras.Model) else {}
        _assert_equal(loaded(*arguments, **kwargs), model(*arguments, **kwargs))

    def test_the_configuration_makes_the_same_layer(self, case):
        layer = case.shared()
        config = layer.get_config()
        again = type(layer).from_config(config)
        assert again.get_config() == config
        again(*case.inputs, **case.kwargs)
        again.set_weights(layer.get_weights())
        _assert_equal(again(*case.inputs, **case.kwargs), layer(*case.inputs, **case.kwargs))

    def test_the_configuration_names_every_argument_of_the_constructor(self, case):
        layer = case.make()
        parameters = inspect.signature(type(layer).__init__).parameters.values()
        named = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        assert named - {"self", *case.optional} <= set(layer.get_config())

    def test_a_step_down_the_gradient_of_every_weight_lowers_the_loss(self, case):
        layer = case.fresh()
        if not layer.trainable_variables:
            pytest.skip("nothing to train")
        with tf.GradientTape() as tape:
            before = _loss(layer, case)
        gradients = tape.gradient(before, [v.value for v in layer.trainable_variables])
        missing = [v.path for v, g in zip(layer.trainable_variables, gradients, strict=True) if g is None]
        assert not missing
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        norm = float(tf.linalg.global_norm(gradients))
        assert 0 < norm < np.inf
        # Along the gradient the loss falls by about the step times the norm: 1e-3 of the loss, unless it is tiny.
        step = min(1e-3 * float(before) / norm**2, 0.1 / norm)
        for variable, gradient in zip(layer.trainable_variables, gradients, strict=True):
            variable.assign_sub(step * gradient)
        assert float(_loss(layer, case)) < float(before)

    @pytest.mark.parametrize("policy", HALF)
    def test_half_precision_is_finite_near_and_of_its_dtype(self, case, policy):
        if not case.half_precision:
            pytest.skip("refused by this layer")
        exact = case.shared()
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            half = case.fresh()
        finally:
            keras.config.set_dtype_policy(before)
        half.set_weights(exact.get_weights())
        wanted = case.output_dtype or half.compute_dtype
        results = zip(
            _leaves(half(*case.inputs, **case.kwargs)),
            _leaves(exact(*case.inputs, **case.kwargs)),
            strict=True,
        )
        for got, expected in results:
            if np.issubdtype(expected.dtype, np.floating):
                assert got.dtype.name == wanted
                assert np.isfinite(got.astype("float32")).all()
                error = np.abs(got.astype("float32") - expected).max(initial=0)
                assert error <= HALF[policy] * max(np.abs(expected).max(initial=0), 1e-3)

    def test_what_comes_later_does_not_change_what_came_before(self, case):
        if not case.causal:
            pytest.skip("not causal")
        layer, seen = case.shared(), case.inputs[0].shape[1] // 2
        time = np.arange(case.inputs[0].shape[1])
        later = np.broadcast_to(time >= seen, case.inputs[0].shape[:2])
        changed = [_changed(array, later) for array in case.inputs]
        first = _leaves(layer(*case.inputs, **case.kwargs))[0]
        other = _leaves(layer(*changed, **case.kwargs))[0]
        np.testing.assert_allclose(other[:, :seen], first[:, :seen], **FLOAT32)
        assert not np.allclose(other[:, seen:], first[:, seen:], **FLOAT32), "nothing changed at all"

    def test_what_stands_in_the_padding_does_not_change_real_positions(self, case):
        if case.masked is None:
            pytest.skip("takes no mask")
        layer, (rows, time) = case.shared(), case.inputs[0].shape[:2]
        real = (
            np.arange(time) < np.maximum(time - 2 * np.arange(rows), 1)[:, None]
        )  # (B, T): row b has 2b less
        changed = [_changed(array, ~real) for array in case.inputs]
        first = _leaves(layer(*case.inputs, **case.kwargs, **case.masked(real)))
        other = _leaves(layer(*changed, **case.kwargs, **case.masked(real)))
        for a, b in zip(first, other, strict=True):
            if a.ndim == 4 and a.shape[2] == time:  # what each query of each head looks at
                a, b = a.swapaxes(1, 2), b.swapaxes(1, 2)
            kept = (a[real], b[real]) if a.shape[:2] == real.shape else (a, b)
            np.testing.assert_allclose(kept[1], kept[0], **FLOAT32)

    def test_a_mask_that_the_result_carries_is_one_of_its_positions(self, case):
        # Keras lets the inputs of a loss be masked by it, and multiplies in whatever shape it has.
        layer, kwargs = case.shared(), dict(case.kwargs)
        if case.masked is not None:
            kwargs |= case.masked(np.ones(case.inputs[0].shape[:2], "bool"))
        for output in keras.tree.flatten(layer(*case.inputs, **kwargs)):
            carried = getattr(output, "_keras_mask", None)
            assert carried is None or tuple(carried.shape) == tuple(output.shape[:2])

    def test_a_row_does_not_depend_on_the_others(self, case):
        if not case.rows_are_independent:
            pytest.skip("mixes rows")
        layer = case.shared()
        whole = _leaves(layer(*case.inputs, **case.kwargs))
        alone = _leaves(layer(*[array[:1] for array in case.inputs], **case.kwargs))
        for a, b in zip(whole, alone, strict=True):
            np.testing.assert_allclose(b, a[:1], **FLOAT32)

    def test_an_input_of_a_wrong_rank_is_refused_by_name(self, case):
        if not case.bad_ranks:
            pytest.skip("takes any rank")
        for index, array in enumerate(case.inputs):
            for bad in (array[0], array[None]):
                inputs = [*case.inputs[:index], bad, *case.inputs[index + 1 :]]
                for layer in (
                    case.make(),
                    case.shared(),
                ):  # one that is built no longer looks at shapes in `build`
                    _assert_refused(layer, inputs, case.kwargs, re.escape(str(bad.shape)))

    def test_other_wrong_inputs_are_refused_by_name(self, case):
        if not case.wrong:
            pytest.skip("none listed")
        for inputs, word in case.wrong:
            _assert_refused(case.make(), inputs, case.kwargs, re.escape(word))


class LanguageModelContract(LayerContract):
    """For a `NeuralLanguageModel`; its case has one input, the ids, and `causal=True`."""

    def test_its_distributions_sum_to_one(self, case):
        model = case.shared()
        distributions = np.exp(model.next_log_probs([[], [1], case.inputs[0][0].tolist()]))
        assert distributions.shape == (3, model.vocab_size)
        # float32 sums V terms of the size of 1/V
        np.testing.assert_allclose(distributions.sum(axis=1), 1, atol=1e-5)

    def test_scoring_a_row_is_asking_for_each_next_token(self, case):
        model, rows = case.shared(), case.inputs[0]
        scored = model.token_log_probs(rows)
        for t in range(rows.shape[1]):
            asked = model.next_log_probs(rows[:, :t].tolist())[np.arange(len(rows)), rows[:, t]]
            np.testing.assert_allclose(scored[:, t], asked, **FLOAT32)

    def test_its_decoder_gives_what_recomputing_gives(self, case):
        model, row = case.shared(), case.inputs[0][0].tolist()
        prefixes = [row[:2], [], row[:1]]
        decoder, plain = model.decoder(prefixes), RecomputingDecoder(model, prefixes)
        for chosen, tokens in (([0, 1, 2], [1, 2, 0]), ([2, 0, 0, 1], [0, 1, 1, 2])):
            for each in (decoder, plain):
                each.select(chosen)
                each.append(tokens)
            np.testing.assert_allclose(decoder.log_probs(), plain.log_probs(), **FLOAT32)

    def test_masked_tokens_score_zero_and_change_nothing(self, case):
        model, rows = case.shared(), case.inputs[0]
        mask = np.arange(rows.size).reshape(rows.shape) % 2 == 0
        scored = model.token_log_probs(rows, mask)
        assert not scored[~mask].any()
        np.testing.assert_allclose(scored[mask], model.token_log_probs(rows)[mask], **FLOAT32)

    def test_ids_beyond_the_vocabulary_are_refused(self, case):
        model = case.shared()
        for wrong in (-1, model.vocab_size):
            with pytest.raises(ValueError, match=f"vocab_size - 1.*got {wrong}"):
                model.token_log_probs([[0, wrong]])
            with pytest.raises(ValueError, match=f"vocab_size - 1.*got {wrong}"):
                model.next_log_probs([[wrong]])

    def test_it_learns_a_row_by_heart_and_keeps_its_optimizer_when_saved(self, case, tmp_path):
        if not case.trained:
            pytest.skip("trained in another case")
        model, y = case.fresh(), case.inputs[0]
        check_ids(y, model.vocab_size)
        x = np.concatenate([np.full((len(y), 1), model.start_id, "int32"), y[:, :-1]], axis=1)
        model.compile(optimizer=keras.optimizers.Adam(0.01))
        losses = [model.train_on_batch(x, y, np.ones(y.shape, "float32")) for _ in range(6)]
        assert losses[-1] < losses[0]
        model.save(tmp_path / "trained.keras")
        loaded = keras.saving.load_model(tmp_path / "trained.keras", safe_mode=True)
        assert int(loaded.optimizer.iterations) == 6
        _assert_equal(loaded.token_log_probs(y), model.token_log_probs(y))


def _leaves(outputs: Any) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(leaf) for leaf in keras.tree.flatten(outputs) if leaf is not None]


def _shapes(outputs: Any) -> list[tuple]:
    return [tuple(leaf.shape) for leaf in keras.tree.flatten(outputs) if leaf is not None]


def _assert_close(got: Any, expected: Any, **tolerance: float) -> None:
    for a, b in zip(_leaves(got), _leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def _assert_equal(got: Any, expected: Any) -> None:
    """The same operations on the same machine: the same bits."""
    for a, b in zip(_leaves(got), _leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def _symbolic(inputs: Sequence[np.ndarray], **batch: None) -> list[keras.KerasTensor]:
    """Return the inputs as shapes; `batch=None` leaves the number of rows open."""
    return [
        keras.KerasTensor((batch.get("batch", array.shape[0]), *array.shape[1:]), str(array.dtype))
        for array in inputs
    ]


def _functional(layer: keras.layers.Layer, case: Case) -> keras.Model:
    """Return a model of this layer alone."""
    inputs = [keras.Input(batch_shape=(None, *a.shape[1:]), dtype=str(a.dtype)) for a in case.inputs]
    outputs = [leaf for leaf in keras.tree.flatten(layer(*inputs, **case.kwargs)) if leaf is not None]
    return keras.Model(inputs, outputs)


def _loss(layer: keras.layers.Layer, case: Case) -> tf.Tensor:
    """Return the mean square distance of the outputs from fixed random ones."""
    outputs = [o for o in keras.tree.flatten(layer(*case.inputs, **case.kwargs)) if o is not None]
    outputs = [output for output in outputs if output.dtype.is_floating]
    targets = [floats(*output.shape, seed=1) for output in outputs]
    return tf.add_n([tf.reduce_mean((o - t) ** 2) for o, t in zip(outputs, targets, strict=True)])


def _changed(array: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the array with other values at these positions (B, T)."""
    changed = array.copy()
    if array.shape[:2] != where.shape:
        return changed
    if np.issubdtype(array.dtype, np.floating):
        changed[where] = 3 - changed[where]
    else:
        changed[where] = (changed[where] + 1) % (array.max() + 1)  # still an id
    return changed


def _assert_refused(layer: keras.layers.Layer, inputs: Sequence[Any], kwargs: dict, pattern: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at below
        layer(*inputs, **kwargs)
    # Keras lists the arguments below the message, so that a shape stands there in any case.
    said = str(caught.value).split("Arguments received by")[0]
    assert re.search(pattern, said), f"{pattern} is not in: {said}"
