"""Configs: parameters by formula, presets counted without being built, and what is refused."""

import dataclasses
import json
import math
import tracemalloc

import keras
import numpy as np
import pytest

from lmcourse.transformer import (
    GPT,
    BertConfig,
    EncoderDecoderConfig,
    GPTConfig,
    Llama,
    LlamaConfig,
    StackConfig,
    TransformerBlock,
    TransformerDecoder,
    TransformerEncoder,
)
from lmcourse.transformer.bert import Bert
from lmcourse.transformer.encoder_decoder import EncoderDecoder

CONFIGS = (GPTConfig, LlamaConfig, BertConfig, EncoderDecoderConfig)
SMALLEST = {"width": 8, "depth": 1, "num_heads": 2}


def random_stack(rng):
    """Return the fields of a small config in which no two sizes are equal by necessity."""
    kv_heads = int(rng.choice([1, 2, 3]))
    heads, head = kv_heads * int(rng.choice([1, 2])), 2 * int(rng.integers(1, 4))
    given = bool(rng.integers(2))
    return {
        "width": 2 * int(rng.integers(2, 9)) if given else heads * head,
        "depth": int(rng.integers(1, 4)),
        "num_heads": heads,
        "num_kv_heads": kv_heads if rng.integers(2) else None,
        "head_dim": head if given else None,
        "hidden_dim": int(rng.integers(1, 20)) if rng.integers(2) else None,
        "activation": str(rng.choice(["relu", "gelu", "gelu_tanh", "swiglu"])),
        "norm": str(rng.choice(["layer", "rms", "none"])),
        "norm_first": bool(rng.integers(2)),
        "use_bias": bool(rng.integers(2)),
        "positions": str(rng.choice(["none", "sinusoidal", "learned", "rotary", "alibi"])),
    }


def random_config(kind, rng):
    fields = {**random_stack(rng), "max_length": int(rng.integers(1, 30))}
    if kind is EncoderDecoderConfig:
        vocab, shared = int(rng.integers(1, 30)), bool(rng.integers(2))
        target = vocab if shared else int(rng.integers(1, 30))
        return kind(**fields, source_vocab=vocab, target_vocab=target, shared=shared)
    fields["vocab_size"] = int(rng.integers(1, 30))
    if kind is BertConfig:
        pooler = bool(rng.integers(2))
        heads = pooler and bool(rng.integers(2))
        return kind(**fields, segments=int(rng.integers(1, 4)), pooler=pooler, heads=heads)
    return kind(**fields, tied=bool(rng.integers(2)))


class TestFormula:
    @pytest.mark.parametrize(
        ("kind", "model", "count"),
        [
            (GPTConfig, GPT, 8),
            (LlamaConfig, Llama, 5),
            (BertConfig, Bert, 6),
            (EncoderDecoderConfig, EncoderDecoder, 6),
        ],
    )
    def test_parameters_by_formula_are_those_of_the_model(self, kind, model, count):
        rng = np.random.default_rng(5)
        for _ in range(count):
            config = random_config(kind, rng)
            made = model(config)
            made.build()
            assert made.count_params() == config.parameter_count(), config

    @pytest.mark.parametrize("cross_attention", [False, True])
    def test_each_part_of_a_block_has_the_parameters_that_its_formula_says(self, cross_attention):
        rng = np.random.default_rng(6)
        for _ in range(8):
            config = StackConfig(**random_stack(rng))
            block = TransformerBlock(config, cross_attention)
            block.build((None, None, config.width))
            parts = config.block_parameters(cross_attention=cross_attention)
            norms = [block.attention_norm, block.cross_attention_norm, block.feed_forward_norm]
            found = {
                "attention": block.attention.count_params(),
                **({"cross_attention": block.cross_attention.count_params()} if cross_attention else {}),
                "feed_forward": block.feed_forward.count_params(),
                "norms": sum(norm.count_params() for norm in norms if norm is not None),
            }
            assert parts == found, config

    def test_a_stack_is_its_blocks_and_for_pre_norm_one_norm_more(self):
        for norm_first, extra in ((True, 2 * 8), (False, 0)):
            config = StackConfig(**{**SMALLEST, "depth": 3}, norm_first=norm_first)
            assert config.parameter_count() == 3 * sum(config.block_parameters().values()) + extra
            for stack in (TransformerEncoder(config), TransformerDecoder(config)):
                stack.build((None, None, 8))
                assert stack.count_params() == config.parameter_count()

    def test_a_block_of_gpt_by_hand(self):
        # D = 4, H = 2, F = 16: four matrices 4 · 4 with biases, then 4 · 16 and 16 · 4, then two norms of 2 · 4.
        parts = GPTConfig(width=4, depth=1, num_heads=2, vocab_size=5, max_length=3).parameters()
        expected = {
            "embedding": 5 * 4,
            "positions": 3 * 4,
            "attention": 4 * (16 + 4),
            "feed_forward": 4 * 16 + 16 + 16 * 4 + 4,
            "norms": 3 * 2 * 4,
            "output": 0,
        }
        assert parts == expected

    def test_fewer_heads_of_keys_and_a_gate_by_hand(self):
        # D = 8, H = 4, G = 2, K = 2, F = 5: queries and output 8 · 8, keys and values 8 · 4, three matrices 8 · 5.
        config = LlamaConfig(
            width=8, depth=1, num_heads=4, num_kv_heads=2, hidden_dim=5, vocab_size=3, tied=False
        )
        parts = config.parameters()
        assert parts["attention"] == 2 * 64 + 2 * 32
        assert parts["feed_forward"] == 3 * 40
        assert parts["norms"] == 3 * 8
        assert parts["positions"] == 0
        assert parts["output"] == parts["embedding"] == 24


def gpt2_by_hand(width, depth):
    """Sum the tensors of the published files: wte, wpe, ln_f, and of each block two norms and four matrices."""
    block = 2 * 2 * width + width * 3 * width + 3 * width + width * width + width
    block += width * 4 * width + 4 * width + 4 * width * width + width
    return 50_257 * width + 1024 * width + depth * block + 2 * width


def llama_by_hand(vocab, width, depth, kv_width, hidden, tables):
    """Sum the tensors of the published files: q, k, v, o, gate, up, down, two norms a block, and one at the end."""
    block = 2 * width * width + 2 * width * kv_width + 3 * width * hidden + 2 * width
    return tables * vocab * width + depth * block + width


class TestPresets:
    @pytest.mark.parametrize(
        ("name", "count", "width", "depth"),
        [
            # What `transformers` 4 counts in gpt2, gpt2-medium, gpt2-large and gpt2-xl.
            ("gpt2-124m", 124_439_808, 768, 12),
            ("gpt2-355m", 354_823_168, 1024, 24),
            ("gpt2-774m", 774_030_080, 1280, 36),
            ("gpt2-1.5b", 1_557_611_200, 1600, 48),
        ],
    )
    def test_gpt2(self, name, count, width, depth):
        assert GPTConfig.preset(name).parameter_count() == count == gpt2_by_hand(width, depth)

    @pytest.mark.parametrize(
        ("name", "count", "sizes"),
        [
            # Llama 2's model card and `transformers` say 6.74 billion, the paper of 2023 "6.7B".
            ("llama-7b", 6_738_415_616, (32_000, 4096, 32, 4096, 11_008, 2)),
            ("llama-2-7b", 6_738_415_616, (32_000, 4096, 32, 4096, 11_008, 2)),
            # Eight of 32 heads have keys: 1024 wide. The model card says "8B", its files hold 8.03 billion.
            ("llama-3-8b", 8_030_261_248, (128_256, 4096, 32, 1024, 14_336, 2)),
            ("smollm2-135m", 134_515_008, (49_152, 576, 30, 192, 1536, 1)),
        ],
    )
    def test_llama(self, name, count, sizes):
        assert LlamaConfig.preset(name).parameter_count() == count == llama_by_hand(*sizes)

    @pytest.mark.parametrize(
        ("name", "width", "depth", "count"),
        [("bert-base", 768, 12, 109_482_240), ("bert-large", 1024, 24, 335_141_888)],
    )
    def test_bert_without_heads(self, name, width, depth, count):
        # The paper rounds to 110M and 340M. Tables of tokens, positions, segments and a norm; blocks; the pooler.
        block = 4 * (width + 1) * width + (width + 1) * 4 * width + (4 * width + 1) * width + 4 * width
        by_hand = (30_522 + 512 + 2 + 2) * width + depth * block + (width + 1) * width
        assert BertConfig.preset(name, heads=False).parameter_count() == count == by_hand
        heads = (width + 1) * width + 2 * width + 30_522 + 2 * (width + 1)
        assert BertConfig.preset(name).parameter_count() == count + heads

    def test_minilm_has_neither_pooler_nor_heads(self):
        # all-MiniLM-L6-v2's model.safetensors holds 22,713,216 numbers, of which 384 · 385 are an unused pooler's.
        assert BertConfig.preset("minilm-l6").parameter_count() == 22_713_216 - 384 * 385 == 22_565_376

    @pytest.mark.parametrize(("name", "millions", "share"), [("base", 65, 0.03), ("big", 213, 0.01)])
    def test_the_transformer_of_2017_is_near_what_its_paper_says(self, name, millions, share):
        # Table 3 rounds, says "about 37000" tokens (section 5.1) and not whether matrices have biases.
        count = EncoderDecoderConfig.preset(f"transformer-{name}").parameter_count()
        assert count / 1e6 == pytest.approx(millions, rel=share)

    def test_the_transformer_of_2017_by_hand(self):
        width, hidden = 512, 2048
        attention, norm = 4 * (width + 1) * width, 2 * width
        network = (width + 1) * hidden + (hidden + 1) * width
        by_hand = (
            37_000 * width + 6 * (attention + network + 2 * norm) + 6 * (2 * attention + network + 3 * norm)
        )
        assert EncoderDecoderConfig.preset("transformer-base").parameter_count() == by_hand == 63_082_496

    def test_counting_makes_no_weight_and_takes_no_memory(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("a weight was made")

        monkeypatch.setattr(keras.layers.Layer, "add_weight", refuse)
        tracemalloc.start()
        try:
            for kind in CONFIGS:
                for name, fields in kind.PRESETS.items():
                    vocab = (
                        ("source_vocab", "target_vocab") if kind is EncoderDecoderConfig else ("vocab_size",)
                    )
                    missing = {key: 100 for key in vocab if key not in fields}
                    assert kind.preset(name, **missing).parameter_count() > 0
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2**20  # bytes; one row of llama-7b's table alone has 16 KiB, the table 500 MiB

    def test_a_preset_can_be_changed(self):
        longer = GPTConfig.preset("gpt2-124m", max_length=2048)
        assert longer.parameter_count() == 124_439_808 + 1024 * 768

    @pytest.mark.parametrize("kind", CONFIGS)
    def test_an_unknown_preset_is_told_what_there_is(self, kind):
        with pytest.raises(ValueError, match=r"preset must be one of .*; got 'huge'") as caught:
            kind.preset("huge")
        assert all(name in str(caught.value) for name in kind.PRESETS)

    def test_a_small_preset_needs_a_vocabulary(self):
        with pytest.raises(ValueError, match="GPTConfig needs vocab_size; got"):
            GPTConfig.preset("tiny")


class TestFields:
    @pytest.mark.parametrize("kind", CONFIGS)
    def test_a_config_survives_json(self, kind):
        config = random_config(kind, np.random.default_rng(7))
        again = kind.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        assert kind.from_dict(config) is config

    def test_numpys_integers_become_pythons_so_that_json_can_hold_them(self):
        config = GPTConfig(**SMALLEST, vocab_size=np.int64(5))
        assert type(config.vocab_size) is int

    def test_sizes_that_are_not_given_follow(self):
        config = StackConfig(width=12, depth=1, num_heads=3)
        assert (config.kv_heads, config.head_width, config.ffn_width) == (3, 4, 48)
        config = StackConfig(width=12, depth=1, num_heads=6, num_kv_heads=2, head_dim=5, hidden_dim=7)
        assert (config.kv_heads, config.head_width, config.ffn_width) == (2, 5, 7)

    def test_nothing_of_a_config_can_be_changed_in_place(self):
        config = GPTConfig(**SMALLEST, vocab_size=5)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.width = 16
        assert config.changed(width=16).width == 16
        assert config.width == 8

    def test_an_unknown_field_is_refused_with_those_there_are(self):
        with pytest.raises(ValueError, match="GPTConfig has no n_layers; it has width, depth, num_heads"):
            GPTConfig.from_dict({**SMALLEST, "vocab_size": 5, "n_layers": 2})
        with pytest.raises(ValueError, match="GPTConfig has no segments"):
            GPTConfig.preset("gpt2-124m", segments=2)

    def test_missing_fields_are_named(self):
        with pytest.raises(ValueError, match="LlamaConfig needs depth, vocab_size; got width, num_heads"):
            LlamaConfig.from_dict({"width": 8, "num_heads": 2})

    def test_what_is_no_config_is_refused(self):
        with pytest.raises(
            ValueError, match=r"config must be a GPTConfig or a dict of its fields; got 'tiny'"
        ):
            GPT("tiny")
        with pytest.raises(ValueError, match="GPTConfig has no heads, pooler, segments"):
            GPT(BertConfig(**SMALLEST, vocab_size=5).to_dict())

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_heads": 3}, "num_heads must divide width = 8, or head_dim be given; got 3"),
            ({"num_heads": 4, "num_kv_heads": 3}, "num_kv_heads must divide num_heads = 4; got 3"),
            ({"num_kv_heads": 4}, "num_kv_heads must divide num_heads = 2; got 4"),
            ({"width": 6, "positions": "rotary"}, "head_dim must be even for rotary positions.*; got 3"),
            ({"head_dim": 5, "positions": "rotary"}, "head_dim must be even for rotary positions.*; got 5"),
            (
                {"width": 9, "num_heads": 3, "positions": "sinusoidal"},
                "width must be even for sinusoidal positions.*; got 9",
            ),
            ({"activation": "silu"}, r"activation must be one of .*'swiglu'.*; got 'silu'"),
            ({"norm": "batch"}, r"norm must be one of .*'rms'.*; got 'batch'"),
            ({"positions": "absolute"}, r"positions must be one of .*'alibi'.*; got 'absolute'"),
            ({"rotary_pairing": "neighbours"}, r"rotary_pairing must be one of .*; got 'neighbours'"),
            ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0"),
            ({"dropout": -0.1}, "dropout must be at least 0 and below 1; got -0.1"),
            ({"norm_epsilon": 0.0}, "norm_epsilon must be above 0; got 0.0"),
            ({"initializer_stddev": 0.0}, "initializer_stddev must be above 0; got 0.0"),
            ({"rotary_base": -1.0}, "rotary_base must be above 0; got -1.0"),
            ({"vocab_size": 0}, "vocab_size must be at least 1; got 0"),
            ({"max_length": 0}, "max_length must be at least 1; got 0"),
            ({"start_id": 5}, r"start_id must be between 0 and vocab_size - 1 = 4; got 5"),
            ({"start_id": -1}, r"start_id must be between 0 and vocab_size - 1 = 4; got -1"),
            *(
                ({name: 0}, f"{name} must be at least 1; got 0")
                for name in ("width", "depth", "num_heads", "num_kv_heads", "head_dim", "hidden_dim")
            ),
            ({"width": 8.0}, r"width must be an integer; got 8\.0"),
            ({"num_heads": True}, "num_heads must be an integer; got True"),
            ({"head_dim": "4"}, "head_dim must be an integer or None; got '4'"),
            ({"dropout": "0.1"}, "dropout must be a finite number; got '0.1'"),
            ({"dropout": True}, "dropout must be a finite number; got True"),
            ({"dropout": None}, "dropout must be a finite number; got None"),
            ({"dropout": math.nan}, "dropout must be a finite number; got nan"),
            ({"norm_epsilon": math.inf}, "norm_epsilon must be a finite number; got inf"),
            ({"rotary_base": 10**400}, "rotary_base must be a finite number; got 1000"),
            (
                {"initializer_stddev": [0.1]},
                r"initializer_stddev must be a finite number or None; got \[0.1\]",
            ),
            ({"norm_first": 1}, "norm_first must be True or False; got 1"),
            ({"use_bias": "False"}, "use_bias must be True or False; got 'False'"),
            ({"tied": None}, "tied must be True or False; got None"),
            ({"norm": ["rms"]}, r"norm must be one of .*; got \['rms'\]"),
            ({"start_id": 1.0}, r"start_id must be an integer; got 1\.0"),
            ({"start_id": False}, "start_id must be an integer; got False"),
            ({"depth": "2"}, r"depth must be an integer; got '2'"),
            ({"vocab_size": None}, "vocab_size must be an integer; got None"),
        ],
    )
    def test_sizes_and_choices_that_cannot_be_are_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            GPTConfig(**{**SMALLEST, "vocab_size": 5, **changes})

    @pytest.mark.parametrize("kind", CONFIGS)
    def test_no_field_takes_a_value_of_another_type(self, kind):
        known = [field.name for field in dataclasses.fields(kind)]
        sizes = {**SMALLEST, "vocab_size": 5, "source_vocab": 5, "target_vocab": 5}
        fields = {name: sizes[name] for name in known if name in sizes}
        for name in known:
            with pytest.raises(ValueError, match=f"^{name} must be .*; got <object"):
                kind(**{**fields, name: object()})

    def test_numpys_numbers_and_flags_become_pythons_and_an_integer_a_real_number(self):
        config = BertConfig(
            **SMALLEST,
            vocab_size=5,
            dropout=np.float64(0.25),
            norm_epsilon=1,
            pooler=np.True_,
            heads=np.False_,
        )
        assert (config.dropout, config.norm_epsilon, config.pooler, config.heads) == (0.25, 1.0, True, False)
        kinds = [type(value) for value in (config.dropout, config.norm_epsilon, config.pooler, config.heads)]
        assert kinds == [float, float, bool, bool]
        assert type(GPTConfig(**SMALLEST, vocab_size=5, start_id=np.int32(3)).start_id) is int

    def test_a_change_of_a_field_that_is_not_there_is_refused(self):
        config = GPTConfig(**SMALLEST, vocab_size=5)
        with pytest.raises(ValueError, match="GPTConfig has no heads; it has width, depth"):
            config.changed(heads=2)
        with pytest.raises(ValueError, match="GPTConfig has no 2; it has width, depth"):
            GPTConfig.from_dict({**config.to_dict(), 2: 3})

    def test_ids_and_vocabularies_of_a_translator_must_fit(self):
        with pytest.raises(ValueError, match=r"end_id must be between 0 and vocab_size - 1 = 5; got 6"):
            EncoderDecoderConfig(**SMALLEST, source_vocab=7, target_vocab=6, end_id=6)
        with pytest.raises(ValueError, match=r"target_vocab must equal source_vocab = 7.*; got 6"):
            EncoderDecoderConfig(**SMALLEST, source_vocab=7, target_vocab=6, shared=True)

    def test_the_next_sentence_needs_a_pooler(self):
        with pytest.raises(ValueError, match=r"pooler must be True for heads.*; got False"):
            BertConfig(**SMALLEST, vocab_size=5, pooler=False)
