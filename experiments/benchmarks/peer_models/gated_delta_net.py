"""Gated DeltaNet as Hugging Face transformers has it in Qwen3-Next.

Of the public layers it is the one that has a chunked form without kernels for a GPU: chunks
of 64 tokens, and triangular solves in them.
"""

from __future__ import annotations

import argparse

from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from peer_models.stack import Stack, next_byte_step


def make(args: argparse.Namespace):
    """Model and step, with the heads of the configuration `gated_delta_net` of hope_jax."""
    key = 3 * args.dim // (4 * args.heads)
    config = Qwen3NextConfig(
        hidden_size=args.dim,
        num_hidden_layers=args.depth,
        layer_types=["linear_attention"] * args.depth,
        linear_num_key_heads=args.heads,
        linear_num_value_heads=args.heads,
        linear_key_head_dim=key,
        linear_value_head_dim=2 * key,
        linear_conv_kernel_dim=4,
    )
    model = Stack(args, lambda number: Qwen3NextGatedDeltaNet(config, number))
    return model, next_byte_step(model)
