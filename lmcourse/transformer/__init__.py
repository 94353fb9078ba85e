"""Chapter 4: the Transformer, and a real model's weights inside it.

In reading order: `config` (sizes, and the parameters that follow), `positions`, `norms`, `feed_forward`,
`self_attention`, `blocks` (and stacks of them), `embeddings`, `gpt` (GPT and Llama), `generation` (with a cache),
`ablations` (what happens without a part), `encoder_decoder`, `bert` and `masking` (hidden tokens), `viewer` and
`diagram` (looks inside); `weights_file`, `gguf` and `safetensors` (weights as they are published), `gguf_tokenizer` and
`chat` (the tokenizer and the form of a conversation that come with them), `weight_names` and `pretrained` (published
weights in our models), `sentence_encoder`.
"""

from lmcourse.transformer.ablations import AblatedGPT
from lmcourse.transformer.bert import Bert
from lmcourse.transformer.blocks import Cache, TransformerBlock, TransformerDecoder, TransformerEncoder
from lmcourse.transformer.chat import ChatTemplate, read_chat_template
from lmcourse.transformer.config import (
    BertConfig,
    EncoderDecoderConfig,
    GPTConfig,
    LlamaConfig,
    StackConfig,
)
from lmcourse.transformer.diagram import draw_block
from lmcourse.transformer.embeddings import TokenEmbedding
from lmcourse.transformer.encoder_decoder import EncoderDecoder
from lmcourse.transformer.feed_forward import FeedForward
from lmcourse.transformer.generation import CachedDecoder, TextGenerator
from lmcourse.transformer.gguf import GGUFFile
from lmcourse.transformer.gguf_tokenizer import TokenRoles, read_token_roles, read_tokenizer
from lmcourse.transformer.gpt import GPT, DecoderLanguageModel, Llama, Trace
from lmcourse.transformer.masking import (
    Hiding,
    MaskedBatches,
    MaskedScores,
    NextSentenceBatches,
    masked_accuracy,
    score_masked,
)
from lmcourse.transformer.norms import LayerNorm, RMSNorm
from lmcourse.transformer.positions import (
    alibi_bias,
    alibi_slopes,
    rotary_angles,
    rotate,
    sinusoidal_encoding,
)
from lmcourse.transformer.pretrained import (
    ChatModel,
    load_bert,
    load_chat_model,
    load_gguf,
    load_gpt2,
    load_pretrained,
    load_sentence_encoder,
)
from lmcourse.transformer.safetensors import SafetensorsFile
from lmcourse.transformer.self_attention import SelfAttention
from lmcourse.transformer.sentence_encoder import SentenceEncoder
from lmcourse.transformer.viewer import (
    AttentionViewer,
    LogitLens,
    draw_copying_heads,
    draw_layers_and_heads,
    draw_logit_lens,
    logit_lens,
)
from lmcourse.transformer.weights_file import TensorInfo, WeightsFile, WeightsFileError

__all__ = [
    "GPT",
    "AblatedGPT",
    "AttentionViewer",
    "Bert",
    "BertConfig",
    "Cache",
    "CachedDecoder",
    "ChatModel",
    "ChatTemplate",
    "DecoderLanguageModel",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "FeedForward",
    "GGUFFile",
    "GPTConfig",
    "Hiding",
    "LayerNorm",
    "Llama",
    "LlamaConfig",
    "LogitLens",
    "MaskedBatches",
    "MaskedScores",
    "NextSentenceBatches",
    "RMSNorm",
    "SafetensorsFile",
    "SelfAttention",
    "SentenceEncoder",
    "StackConfig",
    "TensorInfo",
    "TextGenerator",
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
    "draw_block",
    "draw_copying_heads",
    "draw_layers_and_heads",
    "draw_logit_lens",
    "load_bert",
    "load_chat_model",
    "load_gguf",
    "load_gpt2",
    "load_pretrained",
    "load_sentence_encoder",
    "logit_lens",
    "masked_accuracy",
    "read_chat_template",
    "read_token_roles",
    "read_tokenizer",
    "rotary_angles",
    "rotate",
    "score_masked",
    "sinusoidal_encoding",
]
