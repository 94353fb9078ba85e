"""Trained models as folders, texts longer than a model's context, and text that is shown as it grows."""

import json
import math
import os
import sys

import keras
import numpy as np
import pytest
from small_models import Bigram, CausalBag

from lmcourse.core import LanguageModel
from lmcourse.datasets import fableworld
from lmcourse.generation import TextStream, generate, stream_text
from lmcourse.recurrent import WindowLanguageModel
from lmcourse.text import BPETokenizer, CharTokenizer
from lmcourse.training import DocumentBatches, History, RunError, RunFolder, SlidingContext, fit, load_run

TOKENIZER = CharTokenizer("abcdefghij")


def trained(folder, steps=3):
    """Train a small model with dropout into a folder."""
    keras.utils.set_random_seed(0)
    model = CausalBag(10, units=8, dropout=0.1)
    model.compile("adam")
    folder.begin({"steps": steps}, TOKENIZER, versions={"keras": keras.__version__})
    history = fit(
        model, DocumentBatches([[1, 2, 3, 4], [5, 6]], 2), steps=steps, checkpoint=folder.checkpoint
    )
    folder.finish(model, history)
    return model, history


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "bag")
    return folder, *trained(folder)


def copied(folder, target):
    """Copy a run's files, to be damaged."""
    target.mkdir()
    for path in folder.path.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


# ---------------------------------------------------------------- folders


def test_a_loaded_run_computes_what_was_trained(ended):
    folder, model, history = ended
    run = load_run(str(folder.path))
    ids = [[1, 2, 3, 9, 0, 4]]
    np.testing.assert_array_equal(run.model.token_log_probs(ids), model.token_log_probs(ids))
    assert generate(run.model, [[1]], 5, seed=1) == generate(model, [[1]], 5, seed=1)
    assert run.tokenizer.encode("abc") == [0, 1, 2]
    assert run.settings == {"steps": 3}
    assert run.record["versions"] == {"keras": keras.__version__}
    assert run.record["history"]["steps"] == 3
    assert run.record["history"]["tokens"] == history.tokens == 3 * 6
    assert run.record["history"]["training_loss_nats_per_token"] == np.mean(history.loss)


def test_the_saved_model_leaves_its_optimizer_to_the_checkpoint(ended):
    folder, model, _ = ended
    assert not getattr(load_run(folder.path).model, "compiled", False)
    weights = 4 * model.count_params()
    assert (folder.path / "run.ckpt").stat().st_size > 3 * weights  # Adam keeps two numbers for each


def test_a_number_that_json_lacks_is_written_as_text(tmp_path):
    folder, model = RunFolder(tmp_path), Bigram(10)
    model.build((None, None))
    folder.begin({}, TOKENIZER)
    folder.finish(model, History(steps=[1], loss=[float("nan")]))
    json.loads((tmp_path / "run.json").read_text(), parse_constant=pytest.fail)
    assert folder.record()["history"]["training_loss_nats_per_token"] == "nan"


def test_beginning_anew_leaves_nothing_of_the_run_before(ended, tmp_path):
    folder = RunFolder(copied(ended[0], tmp_path / "copy"))
    folder.begin({"steps": 5}, CharTokenizer("ab"))
    assert sorted(path.name for path in folder.path.iterdir()) == ["run.json", "tokenizer.json"]
    assert folder.record()["settings"] == {"steps": 5}
    assert folder.exists()
    assert not folder.has_model()


def test_a_beginning_that_is_cut_short_leaves_no_run(ended, tmp_path, monkeypatch):
    folder = RunFolder(copied(ended[0], tmp_path / "copy"))
    monkeypatch.setattr(CharTokenizer, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        folder.begin({"steps": 5}, TOKENIZER)
    assert not folder.exists()


def test_a_model_that_cannot_be_written_leaves_the_folder_as_it_was(ended, tmp_path, monkeypatch):
    folder, (_, model, history) = RunFolder(copied(ended[0], tmp_path / "copy")), ended
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}

    def fill_the_disk(model, path):
        path.write_bytes(b"half a model")
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.Model, "save", fill_the_disk)
    with pytest.raises(OSError, match="No space"):
        folder.finish(model, history)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2000])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("run.json", os.remove, r"holds no run\.json"),
        ("run.json", truncate, r"run\.json is damaged"),
        ("run.json", lambda path: path.write_text("{}"), r"run\.json is damaged or no run's"),
        ("run.json", lambda path: path.write_bytes(b"\xff"), r"run\.json is damaged"),
        ("tokenizer.json", os.remove, r"tokenizer\.json is missing"),
        ("tokenizer.json", lambda path: path.write_text("{}"), r"tokenizer\.json is damaged"),
        ("tokenizer.json", CharTokenizer("ab").save, "vocabulary of 10, the tokenizer one of 2"),
        ("model.keras", os.remove, "training has not ended.*`lmcourse train --resume --out "),
        ("model.keras", truncate, r"model\.keras is damaged"),
        ("model.keras", flip_a_bit, r"model\.keras is damaged"),
        ("model.keras", lambda path: path.write_text("no archive"), r"model\.keras is damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_damaged_folder_is_refused_in_one_line(ended, tmp_path, name, damage, said):
    folder = copied(ended[0], tmp_path / "copy")
    damage(folder / name)
    with pytest.raises(RunError, match=said) as error:
        load_run(folder)
    assert "\n" not in str(error.value)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(RunError, match="it does not exist"):
        load_run(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="it is a file"):
        load_run(tmp_path / "file")


def test_a_keras_model_of_another_kind_is_refused(ended, tmp_path):
    folder = copied(ended[0], tmp_path / "copy")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(folder / "model.keras")
    with pytest.raises(RunError, match="must hold a NeuralLanguageModel; it holds a Sequential"):
        load_run(folder)


def test_a_folder_cannot_have_foreign_modules_imported(ended, tmp_path):
    folder = copied(ended[0], tmp_path / "copy")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "module": "antigravity"}))
    load_run(folder)
    assert "antigravity" not in sys.modules
    (folder / "run.json").write_text(json.dumps({**record, "module": "lmcourse.nowhere"}))
    with pytest.raises(RunError, match=r"lmcourse\.nowhere, which is not there"):
        load_run(folder)


# ---------------------------------------------------------------- texts beyond the context


class Limited(LanguageModel):
    """A window model that refuses what is longer than its context."""

    def __init__(self, model, max_length):
        self.model, self.max_length, self.vocab_size = model, max_length, model.vocab_size

    def token_log_probs(self, ids, mask=None):
        assert np.shape(ids)[1] <= self.max_length
        return self.model.token_log_probs(ids, mask)

    def next_log_probs(self, prefixes):
        assert max(map(len, prefixes)) < self.max_length
        return self.model.next_log_probs(prefixes)


@pytest.fixture(scope="module")
def window_model():
    """A model whose prediction depends on three tokens exactly."""
    keras.utils.set_random_seed(1)
    model = WindowLanguageModel(9, window=3, embedding_dim=8, units=8)
    model.build((None, None))
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    return model


@pytest.mark.parametrize("length", [8, 9, 30, 60])
def test_a_window_that_keeps_enough_changes_nothing(window_model, length):
    generator = np.random.default_rng(length)
    ids, mask = generator.integers(0, 9, (4, 37)), generator.random((4, 37)) < 0.8
    sliding = SlidingContext(Limited(window_model, length), overlap=min(4, length - 1))
    # float32, in sums of another order for batches of another shape
    np.testing.assert_allclose(
        sliding.token_log_probs(ids, mask), window_model.token_log_probs(ids, mask), rtol=1e-5, atol=1e-6
    )


def test_a_window_that_keeps_too_little_forgets(window_model):
    ids = np.random.default_rng(0).integers(1, 9, (1, 16))  # without the id 0, which the start has
    whole = window_model.token_log_probs(ids)[0]
    cut = SlidingContext(window_model, 8, overlap=0).token_log_probs(ids)[0]
    np.testing.assert_allclose(cut[:8], whole[:8], rtol=1e-5)
    alone = window_model.token_log_probs(ids[:, 8:])[0]  # the second window knows nothing of the first
    np.testing.assert_allclose(cut[8:], alone, rtol=1e-5)
    assert (np.abs(cut[8:11] - whole[8:11]) > 1e-3).all()


def test_the_end_of_a_long_prefix_is_what_counts(window_model):
    prefixes = [np.random.default_rng(0).integers(0, 9, 40).tolist(), [1], []]
    sliding = SlidingContext(Limited(window_model, 10))
    np.testing.assert_allclose(
        sliding.next_log_probs(prefixes), window_model.next_log_probs(prefixes), rtol=1e-5, atol=1e-6
    )
    assert len(generate(sliding, [prefixes[0]], 20, seed=0)[0]) == 20  # on and on, past the context


def test_a_model_without_a_limit_reads_all(window_model):
    ids = np.random.default_rng(0).integers(0, 9, (2, 50))
    np.testing.assert_array_equal(
        SlidingContext(window_model).token_log_probs(ids), window_model.token_log_probs(ids)
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"length": 11}, "length must be an integer from 1 to the model's max_length = 10; got 11"),
        ({"length": 0}, "length must be an integer from 1 to the model's max_length = 10; got 0"),
        ({"length": np.int64(0)}, "length must be an integer from 1 to .* = 10; got .*0"),
        ({"length": "5"}, "length must be an integer from 1 to .* = 10; got '5'"),
        ({"length": 5.0}, r"length must be an integer from 1 to .* = 10; got 5\.0"),
        ({"overlap": 10}, "overlap must be an integer from 0 to length - 1 = 9; got 10"),
        ({"length": 4, "overlap": -1}, "overlap must be an integer from 0 to length - 1 = 3; got -1"),
        ({"overlap": "2"}, "overlap must be an integer from 0 to length - 1 = 9; got '2'"),
    ],
)
def test_a_window_that_cannot_be_is_refused(window_model, arguments, said):
    with pytest.raises(ValueError, match=said):
        SlidingContext(Limited(window_model, 10), **arguments)


def test_an_overlap_without_a_length_is_refused(window_model):
    with pytest.raises(ValueError, match=r"length must be given with overlap .* got overlap = 3"):
        SlidingContext(window_model, overlap=3)


class LooksBack(LanguageModel):
    """Gives how many tokens it can look back to in place of nats, and counts what it reads."""

    vocab_size = 9

    def __init__(self, max_length=None):
        self.max_length, self.read = max_length, 0

    def token_log_probs(self, ids, mask=None):
        self.read += ids.size
        return np.where(mask, np.arange(ids.shape[1]), 0.0)

    def next_log_probs(self, prefixes):
        return np.array([[float(len(prefix))] * 9 for prefix in prefixes])


@pytest.mark.parametrize(
    ("overlap", "contexts", "windows"),
    [
        # Nine tokens, four at a time, by hand: [0123], [4567], [8...]
        (0, [0, 1, 2, 3, 0, 1, 2, 3, 0], 3),
        # [0123], [3456], [678.]
        (1, [0, 1, 2, 3, 1, 2, 3, 1, 2], 3),
        # [0123], [2345], [4567], [678.]
        (2, [0, 1, 2, 3, 2, 3, 2, 3, 2], 4),
        # [0123], [1234], [2345], [3456], [4567], [5678]
        (3, [0, 1, 2, 3, 3, 3, 3, 3, 3], 6),
    ],
)
def test_how_far_each_token_looks_back_and_what_that_costs(overlap, contexts, windows):
    model = LooksBack(max_length=4)
    sliding = SlidingContext(model, overlap=overlap)
    text = np.arange(9)[None]
    assert sliding.token_log_probs(text).tolist() == [contexts]
    assert model.read == windows * 4 == 4 * (1 + math.ceil((9 - 4) / (4 - overlap)))
    chain = [sliding.next_log_probs([text[0, :t]])[0, text[0, t]] for t in range(9)]
    assert chain == [0, 1, 2, 3, 3, 3, 3, 3, 3]  # always as far as can be
    assert all(ours <= longest for ours, longest in zip(contexts, chain, strict=True))


def test_by_default_half_of_a_window_overlaps():
    assert [SlidingContext(LooksBack(length)).overlap for length in (1, 4, 5)] == [0, 2, 2]
    assert SlidingContext(LooksBack()).overlap is None


def test_windows_in_which_nothing_counts_are_not_read():
    model = LooksBack(max_length=4)
    mask = np.arange(9)[None] >= 7  # the windows by hand, as above: only [4567] and [678.] score what counts
    found = SlidingContext(model, overlap=2).token_log_probs(np.arange(9)[None], mask)
    assert found.tolist() == [[0, 0, 0, 0, 0, 0, 0, 3, 2]]
    assert model.read == 2 * 4


def test_what_a_model_reads_before_a_document_stands_before_every_window(window_model):
    ids = np.random.default_rng(3).integers(1, 9, (1, 12))
    later = SlidingContext(window_model, 8, overlap=1).token_log_probs(ids)[0, 8:]
    alone = window_model.token_log_probs(ids[:, 7:])[0, 1:]  # the second window as a document of its own
    np.testing.assert_allclose(later, alone, rtol=1e-5)
    assert np.abs(later[0] - window_model.token_log_probs(ids)[0, 8]) > 1e-3


# ---------------------------------------------------------------- text that grows

BYTES = BPETokenizer.train([], merges=0)
SCRIPTS = "été — 灯每九秒 👩‍🔬 ok\N{REPLACEMENT CHARACTER}."


def pieces_of(tokenizer, ids, prompt=(), **settings):
    text = TextStream(tokenizer, prompt, **settings)
    return [*(text.push(token) for token in ids), text.finish()], text


def test_characters_come_whole_however_they_are_cut():
    pieces, _ = pieces_of(BYTES, BYTES.encode(SCRIPTS))
    assert "".join(pieces) == SCRIPTS
    # one piece a character, each with its last byte; a replacement character of the text itself waits for the next
    assert [piece for piece in pieces if piece] == [*SCRIPTS[:-2], SCRIPTS[-2:]]
    assert pieces.index("é") == 1


@pytest.mark.parametrize("seed", range(20))
def test_the_pieces_of_any_bytes_are_their_text(seed):
    ids = np.random.default_rng(seed).integers(0, BYTES.vocab_size, 60).tolist()
    prompt = BYTES.encode("Ein Prompt: ")
    pieces, _ = pieces_of(BYTES, ids, prompt)
    assert "".join(pieces) == BYTES.decode([*prompt, *ids])[len("Ein Prompt: ") :]


@pytest.mark.parametrize("language", ["en", "fr", "zh"])
def test_words_that_are_spaced_by_their_neighbours_come_as_they_are_printed(language):
    tokenizer = fableworld.FableTokenizer(language)
    for story in fableworld.generate(5, seed=3, language=language):
        ids = tokenizer.ids_of(story.tokens[:-1])
        pieces, _ = pieces_of(tokenizer, ids[7:], ids[:7])
        assert tokenizer.decode(ids[:7]) + "".join(pieces) == story.text


@pytest.mark.parametrize(
    ("stop_texts", "given"),
    [
        (["\nUser:"], "Yes.\nUse it.\nUs"),
        (["Use"], "Yes.\n"),
        (["ser:", "\nUser:"], "Yes.\nUse it.\nUs"),
        (["e"], "Y"),
        (["never"], "Yes.\nUse it.\nUs\nUser: more"),
    ],
)
def test_a_stop_text_ends_it_and_is_never_begun(stop_texts, given):
    ids = BYTES.encode("Yes.\nUse it.\nUs\nUser: more")
    pieces, text = pieces_of(BYTES, ids, stop_texts=stop_texts)
    assert "".join(pieces) == given
    assert text.stopped == (stop_texts != ["never"])
    for n in range(len(pieces)):  # what was shown at any time is a beginning of what is shown in the end
        assert given.startswith("".join(pieces[:n]))


def test_the_prompt_is_not_searched_for_stop_texts():
    pieces, text = pieces_of(BYTES, BYTES.encode("b."), BYTES.encode("a."), stop_texts=["."])
    assert ("".join(pieces), text.stopped) == ("b", True)


def test_an_empty_stop_text_is_refused():
    with pytest.raises(ValueError, match="stop_texts must not hold the empty text"):
        TextStream(BYTES, stop_texts=["a", ""])


def test_streamed_text_is_what_generate_draws(window_model):
    tokenizer = CharTokenizer("abcdefghi")
    drawn = generate(window_model, [[0, 1]], 30, seed=4, stop=[8])[0]
    text = "".join(stream_text(window_model, tokenizer, [0, 1], 30, seed=4, stop=[8]))
    assert text == tokenizer.decode(drawn)
    whole = "".join(stream_text(window_model, tokenizer, [0, 1], 30, seed=4))
    assert len(whole) == 30
    cut = stream_text(window_model, tokenizer, [0, 1], 30, seed=4, stop_texts=[whole[10:13]])
    assert "".join(cut) == whole[: whole.index(whole[10:13])]
