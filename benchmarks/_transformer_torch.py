"""The same GPT in PyTorch, run eagerly: its fused attention, its fused AdamW."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from benchmarks.__main__ import cores
from benchmarks._transformer_work import BETAS, EPSILON, RATE, STDDEV, WEIGHT_DECAY, Size, windows


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(self.attention_norm(x))
        hidden = functional.gelu(self.widen(self.feed_forward_norm(x)), approximate="tanh")
        return x + self.narrow(hidden)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        rows, time, width = x.shape
        heads = (
            part.view(rows, time, self.heads, -1).transpose(1, 2)  # (B, H, T, K)
            for part in self.project(x).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
        return self.join(mixed.transpose(1, 2).reshape(rows, time, width))


class GPT(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.places = nn.Embedding(size.time, size.width)
        self.blocks = nn.Sequential(*(Block(size.width, size.heads) for _ in range(size.depth)))
        self.norm = nn.LayerNorm(size.width)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=STDDEV)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]  # (B, T, D)
        return functional.linear(self.norm(self.blocks(x)), self.tokens.weight)  # (B, T, V)


def training(size: Size) -> tuple[Callable[[], dict], dict]:
    """Return a function that makes the steps and gives their mean loss, and the number of parameters."""
    torch.set_num_threads(cores())
    torch.manual_seed(0)
    model = GPT(size)
    optimizer = torch.optim.AdamW(
        model.parameters(), RATE, betas=BETAS, eps=EPSILON, weight_decay=WEIGHT_DECAY, fused=True
    )
    x, y = (torch.from_numpy(part).long().split(size.rows) for part in windows(size))

    def train() -> dict:
        total = torch.zeros(())
        for ids, targets in zip(x, y, strict=True):
            loss = functional.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return {"loss": float(total) / size.steps}

    return train, {"parameters": sum(weight.numel() for weight in model.parameters())}
