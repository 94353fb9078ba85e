"""Our GPT: trained as a graph of XLA, generating with and without a cache; and SmolLM2."""

import time
from collections.abc import Callable

import keras
import numpy as np

from benchmarks._transformer_work import BETAS, EPSILON, RATE, STDDEV, WEIGHT_DECAY, Size, windows
from lmcourse.core import RecomputingDecoder
from lmcourse.training import Batches, fit
from lmcourse.transformer import GPT, GPTConfig

GENERATED = 128
SMOLLM2 = "smollm2-135m-instruct"
SMOLLM2_TOKENS = 32


class Windows(Batches):
    """The same windows that the others read."""

    fixed_shape = True

    def __init__(self, size: Size):
        shape = (size.steps, size.rows, size.time)
        self.x, self.y = (part.reshape(shape) for part in windows(size))
        self.weight = np.ones(shape[1:], dtype=np.float32)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.x)

    def at(self, position: int):
        step = position % len(self.x)
        return self.x[step], self.y[step], self.weight


def training(size: Size, jit_compile: bool = True) -> tuple[Callable[[], dict], dict]:
    """Return a function that makes the steps and gives their mean loss, and the number of parameters."""
    keras.utils.set_random_seed(0)
    model = gpt(size)
    optimizer = keras.optimizers.AdamW(
        RATE, weight_decay=WEIGHT_DECAY, beta_1=BETAS[0], beta_2=BETAS[1], epsilon=EPSILON
    )
    model.compile(optimizer, jit_compile=jit_compile)
    batches = Windows(size)

    def train() -> dict:
        return {"loss": float(np.mean(fit(model, batches, steps=size.steps, progress=False).loss))}

    return train, {"parameters": model.config.parameter_count()}


def training_without_xla(size: Size) -> tuple[Callable[[], dict], dict]:
    return training(size, jit_compile=False)


def gpt(size: Size) -> GPT:
    model = GPT(
        GPTConfig(
            vocab_size=size.vocabulary,
            max_length=size.time,
            width=size.width,
            depth=size.depth,
            num_heads=size.heads,
            initializer_stddev=STDDEV,
        )
    )
    model.build((None, size.time))
    return model


def generation_with_cache(size: Size) -> tuple[Callable[[], dict], dict]:
    """Return a function that continues a prompt greedily with the model's own compiled loop."""
    model, prompt = untrained(size)
    return lambda: {"ids": model.generate([prompt], max_new_tokens=GENERATED, temperature=0)[0]}, {}


def generation_without_cache(size: Size) -> tuple[Callable[[], dict], dict]:
    """Return a function that does the same by reading everything again for each token."""
    model, prompt = untrained(size)

    def generate() -> dict:
        decoder, ids = RecomputingDecoder(model, [prompt]), []
        for _ in range(GENERATED):
            ids.append(int(decoder.log_probs()[0].argmax()))
            decoder.append(ids[-1:])
        return {"ids": ids}

    return generate, {}


def untrained(size: Size) -> tuple[GPT, list[int]]:
    """Return a compiled model with random weights and a prompt: what they are does not change the speed."""
    keras.utils.set_random_seed(0)
    model = gpt(size)
    model.compile(jit_compile=True)
    return model, windows(size)[0][0, : size.prompt].tolist()


def smollm2_alone() -> tuple[Callable[[], dict], dict]:
    return smollm2(rows=1)


def smollm2_eight() -> tuple[Callable[[], dict], dict]:
    return smollm2(rows=8)


def smollm2(rows: int) -> tuple[Callable[[], dict], dict]:
    """Return a function that measures greedy decoding, and the bytes of weights that each step reads."""
    from lmcourse.transformer import load_pretrained

    chat = load_pretrained(SMOLLM2)
    prompts = [chat.tokenizer.encode("The capital of France is Paris. The capital of Italy is")] * rows

    def seconds(tokens: int) -> float:
        began = time.perf_counter()
        chat.model.generate(prompts, tokens, temperature=0)
        return time.perf_counter() - began

    def decode() -> dict:
        # The difference leaves out what both calls have: reading the prompts, and the first token.
        decoding = seconds(SMOLLM2_TOKENS) - seconds(1)
        return {"tokens_per_second": rows * (SMOLLM2_TOKENS - 1) / decoding}

    return decode, {"bytes": sum(weight.value.numpy().nbytes for weight in chat.model.weights)}
