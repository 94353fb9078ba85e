"""Chapter 4: the Transformer, and a real model's weights inside it.

In reading order: `config` (sizes, and the parameters that follow), `positions`, `norms`, `feed_forward`,
`self_attention`, `blocks` (and stacks of them), `embeddings`, `gpt` (GPT and Llama); `weights_file`, `gguf` and
`safetensors` (weights as they are published), `gguf_tokenizer` and `chat` (the tokenizer and the form of a
conversation that come with them).
"""

from lmcourse.transformer.blocks import Cache, TransformerBlock, TransformerDecoder, TransformerEncoder
from lmcourse.transformer.chat import ChatTemplate, read_chat_template
from lmcourse.transformer.config import (
    BertConfig,
    EncoderDecoderConfig,
    GPTConfig,
    LlamaConfig,
    StackConfig,
)
from lmcourse.transformer.embeddings import TokenEmbedding
from lmcourse.transformer.feed_forward import FeedForward
from lmcourse.transformer.gguf import GGUFFile
from lmcourse.transformer.gguf_tokenizer import TokenRoles, read_token_roles, read_tokenizer
from lmcourse.transformer.gpt import GPT, DecoderLanguageModel, Llama, Trace
from lmcourse.transformer.norms import LayerNorm, RMSNorm
from lmcourse.transformer.positions import (
    alibi_bias,
    alibi_slopes,
    rotary_angles,
    rotate,
    sinusoidal_encoding,
)
from lmcourse.transformer.safetensors import SafetensorsFile
from lmcourse.transformer.self_attention import SelfAttention
from lmcourse.transformer.weights_file import TensorInfo, WeightsFile, WeightsFileError

__all__ = [
    "GPT",
    "BertConfig",
    "Cache",
    "ChatTemplate",
    "DecoderLanguageModel",
    "EncoderDecoderConfig",
    "FeedForward",
    "GGUFFile",
    "GPTConfig",
    "LayerNorm",
    "Llama",
    "LlamaConfig",
    "RMSNorm",
    "SafetensorsFile",
    "SelfAttention",
    "StackConfig",
    "TensorInfo",
    "TokenEmbedding",
    "TokenRoles",
    "Trace",
    "TransformerBlock",
    "TransformerDecoder",
    "TransformerEncoder",
    "WeightsFile",
    "WeightsFileError",
    "alibi_bias",
    "alibi_slopes",
    "read_chat_template",
    "read_token_roles",
    "read_tokenizer",
    "rotary_angles",
    "rotate",
    "sinusoidal_encoding",
]
