"""A language model around any mixer, and its training step: shapes as in `hope bench`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

VOCAB = 256


class SwiGLU(nn.Module):
    """Feed-forward layer; gate and input in one product."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.w_in = nn.Linear(dim, 2 * hidden, bias=False)
        self.w_out = nn.Linear(hidden, dim, bias=False)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        gate_BTF, value_BTF = self.w_in(x_BTD).chunk(2, dim=-1)
        return self.w_out(F.silu(gate_BTF) * value_BTF)


class Block(nn.Module):
    """A mixer and a feed-forward layer, each behind a norm and beside a residual."""

    def __init__(self, args: argparse.Namespace, mixer: nn.Module):
        super().__init__()
        self.mixer_norm = nn.RMSNorm(args.dim)
        self.mixer = mixer
        self.feed_forward_norm = nn.RMSNorm(args.dim)
        self.feed_forward = SwiGLU(args.dim, args.hidden)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        x_BTD = x_BTD + self.mixer(self.mixer_norm(x_BTD))
        return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))


class Stack(nn.Module):
    """Embedding, blocks and the tied head; `mixer` makes the mixer of the layer numbered."""

    def __init__(self, args: argparse.Namespace, mixer: Callable[[int], nn.Module]):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, args.dim)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(args, mixer(layer)) for layer in range(args.depth))
        self.norm = nn.RMSNorm(args.dim)

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        x_BTD = self.embed(ids_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.norm(x_BTD) @ self.embed.weight.T


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW in one pass over the parameters, the fastest that PyTorch has on a CPU."""
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


def next_byte_step(model: nn.Module) -> Callable[[torch.Tensor], float]:
    """One step of next-byte prediction with a model that maps ids to logits."""
    optimizer = adamw(model)

    def step(ids_BT: torch.Tensor) -> float:
        logits_BTW = model(ids_BT[:, :-1])
        loss = F.cross_entropy(logits_BTW.flatten(0, 1), ids_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step
