"""One training step of a PyTorch package per line of standard input.

Started by peers.py in an environment that has PyTorch and the packages. For every line
read it takes one training step and answers with one line of JSON: wall seconds, CPU
seconds, tokens, loss. The first answer, before any step, tells the number of parameters.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

VOCAB = 256


class TitansStack(nn.Module):
    """titans-pytorch: blocks of a NeuralMemory and a feed-forward layer, both residual."""

    def __init__(self, args: argparse.Namespace, refresh: int | None):
        from titans_pytorch import NeuralMemory

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


def titans(args: argparse.Namespace, refresh: int | None):
    """Model and step of the single-memory Titans LMM.

    `refresh`: tokens after which gradients are taken at renewed weights; None takes all of
    them at the initial ones.
    """
    model = TitansStack(args, refresh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(ids_BT: torch.Tensor) -> float:
        logits_BTW = model(ids_BT[:, :-1])
        loss = F.cross_entropy(logits_BTW.flatten(0, 1), ids_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return model, step


def nested_learning(args: argparse.Namespace):
    """Model and step of the self-modifying HOPE of nested-learning.

    Its training loop with online updates, by its own functions: for every chunk a forward
    and a backward pass, then a pass that writes.
    """
    from nested_learning.levels import LevelSpec
    from nested_learning.model import HOPEModel, ModelConfig
    from nested_learning.training import compute_teach_signal

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
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

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


PEERS: dict[str, Callable] = {
    "titans": lambda args: titans(args, None),
    "titans-refresh": lambda args: titans(args, 2 * args.chunk),
    "nested-learning": nested_learning,
}


def main() -> None:
    """Answer every line with a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    for name in ("dim", "depth", "heads", "chunk", "batch", "length"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # packages may print
    # one thread: several wait for each other by spinning, which counts as CPU time
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, step = PEERS[args.peer](args)
    params = sum(p.numel() for p in model.parameters())
    print(json.dumps({"params": params, "torch": torch.__version__}), file=answers, flush=True)
    ids_BT = torch.randint(VOCAB, (args.batch, args.length + 1))
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step(ids_BT)
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        answer = {**spent, "tokens": args.batch * args.length, "loss": loss}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
