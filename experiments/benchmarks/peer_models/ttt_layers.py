"""TTT-Linear and TTT-MLP of the authors' PyTorch code, whose folder is on the path.

The layers with the authors' Mamba backbone (one projection for q and k, convolutions, a gate)
as `hope bench` has it: without the convolution in front of the layer, which both can leave
out. Nothing is recomputed in the backward pass, which is fastest. Feed-forward layers and
norms are PyTorch's own, which spend less on them than those of the file.
"""

from __future__ import annotations

import argparse

import torch
import ttt
from torch import nn

from peer_models.stack import VOCAB, Stack, next_byte_step

LAYERS = {"linear": ttt.TTTLinear, "mlp": ttt.TTTMLP}
BASE_RATES = {"linear": 1.0, "mlp": 0.1}  # of the paper


class Mixer(nn.Module):
    """A layer, told the positions."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.layer(x_BTD, position_ids=torch.arange(x_BTD.shape[1])[None])


def make(args: argparse.Namespace, layer: str, mini_batch: int):
    """Model and step; `mini_batch`: tokens whose gradients are taken at one state."""
    config = ttt.TTTConfig(
        vocab_size=VOCAB,
        hidden_size=args.dim,
        num_hidden_layers=args.depth,
        num_attention_heads=args.heads,
        mini_batch_size=mini_batch,
        ttt_layer_type=layer,
        ttt_base_lr=BASE_RATES[layer],
        share_qk=True,
        use_gate=True,
    )
    model = Stack(args, lambda number: Mixer(LAYERS[layer](config, number)))
    return model, next_byte_step(model)
