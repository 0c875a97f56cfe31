"""Public PyTorch models that peers.py measures; this file needs no PyTorch.

Each module beside it has `make(args, **options)`, which returns a model and a function that
takes one training step on ids `(batch, length + 1)` and returns the loss.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Peer:
    """What is measured under one name."""

    module: str  # of this package
    ours: tuple[str, ...]  # models of `hope bench` of the same kind
    options: dict[str, Any] = dataclasses.field(default_factory=dict)  # of `make`
    batch: int | None = None  # the only one it is used with
    checkout: bool = False  # of a repository that is no package


def _ttt(layer: str, mini_batch: int) -> Peer:
    options = {"layer": layer, "mini_batch": mini_batch}
    return Peer("ttt_layers", (f"ttt_{layer}",), options, checkout=True)


PEERS = {
    "gated-delta-net": Peer("gated_delta_net", ("gated_delta_net",)),
    "nested-learning": Peer("nested_learning", ("hope",), batch=1),
    "titans-pytorch": Peer("titans", ("titans", "hope"), {"refresh_chunks": None}),
    "titans-pytorch-refresh": Peer("titans", ("titans", "hope"), {"refresh_chunks": 2}),
    "torch-transformer": Peer("transformer", ("transformer",)),
    "ttt-linear": _ttt("linear", 16),
    "ttt-linear-64": _ttt("linear", 64),
    "ttt-mlp": _ttt("mlp", 16),
    "ttt-mlp-64": _ttt("mlp", 64),
}
