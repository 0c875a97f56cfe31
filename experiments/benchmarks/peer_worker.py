"""One training step of a PyTorch model per line of standard input.

Started by peers.py in an environment that has PyTorch and the packages. For every line
read it takes one training step and answers with one line of JSON: wall seconds, CPU
seconds, tokens, loss. The first answer, before any step, tells the number of parameters and
what is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path

import torch
from peer_models import PEERS
from peer_models.stack import VOCAB

PACKAGES = ("torch", "transformers", "titans-pytorch", "nested-learning")


def versions(ttt: Path | None) -> dict[str, str]:
    """Of the packages that are there; of the file ttt.py, which has none, its hash."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    if ttt:
        digest = hashlib.sha256((ttt / "ttt.py").read_bytes()).hexdigest()
        found["ttt.py"] = f"sha256 {digest[:16]}"
    return found


def main() -> None:
    """Answer every line with a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    for name in ("dim", "depth", "heads", "hidden", "chunk", "batch", "length"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--ttt", type=Path, help="folder with ttt.py")
    args = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # packages may print
    # one thread: several wait for each other by spinning, which counts as CPU time
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as XLA does; strong decay makes such numbers
    torch.manual_seed(0)
    peer = PEERS[args.peer]
    if args.ttt:
        sys.path.insert(0, str(args.ttt))
    model, step = importlib.import_module(f"peer_models.{peer.module}").make(
        args, **peer.options
    )
    params = sum(p.numel() for p in model.parameters())
    first = {"params": params, "versions": versions(args.ttt)}
    print(json.dumps(first), file=answers, flush=True)
    ids_BT = torch.randint(VOCAB, (args.batch, args.length + 1))
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step(ids_BT)
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        answer = {**spent, "tokens": args.batch * args.length, "loss": loss}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
