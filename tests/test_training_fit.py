"""`fit`: what it learns, how it stops, and that a run goes on bit for bit."""

import contextlib
import io
import math
import os
import pathlib
import signal
import subprocess
import sys
import threading
import types

import keras
import numpy as np
import pytest
from small_models import Bigram, CarriesState, CausalBag

from lmcourse.core import score
from lmcourse.training import (
    Checkpoint,
    CheckpointError,
    DocumentBatches,
    Extra,
    History,
    StreamBatches,
    fit,
    fitting,
)

TESTS = pathlib.Path(__file__).parent


def texts(count=60, seed=0):
    """Return walks on a circle of eleven, each step one or two: of each token ln 2 nats are chance."""
    generator = np.random.default_rng(seed)
    return [np.cumsum(generator.integers(1, 3, size=generator.integers(2, 30))) % 11 for _ in range(count)]


def bigram(optimizer=None):
    keras.utils.set_random_seed(0)
    model = Bigram(11)
    model.compile(optimizer=optimizer or keras.optimizers.Adam(0.1))
    return model


def whole_state_model(kind="documents"):
    """Return model and batches with everything that a checkpoint has to keep: moments, schedule, dropout, state."""
    keras.utils.set_random_seed(0)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 30, warmup_target=0.02, warmup_steps=5)
    if kind == "documents":
        model, batches = CausalBag(11, units=8), DocumentBatches(texts(), 8)
    else:
        model, batches = CarriesState(11, batch_size=4, units=8), StreamBatches(texts(), 4, 6)
    model.compile(optimizer=keras.optimizers.AdamW(schedule, global_clipnorm=1.0))
    return model, batches


def state(model):
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


def assert_same_state(model, other):
    for a, b in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(a, b)


class At(keras.callbacks.Callback):
    """Does something after a step."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == self.step:
            self.action()


# ---------------------------------------------------------------- training


def test_it_learns_what_can_be_learned_and_no_more():
    model = bigram()
    history = fit(
        model, DocumentBatches(texts(200), 20), steps=80, validation=texts(50, seed=1), validate_every=40
    )
    # One of two tokens follows: ln 2 = 0.693 nats; the first of a document is one of two as well.
    assert history.validation_steps == [40, 80]
    assert math.log(2) - 0.02 < history.validation_loss[-1] < 0.75
    assert history.validation_loss[-1] == score(model, texts(50, seed=1)).nats_per_token
    assert history.steps == list(range(1, 81))
    assert history.loss[0] == pytest.approx(math.log(11), abs=0.1)


def test_a_step_is_the_models_own_train_step():
    ours, plain = bigram(), bigram()
    batches, same = DocumentBatches(texts(), 8), DocumentBatches(texts(), 8)
    history = fit(ours, batches, steps=5)
    for loss in history.loss:
        plain.reset_metrics()
        # one compiled graph against several: float32 sums may be in another order
        assert plain.train_on_batch(*next(same)) == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(ours.get_weights()[0], plain.get_weights()[0], rtol=1e-5, atol=1e-6)


def test_batches_of_many_widths_are_trained_with_one_trace():
    class Counts(Bigram):
        traces = 0

        def call(self, ids, training=None):
            self.traces += bool(training)
            return super().call(ids)

    model = Counts(11)
    model.compile()
    batches = DocumentBatches(texts(), 4)
    assert len(batches.widths) > 2
    fit(model, batches, steps=15)
    fit(model, batches, steps=5)
    assert model.traces == 1
    model.compile()
    fit(model, batches, steps=2)
    assert model.traces == 2


def test_validation_takes_documents_batches_or_a_function():
    held_out = texts(30, seed=1)
    found = []
    for validation in (
        held_out,
        DocumentBatches(held_out, 7),
        lambda model: score(model, held_out).nats_per_token,
    ):
        found.append(
            fit(bigram(), DocumentBatches(texts(), 8), steps=3, validation=validation).validation_loss
        )
    # float32 means over batches against float64 sums over tokens
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert found[2] == found[0]


def test_patience_stops_and_gives_back_the_weights_of_the_best_validation():
    losses = iter([3.0, 1.0, math.nan, 2.0, 1.5, 0.5])
    kept = []

    def validation(model):
        kept.append(model.get_weights()[0].copy())
        return next(losses)

    model = bigram()
    history = fit(
        model, DocumentBatches(texts(), 8), steps=99, validation=validation, validate_every=2, patience=3
    )
    assert history.validation_steps == [2, 4, 6, 8, 10]
    assert history.best_step == 4
    np.testing.assert_array_equal(model.get_weights()[0], kept[1])
    assert (kept[1] != kept[4]).any()


def test_without_patience_the_last_weights_stay():
    model, losses = bigram(), iter([1.0, 2.0])
    seen = []
    fit(
        model,
        DocumentBatches(texts(), 8),
        steps=4,
        validate_every=2,
        validation=lambda m: (seen.append(1), next(losses))[1],
    )
    whole = bigram()
    fit(whole, DocumentBatches(texts(), 8), steps=4)
    np.testing.assert_array_equal(model.get_weights()[0], whole.get_weights()[0])


def test_callbacks_hear_each_step_and_may_stop():
    heard = []
    told = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: heard.append((batch, logs["loss"]))
    )
    model = bigram()
    stop = At(3, lambda: setattr(model, "stop_training", True))
    history = fit(model, DocumentBatches(texts(), 8), steps=9, callbacks=[told, stop])
    assert heard == list(enumerate(history.loss))
    assert len(heard) == 3


def test_tokens_and_seconds_are_counted():
    history = fit(bigram(), batches := DocumentBatches(texts(), 8), steps=batches.steps_per_epoch)
    assert history.tokens == sum(map(len, texts()))
    assert history.seconds > history.warm_seconds > 0
    assert history.tokens_per_second == history.warm_tokens / history.warm_seconds


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"patience": 0, "validation": texts()}, "patience must be at least 1; got 0"),
        ({"checkpoint_every": -1}, "checkpoint_every must be at least 1; got -1"),
        ({"patience": 2}, "validation must be given with patience or validate_every"),
        ({"batches": DocumentBatches([[3, 11]], 1)}, "vocab_size - 1 = 10; got 11"),
        ({"batches": DocumentBatches([[3]], 1, start_id=2)}, "the model's start_id = 0; got 2"),
        ({"model": Bigram(11)}, "model must be compiled"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change, said):
    arguments = {"model": bigram(), "batches": DocumentBatches(texts(), 8), "steps": 3, **change}
    with pytest.raises(ValueError, match=said):
        fit(**arguments)


def test_documents_cannot_validate_what_is_no_language_model():
    model = keras.Sequential([keras.layers.Embedding(11, 11)])
    model.compile(loss="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="because Sequential is no LanguageModel"):
        fit(model, DocumentBatches(texts(), 8), steps=1, validation=texts())


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("kind", ["documents", "stream"])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, kind):
    whole, batches = whole_state_model(kind)
    expected = fit(whole, batches, steps=20, validation=texts(5, seed=1), validate_every=6)
    path, first = tmp_path / "run.ckpt", whole_state_model(kind)
    before = signal.getsignal(signal.SIGINT)
    ctrl_c = At(11, lambda: signal.raise_signal(signal.SIGINT))
    settings = {"steps": 20, "validation": texts(5, seed=1), "validate_every": 6, "checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        fit(*first, **settings, callbacks=[ctrl_c])
    assert signal.getsignal(signal.SIGINT) is before
    resumed, batches = whole_state_model(kind)
    keras.utils.set_random_seed(123)  # another process would have another
    history = fit(resumed, batches, **settings)
    assert_same_state(resumed, whole)
    assert history.loss == expected.loss
    assert (history.validation_steps, history.validation_loss) == (
        expected.validation_steps,
        expected.validation_loss,
    )
    assert batches.position == 20


RUN_AND_DIE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_training_fit import At, fit, whole_state_model
die = At(int(sys.argv[3]), lambda: os.kill(os.getpid(), signal.SIGKILL))
fit(*whole_state_model("stream"), steps=20, checkpoint=sys.argv[2], checkpoint_every=4, callbacks=[die])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_process_killed_in_the_middle_goes_on_bit_for_bit(tmp_path):
    path = tmp_path / "run.ckpt"
    killed = subprocess.run(
        [sys.executable, "-c", RUN_AND_DIE, TESTS, path, "11"], env=_quiet(), capture_output=True, timeout=300
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    whole, batches = whole_state_model("stream")
    fit(whole, batches, steps=20)
    resumed, batches = whole_state_model("stream")
    saved = Checkpoint(path)
    fitting._build(resumed, batches)
    saved.restore(resumed, batches)
    assert batches.position == 8  # killed after step 11, saved every 4
    fit(resumed, batches, steps=20, checkpoint=path)
    assert_same_state(resumed, whole)


RUN_TO_THE_END = """
import sys
sys.path.insert(0, sys.argv[1])
from test_training_fit import fit, texts, whole_state_model
print("ready", flush=True)
fit(*whole_state_model("stream"), steps=400, checkpoint=sys.argv[2], checkpoint_every=1, validation=texts(5, seed=1),
    validate_every=50)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_process_killed_again_and_again_at_any_moment_goes_on_bit_for_bit(tmp_path):
    path, generator, kills = tmp_path / "run.ckpt", np.random.default_rng(0), 0
    command = [sys.executable, "-c", RUN_TO_THE_END, TESTS, path]
    while True:
        process = subprocess.Popen(command, env=_quiet(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if kills < 12:
            process.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=generator.uniform(0.5, 8))
            if process.poll() is None:
                process.kill()
                kills += 1
        _, errors = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()
    assert kills >= 3
    whole, batches = whole_state_model("stream")
    fit(whole, batches, steps=400, validation=texts(5, seed=1), validate_every=50)
    resumed, batches = whole_state_model("stream")
    fit(resumed, batches, steps=400, checkpoint=path, validation=texts(5, seed=1), validate_every=50)
    assert_same_state(resumed, whole)
    assert [file.name for file in tmp_path.iterdir()] == ["run.ckpt"]


def _quiet():
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def test_a_run_that_was_over_is_given_back_as_it_was(tmp_path):
    path, validation = tmp_path / "run.ckpt", texts(5, seed=1)
    settings = {"steps": 40, "validation": validation, "validate_every": 2, "patience": 2, "checkpoint": path}
    first, again = (
        bigram(keras.optimizers.SGD(300.0)),
        bigram(keras.optimizers.SGD(300.0)),
    )  # it soon gets worse
    history = fit(first, DocumentBatches(texts(), 8), **settings)
    assert history.steps[-1] < 40
    assert fit(again, DocumentBatches(texts(), 8), **settings) == history
    np.testing.assert_array_equal(again.get_weights()[0], first.get_weights()[0])


def test_more_steps_go_on_from_the_last_weights_and_not_from_the_best(tmp_path):
    losses = [1.0, 2.0, 3.0, 4.0]
    settings = {"validate_every": 2, "patience": 9, "checkpoint": tmp_path / "run.ckpt"}
    model, whole = bigram(), bigram()
    fit(model, DocumentBatches(texts(), 8), steps=4, validation=lambda m: losses.pop(0), **settings)
    seen = []
    fit(
        model,
        DocumentBatches(texts(), 8),
        steps=6,
        validation=lambda m: seen.append(m.get_weights()[0].copy()) or 3.0,
        **settings,
    )
    fit(whole, DocumentBatches(texts(), 8), steps=6)
    np.testing.assert_array_equal(seen[0], whole.get_weights()[0])
    assert (model.get_weights()[0] != whole.get_weights()[0]).any()  # in the end the best, of step 2


def test_resume_false_starts_anew(tmp_path):
    path = tmp_path / "run.ckpt"
    fit(bigram(), DocumentBatches(texts(), 8), steps=3, checkpoint=path)
    history = fit(bigram(), DocumentBatches(texts(), 8), steps=2, checkpoint=path, resume=False)
    assert history.steps == [1, 2]


def test_a_second_ctrl_c_does_not_wait_and_leaves_the_checkpoint_alone(tmp_path):
    path = tmp_path / "run.ckpt"

    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    model, batches = bigram(), DocumentBatches(texts(), 8)
    with pytest.raises(KeyboardInterrupt):
        fit(model, batches, steps=9, checkpoint=path, checkpoint_every=3, callbacks=[At(5, twice)])
    again, batches = bigram(), DocumentBatches(texts(), 8)
    fitting._build(again, batches)
    Checkpoint(path).restore(again, batches)
    assert batches.position == 3


def test_ctrl_c_while_validating_stops_at_once_and_validation_is_made_up_for(tmp_path):
    path, calls = tmp_path / "run.ckpt", []

    def validation(model):
        calls.append(1)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
            calls.append("went on")
        return 1.0

    settings = {"steps": 4, "validation": validation, "validate_every": 2, "checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        fit(bigram(), DocumentBatches(texts(), 8), **settings)
    history = fit(bigram(), DocumentBatches(texts(), 8), **settings)
    assert "went on" not in calls
    assert history.validation_steps == [2, 4]


def test_it_trains_outside_the_main_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.append(fit(bigram(), DocumentBatches(texts(), 8), steps=2))
    )
    thread.start()
    thread.join()
    assert found[0].steps == [1, 2]


# ---------------------------------------------------------------- checkpoints


@pytest.fixture
def saved(tmp_path):
    """A checkpoint after three steps; a model and batches elsewhere."""
    checkpoint = Checkpoint(tmp_path / "run.ckpt")
    fit(bigram(), DocumentBatches(texts(), 8), steps=3, checkpoint=checkpoint)
    model, batches = bigram(), DocumentBatches(texts(), 8)
    fitting._build(model, batches)
    return checkpoint, model, batches


def assert_refused(checkpoint, model, batches, said):
    """It raises, and changes nothing."""
    before, position = state(model), batches.position
    with pytest.raises(CheckpointError, match=said):
        checkpoint.restore(model, batches)
    for a, b in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert batches.position == position


def test_what_is_not_whole_is_refused_wherever_it_was_cut(saved):
    checkpoint, model, batches = saved
    data = checkpoint.path.read_bytes()
    for length in (0, 3, 100, len(data) // 2, len(data) - 1):
        checkpoint.path.write_bytes(data[:length])
        assert_refused(checkpoint, model, batches, r"run\.ckpt is damaged or no checkpoint.*Remove it")


def test_a_changed_bit_in_any_array_is_refused(saved):
    checkpoint, model, batches = saved
    data = checkpoint.path.read_bytes()
    weights = bigram()
    fit(weights, DocumentBatches(texts(), 8), steps=3)
    for array in state(weights):
        place = data.find(array.tobytes())
        if array.nbytes >= 8 and place >= 0 and array.any():
            damaged = bytearray(data)
            damaged[place + array.nbytes // 2] ^= 1
            checkpoint.path.write_bytes(damaged)
            assert_refused(checkpoint, model, batches, "damaged or no checkpoint.*CRC")
    place = data.index(b'"position"')
    checkpoint.path.write_bytes(data[:place] + b'"pusition"' + data[place + 10 :])
    assert_refused(checkpoint, model, batches, "damaged or no checkpoint.*CRC")


def test_another_kind_of_file_is_refused(saved):
    checkpoint, model, batches = saved
    np.savez(checkpoint.path.with_suffix(".npz"), weights=np.ones(3))
    checkpoint.path.write_bytes(checkpoint.path.with_suffix(".npz").read_bytes())
    assert_refused(checkpoint, model, batches, "damaged or no checkpoint.*about")
    checkpoint.path.write_text("# notes\n")
    assert_refused(checkpoint, model, batches, "damaged or no checkpoint")


def test_a_checkpoint_of_another_run_is_refused_and_says_what_differs(saved):
    checkpoint, model, batches = saved
    assert_refused(checkpoint, model, DocumentBatches(texts(seed=5), 8), r"\(data\)")
    assert_refused(checkpoint, model, DocumentBatches(texts(), 9), r"\(data\)")
    assert_refused(checkpoint, _built(CausalBag(11)), batches, "model")
    assert_refused(checkpoint, _built(Bigram(12)), batches, r"\(11, 11\) float32 in the file, .*\(12, 12\)")
    other = _built(Bigram(11), keras.optimizers.SGD(0.1))
    assert_refused(checkpoint, other, batches, r"kind of optimizer.*Adam in the file, SGD here")


def _built(model, optimizer="adam"):
    model.compile(optimizer=optimizer)
    fitting._build(model, DocumentBatches(texts(), 8))
    return model


def test_fit_refuses_a_damaged_checkpoint_rather_than_starting_anew(saved):
    checkpoint, model, batches = saved
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="Remove it to start anew"):
        fit(model, batches, steps=9, checkpoint=checkpoint)
    assert batches.position == 0


def test_a_write_that_fails_leaves_the_checkpoint_before(saved, monkeypatch):
    checkpoint, model, batches = saved
    before = checkpoint.path.read_bytes()

    def half(file, **arrays):
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(model, batches)
    assert checkpoint.path.read_bytes() == before
    assert [file.name for file in checkpoint.path.parent.iterdir()] == ["run.ckpt"]


def test_what_a_killed_process_left_half_written_is_removed(saved):
    checkpoint, model, batches = saved
    (checkpoint.path.parent / ".0a1b2c3d.run.ckpt").write_bytes(b"half")
    (checkpoint.path.parent / ".0a1b2c3d.other.ckpt").write_bytes(b"half")
    fit(model, batches, steps=4, checkpoint=checkpoint)
    assert sorted(file.name for file in checkpoint.path.parent.iterdir()) == [
        ".0a1b2c3d.other.ckpt",
        "run.ckpt",
    ]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16"])
def test_every_variable_comes_back_in_its_dtype(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    try:
        first, second = (_built(Bigram(11)) for _ in range(2))
    finally:
        keras.config.set_dtype_policy("float32")
    checkpoint = Checkpoint(tmp_path / "run.ckpt")
    checkpoint.save(first, extra=Extra({"note": [1, "é"]}, {"more": [np.arange(3)]}))
    extra = checkpoint.restore(second)
    assert_same_state(first, second)
    assert first.variables[0].dtype == ("bfloat16" if policy == "bfloat16" else "float32")
    assert extra.values == {"note": [1, "é"]}
    assert extra.arrays["more"][0].tolist() == [0, 1, 2]


def test_a_model_without_variables_yet_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="model must be built"):
        Checkpoint(tmp_path / "run.ckpt").save(Bigram(11))


# ---------------------------------------------------------------- the progress bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, **settings):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(fitting, "REFRESH_SECONDS", 0)
    fit(bigram(), DocumentBatches(texts(), 8), steps=6, validation=texts(5), validate_every=3, **settings)
    return stream.getvalue()


def test_a_terminal_shows_one_line_that_ends_with_the_last_step(monkeypatch):
    text = shown(monkeypatch, Terminal())
    assert text.count("\n") == 1
    assert text.endswith("\n")
    last = text.rstrip().split("\r")[-1]
    assert last.startswith("6/6 steps |")
    assert all(part in last for part in ("nats/token, ", "validation", "tokens/s, 0", " left"))


def test_nothing_is_shown_without_a_terminal_or_when_not_wanted(monkeypatch):
    assert shown(monkeypatch, io.StringIO()) == ""
    assert shown(monkeypatch, Terminal(), progress=False) == ""


def test_a_notebook_shows_the_line_on_standard_error_and_no_widget(monkeypatch, capsys):
    kernel = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    assert "6/6 steps" in shown(monkeypatch, io.StringIO())
    assert capsys.readouterr().out == ""


def test_a_history_before_the_first_step_says_nothing():
    history = History()
    assert history.describe() == ""
    assert math.isnan(history.tokens_per_second)
    with pytest.raises(ValueError, match="validation must be given to fit"):
        _ = history.best_step
