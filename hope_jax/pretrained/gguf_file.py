"""Weights, settings and tokenizer of a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hope_jax.config import RopeScalingConfig
from hope_jax.data import Tokenizer
from hope_jax.ops.rope import rates
from hope_jax.pretrained.gguf_tokenizer import tokenizer_of
from hope_jax.pretrained.llama import LlamaForm, Names

_NAMES = Names(
    whole={
        "embed": "token_embd.weight",
        "head": "output.weight",
        "final_norm": "output_norm.weight",
    },
    block={
        "mixer_norm": "attn_norm.weight",
        "query": "attn_q.weight",
        "key": "attn_k.weight",
        "value": "attn_v.weight",
        "out": "attn_output.weight",
        "query_bias": "attn_q.bias",
        "key_bias": "attn_k.bias",
        "value_bias": "attn_v.bias",
        "cms_norm": "ffn_norm.weight",
        "gate": "ffn_gate.weight",
        "in": "ffn_up.weight",
        "down": "ffn_down.weight",
    },
    prefix="blk.{}.",
)
_FREQUENCIES = "rope_freqs.weight"  # by how much each pair turns slower
# whether rotary pairs are neighbours in the rows of queries and keys; here they are halves
_NEIGHBOURS = {"llama": True, "qwen2": False}


class GGUFFile:
    """A model in the GGUF format, quantised or not; quantised weights are read as float32.

    Attributes:
      path: the file.
      form: settings.

    Raises:
      ValueError: the file is damaged, or its model has another form.
      ImportError: the package gguf is not installed.
    """

    def __init__(self, path: Path):
        try:
            from gguf import GGUFReader
        except ImportError as error:
            raise ImportError(
                "reading GGUF files needs the package gguf: pip install 'hope_jax[pretrained]'"
            ) from error
        self.path = path
        try:
            self._file = GGUFReader(path)
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"{path} is no GGUF file, or is damaged: {error}") from None
        self._tensors = {tensor.name: tensor for tensor in self._file.tensors}
        self._kind = self._field("general.architecture")
        if self._kind not in _NEIGHBOURS:
            raise ValueError(
                f"{path} holds a model of kind {self._kind!r}; what can be read are "
                f"{', '.join(_NEIGHBOURS)}"
            )
        parts = int(self._field("split.count", 1))
        if parts > 1:
            raise ValueError(
                f"{path} is one of {parts} parts of a model; join them with llama.cpp's "
                "`llama-gguf-split --merge FIRST-PART WHOLE.gguf`"
            )
        if _NAMES.of("embed", None) not in self._tensors:
            raise ValueError(f"{path} lacks {_NAMES.of('embed', None)}")
        self.form = self._settings()
        _NAMES.check(self.form, self._tensors.keys() - {_FREQUENCIES}, str(path))

    def read(self, role: str, block: int | None) -> np.ndarray:
        """A weight; see `hope_jax.pretrained.llama.Read`."""
        from gguf.quants import dequantize

        name = _NAMES.of(role, block)
        if name not in self._tensors:
            raise ValueError(f"{self.path} lacks {name}")
        tensor = self._tensors[name]
        weight = dequantize(tensor.data, tensor.tensor_type)
        if _NEIGHBOURS[self._kind] and role.startswith(("query", "key")):
            heads = self.form.heads if role.startswith("query") else self.form.kv_heads
            weight = _halves(weight, heads)
        return weight

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the file describes."""
        return tokenizer_of(self._field, str(self.path))

    def _field(self, name: str, default: Any = ...) -> Any:
        field = self._file.get_field(name)
        if field is not None:
            return field.contents()
        if default is ...:
            raise ValueError(f"{self.path} lacks the setting {name}")
        return default

    def _settings(self) -> LlamaForm:
        kind = self._kind
        number = lambda name, *default: self._field(f"{kind}.{name}", *default)
        dim, heads = number("embedding_length"), number("attention.head_count")
        theta = float(number("rope.freq_base", 10_000.0))
        size = number("attention.key_length", dim // heads)
        experts = number("expert_count", 0)
        turned = number("rope.dimension_count", size)
        if experts or dim % heads or size != dim // heads or turned != size:
            raise ValueError(
                f"{self.path}: width {dim}, {heads} heads of {size} of which {turned} turn, "
                f"{experts} experts; heads that share the width, turn whole, and no experts "
                "can be read"
            )
        return LlamaForm(
            name=self._field("general.name", self.path.stem),
            vocab_size=int(self._tensors["token_embd.weight"].shape[-1]),
            dim=dim,
            depth=number("block_count"),
            heads=heads,
            kv_heads=number("attention.head_count_kv", heads),
            hidden=number("feed_forward_length"),
            context=number("context_length"),
            norm_eps=float(np.float32(number("attention.layer_norm_rms_epsilon"))),
            rope_theta=theta,
            rope_scaling=self._scaling(size, theta),
            bias=_NAMES.of("query_bias", 0) in self._tensors,
            tied_head=_NAMES.of("head", None) not in self._tensors,
        )

    def _scaling(self, size: int, theta: float) -> RopeScalingConfig:
        """Slower rotations: the file has their factors, and they are checked against these."""
        kind = self._field(f"{self._kind}.rope.scaling.type", "none")
        if kind not in ("none", "linear") or (
            kind == "linear" and self._field(f"{self._kind}.rope.scaling.factor", 1.0) != 1.0
        ):
            raise ValueError(
                f"{self.path} scales rotary positions by {kind!r}, which is not known here"
            )
        if _FREQUENCIES not in self._tensors:
            return RopeScalingConfig()
        slower_K = np.asarray(self._tensors[_FREQUENCIES].data, np.float32).reshape(-1)
        scaling = RopeScalingConfig(factor=float(slower_K.max()))
        half = size // 2
        known_K = np.asarray(rates(half, theta) / rates(half, theta, scaling))
        if slower_K.shape != known_K.shape or not np.allclose(slower_K, known_K, rtol=1e-3):
            raise ValueError(
                f"{self.path} slows rotary positions down by {_FREQUENCIES} in another way "
                "than Llama 3.1, which is not known here"
            )
        return scaling


def _halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows whose rotary pairs are neighbours, as rows in which they are half a head apart.

    >>> _halves(np.arange(8), heads=2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    pairs = weight.reshape(heads, -1, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)
