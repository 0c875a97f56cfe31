"""titans-pytorch: the single-memory Titans LMM."""

from __future__ import annotations

import argparse

import torch
from titans_pytorch import NeuralMemory
from torch import nn

from peer_models.stack import VOCAB, next_byte_step


class TitansStack(nn.Module):
    """Blocks of a NeuralMemory, which norms its input, and a feed-forward layer."""

    def __init__(self, args: argparse.Namespace, refresh: int | None):
        super().__init__()
        dim = args.dim
        self.embed = nn.Embedding(VOCAB, dim)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.memories = nn.ModuleList(
            NeuralMemory(
                dim=dim,
                dim_head=dim // args.heads,
                heads=args.heads,
                chunk_size=args.chunk,
                batch_size=refresh,
            )
            for _ in range(args.depth)
        )
        self.feed_forwards = nn.ModuleList(
            nn.Sequential(
                nn.RMSNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
            )
            for _ in range(args.depth)
        )
        self.norm = nn.RMSNorm(dim)
        for parameter in self.parameters():
            # with several heads the package's parameters share storage between heads,
            # which optimizers refuse
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        x_BTD = self.embed(ids_BT)
        for memory, feed_forward in zip(self.memories, self.feed_forwards, strict=True):
            x_BTD = x_BTD + memory(x_BTD)[0]
            x_BTD = x_BTD + feed_forward(x_BTD)
        return self.norm(x_BTD) @ self.embed.weight.T


def make(args: argparse.Namespace, refresh_chunks: int | None):
    """Model and step.

    `refresh_chunks`: chunks after which gradients are taken at renewed weights; None takes
    all of them at the initial ones.
    """
    model = TitansStack(args, refresh_chunks and refresh_chunks * args.chunk)
    return model, next_byte_step(model)
