"""Chapter 4: the Transformer, and a real model's weights inside it.

In reading order: `weights_file`, `gguf` and `safetensors` (weights as they are published), `gguf_tokenizer` and `chat`
(the tokenizer and the form of a conversation that come with them).
"""

from lmcourse.transformer.chat import ChatTemplate, read_chat_template
from lmcourse.transformer.gguf import GGUFFile
from lmcourse.transformer.gguf_tokenizer import TokenRoles, read_token_roles, read_tokenizer
from lmcourse.transformer.safetensors import SafetensorsFile
from lmcourse.transformer.weights_file import TensorInfo, WeightsFile, WeightsFileError

__all__ = [
    "ChatTemplate",
    "GGUFFile",
    "SafetensorsFile",
    "TensorInfo",
    "TokenRoles",
    "WeightsFile",
    "WeightsFileError",
    "read_chat_template",
    "read_token_roles",
    "read_tokenizer",
]
