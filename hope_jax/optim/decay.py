"""Which parameters decay."""

from __future__ import annotations

import re
from typing import Any

import jax

from hope_jax.nested.paths import flatten

# By the names that layers give. The rank does not tell: vectors have an axis of heads, and
# all parameters below `blocks` one of layers.
_DECAYS = re.compile(
    r"w_\w+"  # projections and recurrent matrices
    r"|conv|conv_(?!bias$)\w+"  # taps of convolutions
    r"|table|head"  # embedding and output
    r"|(left|view)_\w+"  # projections of fast weights
    r"|(memory|generator)_(in|out|value|rate|beta|[ykq]|\d+)"  # where memories start
)


def decays(params: Any) -> Any:
    """Which parameters of the language model decay, by their names; True for those that do.

    These do, wherever they stand:

    - matrices of projections, `w_*`, with those of gates, of rates and of recurrence;
    - taps of short convolutions, `conv` and `conv_*`, which are ordinary weights in published
      code;
    - the embedding `table` and the `head`;
    - `left_*` and `view_*`, which project what fast weights learn;
    - the initial states of memories, `memory_*` and `generator_*`, which are matrices like
      those of layers.

    All else does not: biases (`b_*`, `*_bias`), norms (`scale`, `*_scale`, `*_norm`), vectors
    per head or channel (RWKV-7's `decay`, `rate`, `bonus` and `shift_*`, Mamba's `log_rate`
    and `skip`, `mix`), and `persistent` tokens. A name that is not above does not decay.

    >>> leaf = jax.ShapeDtypeStruct((4, 8), "float32")
    >>> decays({"embed": {"table": leaf}, "blocks": {"mixer": {"b_gates": leaf, "w_q": leaf}}})
    {'blocks': {'mixer': {'b_gates': False, 'w_q': True}}, 'embed': {'table': True}}
    """
    names = [path.rsplit("/", 1)[-1] for path in flatten(params)]
    return jax.tree.unflatten(
        jax.tree.structure(params), [_DECAYS.fullmatch(name) is not None for name in names]
    )
