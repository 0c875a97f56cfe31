"""nested-learning: self-modifying HOPE, trained online."""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from nested_learning.levels import LevelSpec
from nested_learning.model import HOPEModel, ModelConfig
from nested_learning.training import compute_teach_signal
from torch import nn

from peer_models.stack import VOCAB, adamw


def make(args: argparse.Namespace):
    """Model and step.

    The package's training loop with online updates, by its own functions: for every chunk a
    forward and a backward pass, then a pass that writes.
    """
    model = HOPEModel(
        ModelConfig(
            vocab_size=VOCAB,
            dim=args.dim,
            num_layers=args.depth,
            heads=args.heads,
            titan_level=LevelSpec("titan", args.chunk),
            cms_levels=[LevelSpec(f"cms_{n}", n * args.chunk) for n in (1, 4, 16)],
            self_mod_chunk_size=args.chunk,
            self_mod_chunk_size_memory=args.chunk,
            block_variant="hope_selfmod",
        )
    )
    optimizer = adamw(model)

    def step(ids_BT: torch.Tensor) -> float:
        state = model.init_fast_state()
        optimizer.zero_grad()
        total, length = 0.0, ids_BT.shape[1] - 1
        for start in range(0, length, args.chunk):
            stop = min(start + args.chunk, length)
            part_BC, next_B = ids_BT[:, start:stop], ids_BT[:, stop]
            targets_BC = ids_BT[:, start + 1 : stop + 1]
            logits_BCW = model(part_BC, fast_state=state)
            loss = F.cross_entropy(logits_BCW.flatten(0, 1), targets_BC.flatten())
            signal = compute_teach_signal(model, logits_BCW, part_BC, next_tokens=next_B)
            loss.backward()
            with torch.no_grad():
                model(
                    part_BC,
                    teach_signal=signal,
                    fast_state=state,
                    finalize_updates=stop == length,
                )
            total += loss.item() * (stop - start)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return total / length

    return model, step
