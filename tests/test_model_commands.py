"""`lmcourse train`, `generate`, `evaluate` and `chat`, from their arguments to what they write."""

import errno
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import types
import typing

import keras
import numpy as np
import pytest
import tensorflow as tf

import lmcourse.transformer
from lmcourse import cli
from lmcourse.commands import chat, evaluate, streamed, texts, train
from lmcourse.commands import generate as generate_command
from lmcourse.commands.models import ARCHITECTURES, PUBLISHED, LoadedModel, load_model, make_model
from lmcourse.core import LanguageModel, score
from lmcourse.datasets import fableworld, load_littleplay
from lmcourse.generation import generate
from lmcourse.ngram.experiments import FableworldTexts
from lmcourse.text import BPETokenizer
from lmcourse.training import History, RunFolder, load_run
from lmcourse.transformer import GPT, ChatTemplate, GPTConfig, pretrained

TESTS = pathlib.Path(__file__).parent

# A run of eight steps, validated after every third, that takes seconds.
RUN = [
    *(
        "train",
        "--dataset",
        "littleplay",
        "--tokenizer",
        "characters",
        "--context",
        "16",
        "--batch-size",
        "4",
    ),
    *("--steps", "8", "--validate-every", "3", "--seed", "5"),
]


@pytest.fixture(scope="module")
def loaded(whole):
    """The model of that run, whose graphs are compiled once for all tests."""
    return load_model(str(whole))


@pytest.fixture
def quick_load(loaded, monkeypatch):
    """Have `generate` use it."""
    monkeypatch.setattr(generate_command, "load_model", lambda name: loaded)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert cli.main([*RUN, "--out", str(folder)]) == 0
    return folder


def weights_of(folder):
    return load_run(folder).model.get_weights()


def fails(argv, capsys):
    """Run a wrong call; return the one line that it says."""
    assert cli.main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"lmcourse {argv[0]}: ")
    assert said.count("\n") == 1
    return said


def test_help_imports_no_tensorflow():
    code = """
import sys
from lmcourse.cli import main
for name in ("train", "generate", "evaluate", "chat"):
    try:
        main([name, "--help"])
    except SystemExit as end:
        assert end.code == 0
sys.exit(str([name for name in ("tensorflow", "keras", "tensorflow_text") if name in sys.modules] or ""))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stderr.strip() == ""


# ---------------------------------------------------------------- train


def test_a_run_leaves_a_model_its_tokenizer_and_how_they_came_about(whole, capsys):
    assert sorted(path.name for path in whole.iterdir()) == [
        *("model.keras", "run.ckpt", "run.json", "tokenizer.json")
    ]
    run = load_run(whole)
    assert isinstance(run.model, lmcourse.transformer.GPT)
    assert run.settings | {"learning_rate": None} == {
        "model": "gpt",
        "preset": "tiny",
        "dataset": "littleplay",
        "tokens": None,
        "tokenizer": "characters",
        "merges": 1000,
        "context": 16,
        "steps": 8,
        "batch_size": 4,
        "learning_rate": None,
        "jit": False,
        "validate_every": 3,
        "seed": 5,
    }
    history = run.record["history"]
    assert (history["steps"], history["tokens"]) == (8, 8 * 4 * 16)
    assert history["validation_steps"] == [3, 6, 8]
    assert run.record["versions"]["keras"] == keras.__version__
    train_part, held_out = load_littleplay().split()
    assert run.record["data_sha256"] == {"train": train_part.sha256, "held_out": held_out.sha256}


STOPPED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_training_fit import At
import lmcourse.training
from lmcourse import cli

plain, stops = lmcourse.training.fit, iter([(2, signal.SIGINT), (5, signal.SIGKILL)])

def stopped_fit(*args, **settings):
    step, number = next(stops)
    return plain(*args, **settings, callbacks=[At(step, lambda: os.kill(os.getpid(), number))])

lmcourse.training.fit = stopped_fit
folder, begin = sys.argv[2], sys.argv[3:]
print("status", cli.main([*begin, "--out", folder]), flush=True)
cli.main(["train", "--resume", "--out", folder, "--checkpoint-every", "2"])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_run_that_was_interrupted_and_killed_ends_with_the_weights_of_one_that_was_not(
    whole, tmp_path, capsys
):
    folder = tmp_path / "stopped"
    process = subprocess.run(
        [sys.executable, "-c", STOPPED, TESTS, folder, *RUN],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.stdout == "status 130\n", process.stderr
    assert f"Go on with: lmcourse train --resume --out {folder}\n" in process.stderr
    assert "Traceback" not in process.stderr
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "model.keras").exists()
    assert process.stderr.count("step 3:") == 1  # the second one went on from the end of step 2
    assert cli.main(["train", "--resume", "--out", str(folder)]) == 0
    said = capsys.readouterr().err
    assert "step 3:" not in said  # and the third from the checkpoint of step 4
    assert "step 6:" in said
    for ours, theirs in zip(weights_of(folder), weights_of(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    found, expected = (RunFolder(path).record()["history"] for path in (folder, whole))
    measured = (
        *("steps", "tokens", "training_loss_nats_per_token"),
        *("validation_steps", "validation_nats_per_token"),
    )
    assert {name: found[name] for name in measured} == {name: expected[name] for name in measured}


def test_a_plain_kill_lets_the_step_end_and_writes_a_checkpoint(monkeypatch, capsys):
    """A KeyboardInterrupt in the middle of a step would count it half: `fit` must hear of it as of Ctrl-C."""
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with train._kill_as_ctrl_c():
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGINT]
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_that_is_there_is_not_overwritten_unasked(whole, capsys):
    before = (whole / "model.keras").read_bytes()
    said = fails([*RUN, "--out", str(whole)], capsys)
    assert f"{whole} holds a run already" in said
    assert "--resume" in said
    assert "--again" in said
    assert cli.main(["train", "--resume", "--out", str(whole)]) == 0
    assert "has ended already, after 8 steps" in capsys.readouterr().out
    assert (whole / "model.keras").read_bytes() == before


def begun(folder, **changes):
    """Write the beginning of a run that was not trained yet."""
    prepared = train.prepare({**train.DEFAULTS, "model": "lstm", "dataset": "littleplay", **changes})
    folder = RunFolder(folder)
    folder.begin(prepared.settings, prepared.texts.tokenizer, data_sha256=prepared.texts.sha256)
    return folder


def test_going_on_with_other_settings_is_refused_and_names_them(tmp_path, capsys):
    folder = begun(tmp_path / "run", steps=3, merges=5, batch_size=2)
    said = fails(
        ["train", "--resume", "--out", str(folder.path), "--steps", "4", "--seed", "0", "--merges", "6"],
        capsys,
    )
    assert "--merges is 5 there and 6 here; --steps is 3 there and 4 here." in said
    assert "--seed" not in said


def test_going_on_with_another_text_is_refused(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("A line of the first text.\n" * 40)
    folder = begun(tmp_path / "run", dataset=str(text), context=8, batch_size=2, merges=5)
    text.write_text("A line of the other text.\n" * 40)
    said = fails(["train", "--resume", "--out", str(folder.path)], capsys)
    assert f"the text of {text} is not what the run was begun with (train, held_out)" in said


def test_going_on_from_a_damaged_checkpoint_is_refused(tmp_path, capsys):
    folder = begun(tmp_path / "run", batch_size=2)
    folder.checkpoint.path.write_bytes(b"no checkpoint")
    assert cli.main(["train", "--resume", "--out", str(folder.path)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "run.ckpt is damaged or no checkpoint" in said
    assert said.endswith("Or train anew with --again.")


def test_a_disk_that_fills_up_ends_in_one_line_that_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    folder = begun(tmp_path / "run", batch_size=2)

    def fill_the_disk(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lmcourse.training, "fit", fill_the_disk)
    assert cli.main(["train", "--resume", "--out", str(folder.path)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be written: No space left on device. Go on with: lmcourse train --resume" in said


def test_a_file_with_a_datasets_name_does_not_hide_the_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "littleplay").write_text("a file\n")
    args = cli.build_parser("train").parse_args(["train", "--dataset", "littleplay"])
    assert train._given(args)["dataset"] == "littleplay"
    (tmp_path / "text").write_text("a file\n")
    args = cli.build_parser("train").parse_args(["train", "--dataset", "text"])
    assert train._given(args)["dataset"] == str(tmp_path / "text")


def test_anew_takes_the_place_of_the_run_in_the_folder(whole, tmp_path, capsys, monkeypatch):
    begun(tmp_path, steps=9, batch_size=2, seed=1).checkpoint.path.write_bytes(b"of the run before")
    checkpoints = []

    def fit_nothing(model, batches, *, checkpoint, **settings):
        checkpoints.append(checkpoint.exists())
        return History(steps=[1], loss=[1.0])

    monkeypatch.setattr(lmcourse.training, "fit", fit_nothing)
    assert cli.main([*RUN, "--out", str(tmp_path), "--again"]) == 0
    assert checkpoints == [False]
    assert load_run(tmp_path).settings == load_run(whole).settings


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "rnn"], "--model must be one of gpt, llama, attention, lstm, gru; got 'rnn'"),
        (["--preset", "huge"], "must be one of tiny, small, medium, gpt2-124m, gpt2-355m, gpt2-774m, gpt2-1.5b; got"),
        (["--model", "lstm", "--preset", "huge"], "--preset for --model lstm must be one of tiny, small; got 'huge'"),
        (["--dataset", "moby"], "--dataset must be one of fableworld, pythondocs, pythoncode, "),
        (["--tokenizer", "words"], "--tokenizer must be one of bpe, characters; got 'words'"),
        (["--steps", "0"], "--steps must be at least 1; got 0"),
        (["--batch-size", "-2"], "--batch-size must be at least 1; got -2"),
        (["--seed", "-1"], "--seed must be at least 0; got -1"),
        (["--checkpoint-every", "0"], "--checkpoint-every must be at least 1; got 0"),
        (["--steps", "-9"], "--steps must be at least 1; got -9"),
        (["--tokens", "0"], "--tokens must be at least 1; got 0"),
        (["--merges", "-1"], "--merges must be at least 0; got -1"),
        (["--context", "0"], "--context must be at least 1; got 0"),
        (["--context", "9" * 20], f"--context must be at most 2147483647; got {'9' * 20}"),
        (["--validate-every", "0"], "--validate-every must be at least 1; got 0"),
        (["--seed", "4294967296"], "--seed must be at most 4294967295; got 4294967296"),
        (["--learning-rate", "0"], "--learning-rate must be above 0 and at most 3.403e+38; got 0.0"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0 and at most 3.403e+38; got nan"),
        (["--learning-rate", "inf"], "--learning-rate must be above 0 and at most 3.403e+38; got inf"),
        (["--learning-rate", "1e300"], "--learning-rate must be above 0 and at most 3.403e+38; got 1e+300"),
        (["--dataset", "fableworld", "--tokenizer", "words"], "--tokenizer must be one of bpe, characters; got"),
        (["--dataset", ""], "the path of a text file; got ''"),
        (["--batch-size", "900"], "too few for one batch of 900 rows of 128; give a smaller --batch-size"),
        (["--resume"], "holds no run to go on with; leave --resume out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_wrong_call_of_train_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, said):
    out = tmp_path / "run"
    defaults = [] if "--dataset" in arguments else ["--dataset", "littleplay"]
    assert said in fails(["train", *defaults, "--merges", "3", "--out", str(out), *arguments], capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["train", "--steps", "1e5"], "argument --steps: must be an integer; got '1e5'"),
        (["train", "--seed", ""], "argument --seed: must be an integer; got ''"),
        (["train", "--learning-rate", "fast"], "argument --learning-rate: must be a number; got 'fast'"),
        (["train", "--out", ""], "argument --out: must be the path of a folder; got ''"),
        (["generate", "--max-tokens", "1.5"], "argument --max-tokens: must be an integer; got '1.5'"),
        (["generate", "--temperature", "hot"], "argument --temperature: must be a number; got 'hot'"),
        (["chat", "--top-p", "most"], "argument --top-p: must be a number; got 'most'"),
        (["evaluate", "--documents", "x"], "argument --documents: must be an integer; got 'x'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_no_number_is_told_so(call, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(call if call[0] == "train" else [*call, "--model", "x"])
    assert ended.value.code == 2
    assert f"lmcourse {call[0]}: error: {said}" in capsys.readouterr().err


def test_an_unknown_size_is_refused_before_the_text_is_read(monkeypatch, capsys):
    monkeypatch.setattr(train, "training_texts", lambda *_, **__: pytest.fail("the text was read"))
    assert "--preset for --model gpt must be one of" in fails(["train", "--preset", "huge"], capsys)


def test_too_little_memory_is_one_line(tmp_path, capsys, monkeypatch):
    def ask_for_too_much(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(train, "make_model", ask_for_too_much)
    said = fails(
        ["train", "--dataset", "littleplay", "--merges", "3", "--out", str(tmp_path / "run")], capsys
    )
    assert "must fit into the memory; give a smaller --preset, --context or --batch-size" in said


def test_a_file_that_is_no_text_or_too_short_is_refused(tmp_path, capsys):
    file = tmp_path / "file"
    short = f"--dataset {file} must be long enough to hold out a tenth of it; it has 2 characters"
    for content, said in [
        (b"ab\xffcd", f"--dataset {file} must be UTF-8 text; byte 2 is not"),
        (b" \n", short),
    ]:
        file.write_bytes(content)
        assert said in fails(["train", "--dataset", str(file), "--out", str(tmp_path / "run")], capsys)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    out = str(tmp_path / "file" / "run")
    said = fails(
        ["train", "--dataset", "littleplay", "--merges", "3", "--batch-size", "2", "--out", out], capsys
    )
    assert f"--out {out} cannot be used: Not a directory" in said


def test_a_name_that_is_too_long_for_a_file_is_one_line(whole, tmp_path, capsys):
    name = "a" * 5000
    for call in (["train", "--out", str(tmp_path)], ["evaluate", "--model", str(whole)]):
        assert f"the path of a text file; got '{name}'" in fails([*call, "--dataset", name], capsys)
    for call in (["train", "--dataset", "littleplay"], ["train", "--resume"]):
        assert f"--out {name} cannot be used: File name too long" in fails([*call, "--out", name], capsys)
    assert f"--model {name} cannot be read: File name too long" in fails(
        ["generate", "--model", name], capsys
    )


def test_data_that_was_not_fetched_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LMCOURSE_CACHE", str(tmp_path / "empty"))
    assert cli.main(["train", "--dataset", "tinyshakespeare", "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "lmcourse data fetch tinyshakespeare" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_has_a_tiny_size_that_reads_text(name):
    model = make_model(name, "tiny", 11, 8)
    assert model.built
    assert (model.vocab_size, model.start_id) == (11, 0)
    assert model.max_length == (8 if name in ("gpt", "llama") else None)
    assert model(np.array([[0, 3, 4]])).shape == (1, 3, 11)
    assert ARCHITECTURES[name].learning_rate(model) > 0


def test_wide_transformers_are_trained_more_slowly():
    config = types.SimpleNamespace(config=types.SimpleNamespace(width=768))
    assert ARCHITECTURES["gpt"].learning_rate(config) == pytest.approx(5e-4)  # 3e-3 x 128 / 768


# ---------------------------------------------------------------- texts


def test_what_is_held_out_is_never_trained_on(tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("".join(f"line {i}\n" for i in range(100)))
    for dataset in ("littleplay", str(file)):
        whole_text = load_littleplay().text if dataset == "littleplay" else file.read_text()
        trained = texts.training_texts(dataset, kind="characters")
        held_out = texts.held_out_texts(dataset)
        decode = trained.tokenizer.decode
        seen = [decode(ids, skip_special=True) for ids in (*trained.train, *trained.validation)]
        assert sum(map(len, seen)) + sum(map(len, held_out.documents)) >= 0.95 * len(whole_text)
        assert not any(document in text for document in held_out.documents for text in seen)
        assert trained.sha256["held_out"] == held_out.sha256
    assert held_out.documents == [
        "".join(f"line {i}\n" for i in range(90, 100))
    ]  # its last tenth, from a line on


def test_fewer_tokens_are_taken_in_an_order_of_the_seed():
    first = texts.training_texts("littleplay", tokens=500, seed=1, kind="characters").train
    assert sum(map(len, first)) == 500
    assert first == texts.training_texts("littleplay", tokens=500, seed=1, kind="characters").train
    assert first != texts.training_texts("littleplay", tokens=500, seed=2, kind="characters").train


def test_every_document_ends_with_the_end_token():
    trained = texts.training_texts("littleplay", merges=4)
    assert trained.tokenizer.special_tokens == {"<end>": 0}
    # the end of each document is held out for validation, its end token with it
    assert all(ids[-1] == 0 and 0 not in ids[:-1] for ids in trained.validation[:-1])
    stories = texts.training_texts("fableworld", tokens=300)
    assert all(ids[-1] == 0 for ids in (*stories.train, *stories.validation))


# ---------------------------------------------------------------- generate


def drawn_after(loaded, prompt, count, **settings):
    ids = loaded.tokenizer.encode(prompt)
    return loaded.tokenizer.decode(generate(loaded.model, [ids], count, stop=[0], **settings)[0])


def test_generate_writes_the_prompt_and_what_the_model_draws(whole, loaded, capsys):
    call = ["generate", "--model", str(whole), "--prompt", "The lamp", "--max-tokens", "8", "--seed", "3"]
    assert cli.main(call) == 0
    assert capsys.readouterr().out == f"The lamp{drawn_after(loaded, 'The lamp', 8, seed=3)}\n"


def test_generate_ends_before_a_stop_text(quick_load, loaded, capsys):
    text = drawn_after(loaded, "The lamp", 8, seed=3)
    call = ["generate", "--model", "x", "--prompt", "The lamp", "--max-tokens", "8", "--seed", "3"]
    assert cli.main([*call, "--stop", "never", "--stop", text[2:4]]) == 0
    assert capsys.readouterr().out == f"The lamp{text[: text.index(text[2:4])]}\n"


def test_a_temperature_of_zero_takes_the_most_probable_token(quick_load, loaded, capsys):
    call = ["generate", "--model", "x", "--prompt", "The lamp", "--temperature", "0", "--max-tokens", "5"]
    assert cli.main(call) == 0
    assert capsys.readouterr().out == f"The lamp{drawn_after(loaded, 'The lamp', 5, greedy=True)}\n"


def test_without_a_number_it_writes_what_fits(quick_load, loaded, capsys):
    assert cli.main(["generate", "--model", "x", "--prompt", "The lamp", "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"The lamp{drawn_after(loaded, 'The lamp', 16 - 8, seed=3)}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", "Ω"], "--prompt: the model cannot read this text: text must hold only the"),
        (["--prompt", "a" * 16], "the model reads 16 tokens at most, the prompt has 16, so 0 can be written"),
        (["--max-tokens", "17"], "the prompt has 0, so 16 can be written; --max-tokens asks for 17"),
        (["--max-tokens", "0"], "--max-tokens must be at least 1; got 0"),
        (["--max-tokens", "-1"], "--max-tokens must be at least 1; got -1"),
        (["--temperature", "-1"], "finite number above 0, or 0 for the most probable token; got -1.0"),
        (
            ["--temperature", "nan"],
            "--temperature must be a finite number above 0, or 0 for the most probable",
        ),
        (
            ["--temperature", "inf"],
            "--temperature must be a finite number above 0, or 0 for the most probable",
        ),
        (["--top-k", "0"], "--top-k must be at least 1; got 0"),
        (["--top-k", "999"], "--top-k must be at most the model's vocabulary, 54; got 999"),
        (["--top-p", "1.5"], "--top-p must be above 0 and at most 1; got 1.5"),
        (["--top-p", "0"], "--top-p must be above 0 and at most 1; got 0.0"),
        (["--top-p", "nan"], "--top-p must be above 0 and at most 1; got nan"),
        (["--temperature", "0", "--top-p", "7"], "--top-p must be above 0 and at most 1; got 7.0"),
        (["--temperature", "0", "--top-k", "0"], "--top-k must be at least 1; got 0"),
        (
            ["--temperature", "0", "--top-k", "999"],
            "--top-k must be at most the model's vocabulary, 54; got 999",
        ),
        (["--seed", "-3"], "--seed must be at least 0; got -3"),
        (["--stop", ""], "--stop must be a text; got an empty one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_call_of_generate_is_one_line(quick_load, capsys, arguments, said):
    assert said in fails(["generate", "--model", "x", *arguments], capsys)
    assert capsys.readouterr().out == ""


def test_a_model_that_is_not_there_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.gguf").write_bytes(b"no weights")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "file").touch()
    known = (
        "--model must be a folder that `lmcourse train` wrote, a .gguf file, or smollm2-135m-instruct; got "
    )
    for name, said in [
        *((name, f"{known}{name!r}.") for name in ("", "smollm3", "no/where", "minilm-l6")),
        ("file", "--model: file must be a folder that `lmcourse train` wrote; it is a file."),
        (".", "--model: . must be a folder that `lmcourse train` wrote; it holds no run.json."),
        (
            "folder.gguf",
            "--model: folder.gguf must be a folder that `lmcourse train` wrote; it holds no run.json.",
        ),
        ("nothing.gguf", "--model nothing.gguf cannot be read: No such file or directory."),
        ("bad.gguf", "--model: bad.gguf: "),
    ]:
        assert said in fails(["generate", "--model", name], capsys)


def test_help_names_every_kind_of_model_that_can_generate(capsys):
    for command in ("generate", "evaluate"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert "a run's folder, a .gguf file, or smollm2-135m-instruct" in shown
        assert "minilm" not in shown


def test_the_published_models_are_those_that_predict_the_next_token():
    returned = {}
    for overload in typing.get_overloads(pretrained.load_pretrained):
        hints = typing.get_type_hints(overload)
        returned |= dict.fromkeys(typing.get_args(hints["name"]), hints["return"])
    assert set(returned) == set(typing.get_args(pretrained.PretrainedName))
    assert {name for name, kind in returned.items() if kind is pretrained.ChatModel} == set(PUBLISHED)


def test_a_reader_that_has_gone_ends_it_quietly(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert streamed.write_out(iter(["a", "b"])) == 141  # 128 + SIGPIPE


def test_ctrl_c_ends_a_text_with_its_line(capsys):
    def pieces():
        yield "Once upon"
        raise KeyboardInterrupt

    assert streamed.write_out(pieces()) == 130
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("Once upon\n", "")


# ---------------------------------------------------------------- evaluate


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A run on Fableworld that ended before its first step."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "untrained")
    tokenizer = fableworld.FableTokenizer()
    keras.utils.set_random_seed(0)
    folder.begin({"dataset": "fableworld"}, tokenizer)
    folder.finish(make_model("gru", "tiny", tokenizer.vocab_size), History())
    return folder.path


def test_fableworld_is_measured_as_by_the_chapters(untrained, capsys):
    assert cli.main(["evaluate", "--model", str(untrained), "--documents", "12", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    stories = fableworld.load("test", stories=12)
    chapter = FableworldTexts([], [], stories, fableworld.FableTokenizer())
    expected = chapter.measure(load_run(untrained).model)
    metrics = expected.metrics
    assert found["bits_per_token"] == pytest.approx(metrics["bits_per_token"], rel=1e-9)
    assert found["floor_bits_per_canonical_token"] == pytest.approx(metrics["floor_bits_per_token"], rel=1e-9)
    assert found["excess_bits_per_canonical_token"] == pytest.approx(
        metrics["excess_bits_per_token"], rel=1e-9
    )
    assert found["data_sha256"] == expected.data_sha256
    parts = found["by_phenomenon"]
    for label, part in parts.items():
        share = metrics[f"excess_{label.replace('-', '_')}_bits_per_token"]
        assert part["excess_bits_per_token_of_all"] == pytest.approx(share, rel=1e-9)
        excess = part["bits_per_token"] - part["floor_bits_per_token"]
        assert excess * part["tokens"] / found["tokens"] == pytest.approx(share, rel=1e-6, abs=1e-9)
    assert sum(part["tokens"] for part in parts.values()) == found["tokens"]


def test_the_table_names_every_phenomenon(untrained, capsys):
    assert cli.main(["evaluate", "--model", str(untrained), "--documents", "5"]) == 0
    printed = capsys.readouterr().out
    labels = {label for story in fableworld.load("test", stories=5) for label in story.labels}
    assert [label for label in labels if f"\n{label} " not in printed] == []
    assert "excess over it" in printed


class Uniform(LanguageModel):
    """Every token is as likely as any other."""

    def __init__(self, vocab_size, max_length=None):
        self.vocab_size, self.max_length = vocab_size, max_length

    def token_log_probs(self, ids, mask=None):
        assert self.max_length is None or np.shape(ids)[1] <= self.max_length
        return np.where(mask, -np.log(self.vocab_size), 0.0)

    def next_log_probs(self, prefixes):
        return np.full((len(prefixes), self.vocab_size), -np.log(self.vocab_size))


OURS = "smollm2-135m-instruct"  # a name that is known; what is loaded is the test's own

BYTES = BPETokenizer.train([], merges=0, special_tokens=["<|im_start|>", "<|im_end|>"])  # V = 258


@pytest.fixture
def published(monkeypatch):
    """Have `load_pretrained` return a model of the test's own, with a chat template."""

    def install(model):
        found = types.SimpleNamespace(model=model, tokenizer=BYTES, template=ChatTemplate())
        monkeypatch.setattr(pretrained, "load_pretrained", lambda name: found)

    return install


def test_a_uniform_model_has_the_perplexity_and_the_bits_of_its_vocabulary(published, tmp_path, capsys):
    published(Uniform(258, max_length=32))
    file = tmp_path / "text.txt"
    file.write_text(
        "é" * 50 + "\n" + "é" * 9 + "\n"
    )  # held out: the last line, 9 x 2 + 1 bytes, a token each
    assert cli.main(["evaluate", "--model", OURS, "--dataset", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["perplexity"] == pytest.approx(258)
    assert (found["tokens"], found["utf8_bytes"]) == (19, 19)
    assert found["bits_per_byte"] == pytest.approx(np.log2(258))
    assert found["by_phenomenon"] == {}


def test_other_tokens_are_compared_with_the_floor_by_canonical_token(published, capsys):
    published(Uniform(258, max_length=64))  # stories are several windows long
    assert (
        cli.main(["evaluate", "--model", OURS, "--dataset", "fableworld", "--documents", "3", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    stories = fableworld.load("test", stories=3)
    characters, canonical = sum(len(s.text) for s in stories), sum(len(s.tokens) for s in stories)
    floor = score(fableworld.FableOracle(), [fableworld.FableTokenizer().ids_of(s.tokens) for s in stories])
    expected = characters * np.log2(258) / canonical - floor.bits_per_token
    assert found["tokens"] == characters + sum(s.text.count(mark) * 2 for s in stories for mark in "“”’")
    assert found["canonical_tokens"] == canonical
    assert found["excess_bits_per_canonical_token"] == pytest.approx(
        expected + (found["tokens"] - characters) * np.log2(258) / canonical
    )
    assert found["by_phenomenon"] == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--dataset must be given for a model that was not trained here"),
        (["--dataset", "moby"], "--dataset must be one of fableworld"),
        (["--dataset", "littleplay", "--context", "99"], "--context must be at most the model's 32; got 99"),
        (["--dataset", "littleplay", "--context", "0"], "--context must be at least 1; got 0"),
        (["--dataset", "littleplay", "--context", "-3"], "--context must be at least 1; got -3"),
        (["--dataset", "littleplay", "--documents", "0"], "--documents must be at least 1; got 0"),
        (["--dataset", "littleplay", "--documents", "-2"], "--documents must be at least 1; got -2"),
    ],
)
def test_a_wrong_call_of_evaluate_is_one_line(published, capsys, arguments, said):
    published(Uniform(258, max_length=32))
    assert said in fails(["evaluate", "--model", OURS, *arguments], capsys)


def test_a_text_that_has_changed_since_the_training_is_said_to(untrained, tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_text("Near the sea there lived\n" * 20)
    record = RunFolder(untrained).record()
    loaded = LoadedModel("x", None, None, record={**record, "settings": {"dataset": str(file)},
                                                  "data_sha256": {"held_out": "other"}})  # fmt: skip
    evaluate._note_other_text(loaded, str(file), texts.held_out_texts(str(file)))
    assert "is not the text that it was when the model was trained" in capsys.readouterr().err


# ---------------------------------------------------------------- chat


class Scripted(LanguageModel):
    """Answers each message with how many it has seen and the last one backwards: "2: olleh"."""

    vocab_size = 258

    def __init__(self, max_length=None):
        self.max_length = max_length

    def token_log_probs(self, ids, mask=None):
        raise NotImplementedError

    def decoder(self, prefixes, *, with_start):
        assert not with_start, "the template writes how a conversation begins"
        return super().decoder(prefixes)

    def next_log_probs(self, prefixes):
        return np.log(np.eye(258)[[self._next(list(prefix)) for prefix in prefixes]] + 1e-12)

    def _next(self, ids):
        assert self.max_length is None or len(ids) < self.max_length
        asking = BYTES.encode("<|im_start|>assistant\n")
        begun = max(i for i in range(len(ids)) if ids[i : i + len(asking)] == asking) + len(asking)
        asked = BYTES.decode(ids[:begun])
        users = [part.partition("<|im_end|>")[0] for part in asked.split("<|im_start|>user\n")[1:]]
        system = "S" if "<|im_start|>system\n" in asked else ""
        return BYTES.encode(f"{system}{len(users)}: {users[-1][::-1]}<|im_end|>")[len(ids) - begun]


def talk(monkeypatch, capsys, lines, *arguments):
    """Return status, output and messages of a chat with these lines as its input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    status = cli.main(["chat", "--model", OURS, *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_each_line_of_a_pipe_is_a_turn_and_the_history_is_kept(published, monkeypatch, capsys):
    published(Scripted())
    status, out, err = talk(monkeypatch, capsys, ["hello", "", "été"], "--seed", "1")
    assert (status, out, err) == (0, "1: olleh\n2: été\n", "")


def test_the_system_message_is_told_first(published, monkeypatch, capsys):
    published(Scripted())
    _, out, _ = talk(
        monkeypatch, capsys, ["hello"], "--system", "Be brief.", "--temperature", "0", "--top-p", "1"
    )
    assert out == "S1: olleh\n"


def test_a_full_context_forgets_the_oldest_turns_and_says_so(published, monkeypatch, capsys):
    published(Scripted(max_length=110))
    status, out, err = talk(
        monkeypatch,
        capsys,
        ["one", "two", "three", "x" * 200, "four"],
        "--max-tokens",
        "20",
        "--system",
        "Hi",
    )
    assert status == 0
    # In bytes and marks: 12 for the system message, 31 for a turn ("one"), 24 to ask again, 20 for the answer: with two
    # turns before, 12 + 31 + 31 + 24 + 20 = 118.
    assert out == "S1: eno\nS2: owt\nS2: eerht\nS2: ruof\n"
    assert err.count("The context is full: the oldest 1 of the turns before") == 2
    assert "This message is too long: the model reads 110 tokens, 20 of them for its answer." in err


def test_a_chat_refuses_more_tokens_to_draw_from_than_there_are(published, monkeypatch, capsys):
    published(Scripted())
    status, _, err = talk(monkeypatch, capsys, ["hello"], "--top-k", "259")
    assert status == 2
    assert "--top-k must be at most the model's vocabulary, 258; got 259" in err


def test_a_special_token_in_a_message_ends_no_turn(published, monkeypatch, capsys):
    conversation = chat.Conversation(LoadedModel(OURS, Scripted(), BYTES, ChatTemplate()), greedy=True)
    conversation.add("a<|im_end|>b")
    ids = conversation._ids(conversation.messages)
    assert ids.count(BYTES.special_tokens["<|im_end|>"]) == 1


def test_an_answer_is_what_the_model_says_to_the_templates_text_alone(published):
    keras.utils.set_random_seed(0)
    model = GPT(GPTConfig.preset("tiny", vocab_size=258, initializer_stddev=0.5))
    conversation = chat.Conversation(
        LoadedModel(OURS, model, BYTES, ChatTemplate()), greedy=True, max_tokens=12
    )
    conversation.add("hello")
    ids = conversation._ids(conversation.messages)
    alone, with_start = (
        model.generate([ids], 12, temperature=0, with_start=with_start)[0] for with_start in (False, True)
    )
    assert alone != with_start
    assert "".join(conversation.answer()) == BYTES.decode(ids + alone)[len(BYTES.decode(ids)) :]


def test_ctrl_c_stops_the_answer_and_what_was_said_stays(published, capsys, monkeypatch):
    published(Scripted())
    conversation = chat.Conversation(load_model(OURS), greedy=True)
    plain, shown = conversation.answer, []

    def answer():
        for piece in plain():
            shown.append(piece)
            yield piece
            if len(shown) == 3:
                signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(conversation, "answer", answer)
    chat._take_turn(conversation, "hello")
    assert signal.getsignal(signal.SIGINT) is before
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("1: ", "\nStopped.\n")
    assert conversation.messages[-1] == {"role": "assistant", "content": "1: "}
    monkeypatch.setattr(conversation, "answer", plain)
    chat._take_turn(conversation, "again")
    assert capsys.readouterr().out == "2: niaga\n"


def test_a_second_ctrl_c_ends(published, monkeypatch, capsys):
    published(Scripted())
    monkeypatch.setattr("builtins.input", lambda prompt: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["chat", "--model", OURS]) == 130
    assert capsys.readouterr().err == ""
    with chat._ctrl_c_stops_the_answer():
        with pytest.raises(chat.AnswerStopped):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt) as ended:
            signal.raise_signal(signal.SIGINT)
    assert not isinstance(ended.value, chat.AnswerStopped)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--context", "121"], "--context must be at most the model's 120; got 121"),
        (["--max-tokens", "61"], "--max-tokens must leave half of the context of 120 tokens"),
        (["--temperature", "-1"], "--temperature must be"),
    ],
)
def test_a_wrong_call_of_chat_is_one_line(published, capsys, arguments, said):
    published(Scripted(max_length=120))
    assert said in fails(["chat", "--model", OURS, *arguments], capsys)


def test_a_model_without_a_template_does_not_chat(untrained, capsys):
    assert "it has no chat template. Use `lmcourse generate`" in fails(
        ["chat", "--model", str(untrained)], capsys
    )
