"""A Transformer with rotary positions on PyTorch's fused attention."""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import nn

from peer_models.stack import Stack, next_byte_step


class Attention(nn.Module):
    """Causal multi-head attention without biases; q, k and v in one product."""

    def __init__(self, args: argparse.Namespace):
        super().__init__()
        self.heads = args.heads
        self.w_qkv = nn.Linear(args.dim, 3 * args.dim, bias=False)
        self.w_out = nn.Linear(args.dim, args.dim, bias=False)
        half = args.dim // args.heads // 2
        rate_R = 10_000.0 ** (-torch.arange(half) / half)
        angle_TR = torch.arange(args.length)[:, None] * rate_R[None]
        self.register_buffer("cos_TK", angle_TR.cos().repeat(1, 2), persistent=False)
        self.register_buffer("sin_TK", angle_TR.sin().repeat(1, 2), persistent=False)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        batch, time, dim = x_BTD.shape
        qkv_BTPHK = self.w_qkv(x_BTD).view(batch, time, 3, self.heads, -1)
        q_BHTK, k_BHTK, v_BHTK = qkv_BTPHK.permute(2, 0, 3, 1, 4)
        y_BHTK = F.scaled_dot_product_attention(
            self._rotated(q_BHTK), self._rotated(k_BHTK), v_BHTK, is_causal=True
        )
        return self.w_out(y_BHTK.transpose(1, 2).reshape(batch, time, dim))

    def _rotated(self, x_BHTK: torch.Tensor) -> torch.Tensor:
        first_BHTR, second_BHTR = x_BHTK.chunk(2, dim=-1)
        turned_BHTK = torch.cat((-second_BHTR, first_BHTR), dim=-1)
        return x_BHTK * self.cos_TK + turned_BHTK * self.sin_TK


def make(args: argparse.Namespace):
    """Model and step."""
    model = Stack(args, lambda number: Attention(args))
    return model, next_byte_step(model)
