"""The Llama form: settings and weights by role, to a configuration and parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from hope_jax.config import AttentionConfig, CMSConfig, ModelConfig, RopeScalingConfig

# What `Read` is asked for: roles of the whole model, and of every block.
WHOLE = ("embed", "final_norm")
BLOCK = (
    "mixer_norm",
    "query",
    "key",
    "value",
    "out",
    "cms_norm",
    "gate",
    "in",
    "down",
)
BIASES = ("query_bias", "key_bias", "value_bias")

# `(role, block)` to float32; matrices are [outputs, inputs], queries and keys turn in halves
Read = Callable[[str, int | None], np.ndarray]


@dataclasses.dataclass(frozen=True)
class LlamaForm:
    """Settings of a decoder of the Llama form, which Qwen-2 and SmolLM2 share.

    RMSNorm before each part, attention with rotary positions whose heads may share keys and
    values, a SwiGLU MLP, no biases but those of queries, keys and values.

    Attributes:
      name: what the file calls the model.
      vocab_size: rows of the embedding.
      dim, depth, heads, kv_heads, hidden: sizes.
      context: tokens of the contexts of pre-training.
      norm_eps, rope_theta, rope_scaling: as in `ModelConfig` and `AttentionConfig`.
      bias: of queries, keys and values.
      tied_head: whether the embedding predicts.
    """

    name: str
    vocab_size: int
    dim: int
    depth: int
    heads: int
    kv_heads: int
    hidden: int
    context: int
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScalingConfig = RopeScalingConfig()
    bias: bool = False
    tied_head: bool = True

    def model_config(self) -> ModelConfig:
        """The configuration of this model; its CMS has one period and learns from no text."""
        return ModelConfig(
            vocab_size=self.vocab_size,
            dim=self.dim,
            depth=self.depth,
            mixer=AttentionConfig(
                heads=self.heads,
                kv_heads=None if self.kv_heads == self.heads else self.kv_heads,
                bias=self.bias,
                rope_theta=self.rope_theta,
                rope_scaling=self.rope_scaling,
            ),
            cms=CMSConfig(hidden=self.hidden),
            tied_head=self.tied_head,
            norm_eps=self.norm_eps,
        )

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the weights of the whole model."""
        return WHOLE if self.tied_head else (*WHOLE, "head")

    @property
    def block_roles(self) -> tuple[str, ...]:
        """Roles of the weights of every block."""
        return (*BLOCK, *BIASES) if self.bias else BLOCK

    def shape(self, role: str) -> tuple[int, ...]:
        """Shape of a weight as `Read` gives it."""
        size = self.dim // self.heads
        rows = {"query": self.heads * size}
        rows |= dict.fromkeys(("key", "value"), self.kv_heads * size)
        if role in BIASES:
            return (rows[role.removesuffix("_bias")],)
        if role.endswith("norm"):
            return (self.dim,)
        if role in ("embed", "head"):
            return (self.vocab_size, self.dim)
        if role in ("gate", "in"):
            return (self.hidden, self.dim)
        if role == "down":
            return (self.dim, self.hidden)
        return (self.dim if role == "out" else rows[role], self.dim)


@dataclasses.dataclass(frozen=True)
class Names:
    """What a kind of file calls the weights.

    Attributes:
      whole: by role, of the whole model.
      block: by role, of a block; the name goes on after `prefix`.
      prefix: with `{}` for the number of the block.
    """

    whole: Mapping[str, str]
    block: Mapping[str, str]
    prefix: str

    def of(self, role: str, block: int | None) -> str:
        """The name of a weight."""
        if block is None:
            return self.whole[role]
        return self.prefix.format(block) + self.block[role]

    def check(self, form: LlamaForm, found: Iterable[str], source: str) -> None:
        """Every name must be that of a weight of the form.

        Raises:
          ValueError: names one that is not.
        """
        known = {self.of(role, None) for role in form.roles}
        for block in range(form.depth):
            known |= {self.of(role, block) for role in form.block_roles}
        other = sorted(set(found) - known)
        if other:
            raise ValueError(
                f"{source} holds {len(other)} tensors that the Llama form has no place for, "
                f"such as {other[0]}"
            )


def params_of(form: LlamaForm, read: Read, source: str) -> Any:
    """Parameters of `LanguageModel(form.model_config())`, float32 in host memory.

    Args:
      form: settings.
      read: gives the weights.
      source: where they are from, for messages.

    Raises:
      ValueError: a weight of another shape than the settings say.
    """

    def checked(role: str, block: int | None = None) -> np.ndarray:
        found, wanted = read(role, block), form.shape(role)
        if found.shape != wanted:
            where = "" if block is None else f" of block {block}"
            raise ValueError(
                f"{source}: weight {role!r}{where} is {found.shape}, and by its settings it "
                f"would be {wanted}"
            )
        return np.asarray(found, np.float32)

    heads = {"query": form.heads, "key": form.kv_heads, "value": form.kv_heads}
    size = form.dim // form.heads

    def block_of(number: int) -> Any:
        get = lambda role: checked(role, number)
        mixer = {
            f"w_{role}": get(role).T.reshape(form.dim, count, size)
            for role, count in heads.items()
        }
        mixer["w_out"] = get("out").T.reshape(form.heads, size, form.dim)
        if form.bias:
            for role, count in heads.items():
                mixer[f"{role}_bias"] = get(f"{role}_bias").reshape(count, size)
        level = {"w_gate": get("gate").T, "w_in": get("in").T, "w_out": get("down").T}
        return {
            "mixer_norm": {"scale": get("mixer_norm")},
            "mixer": mixer,
            "cms": {"period_1": level | {"norm_scale": get("cms_norm")}},
        }

    blocks = _filled(block_of, form.depth)
    embed = {"table": checked("embed")}
    if not form.tied_head:
        embed["head"] = checked("head")
    return {
        "embed": embed,
        "blocks": blocks,
        "final_norm": {"scale": checked("final_norm")},
    }


def _filled(block_of: Callable[[int], Any], depth: int) -> Any:
    """Blocks stacked, with no more than one of them in memory a second time."""
    stacked = None
    for number in range(depth):
        block = block_of(number)
        if stacked is None:
            stacked = _map(lambda w: np.empty((depth, *w.shape), np.float32), block)
        _map(lambda whole, w, n=number: whole.__setitem__(n, w), stacked, block)
    return stacked


def _map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`jax.tree.map` for nested dictionaries, which leaves NumPy arrays in host memory."""
    if isinstance(tree, dict):
        return {k: _map(function, v, *(o[k] for o in others)) for k, v in tree.items()}
    return function(tree, *others)
