"""Weights, settings and tokenizer of a folder in the Hugging Face layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hope_jax.config import RopeScalingConfig
from hope_jax.data import Tokenizer, load_tokenizer
from hope_jax.data.tokenizers.hugging_face import HuggingFaceTokenizer, with_ends
from hope_jax.pretrained.llama import LlamaForm, Names

_NAMES = Names(
    whole={
        "embed": "model.embed_tokens.weight",
        "head": "lm_head.weight",
        "final_norm": "model.norm.weight",
    },
    block={
        "mixer_norm": "input_layernorm.weight",
        "query": "self_attn.q_proj.weight",
        "key": "self_attn.k_proj.weight",
        "value": "self_attn.v_proj.weight",
        "out": "self_attn.o_proj.weight",
        "query_bias": "self_attn.q_proj.bias",
        "key_bias": "self_attn.k_proj.bias",
        "value_bias": "self_attn.v_proj.bias",
        "cms_norm": "post_attention_layernorm.weight",
        "gate": "mlp.gate_proj.weight",
        "in": "mlp.up_proj.weight",
        "down": "mlp.down_proj.weight",
    },
    prefix="model.layers.{}.",
)
_KINDS = ("llama", "qwen2")
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")


class SafetensorsFolder:
    """A folder with config.json, safetensors files, and tokenizer.json or tokenizer.model.

    Attributes:
      path: the folder.
      form: settings.

    Raises:
      ValueError: something is missing or damaged, or the model has another form.
      ImportError: the package safetensors is not installed.
    """

    def __init__(self, path: Path):
        try:
            import safetensors  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "reading safetensors files needs the package safetensors: pip install "
                "'hope_jax[pretrained]'"
            ) from error
        self.path = path
        self._settings = _json(path / "config.json")
        self._files = self._where()
        self.form = self._form()
        # a tied head is written out by some, and so are angles that follow from the settings
        spare = {_NAMES.of("head", None)} if self.form.tied_head else set()
        spare |= {name for name in self._files if name.endswith("rotary_emb.inv_freq")}
        _NAMES.check(self.form, self._files.keys() - spare, str(path))

    def read(self, role: str, block: int | None) -> np.ndarray:
        """A weight; see `hope_jax.pretrained.llama.Read`."""
        from safetensors import safe_open

        name = _NAMES.of(role, block)
        if name not in self._files:
            raise ValueError(f"{self.path} lacks {name}")
        # NumPy has no bfloat16 of its own, which most of these files are of
        with safe_open(self._files[name], framework="flax") as tensors:
            return np.asarray(tensors.get_tensor(name)).astype(np.float32)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that lies in the folder."""
        for name in _TOKENIZERS:
            if (self.path / name).is_file():
                found = load_tokenizer(self.path / name)
                return self._ended(found) if isinstance(found, HuggingFaceTokenizer) else found
        raise ValueError(f"{self.path} has no tokenizer; add one of {', '.join(_TOKENIZERS)}")

    def _ended(self, tokenizer: HuggingFaceTokenizer) -> HuggingFaceTokenizer:
        """The tokenizer with the end of texts that the folder names beside it."""
        beside = self.path / "tokenizer_config.json"
        named = _json(beside).get("eos_token") if beside.is_file() else None
        named = named.get("content") if isinstance(named, dict) else named
        end_id = self._settings.get("eos_token_id")
        if named is not None:
            end_id = tokenizer.token_id(named)
        if not isinstance(end_id, int) or end_id == tokenizer.end_id:  # of several: none
            return tokenizer
        content = (self.path / "tokenizer.json").read_bytes()
        return HuggingFaceTokenizer(with_ends(content, tokenizer.begin_id, end_id))

    def _where(self) -> dict[str, Path]:
        """The file of every tensor."""
        from safetensors import SafetensorError, safe_open

        if (self.path / _INDEX).is_file():
            names = set(_json(self.path / _INDEX)["weight_map"].values())
            files = [self.path / name for name in sorted(names)]
        else:
            files = sorted(self.path.glob("*.safetensors"))
        missing = [file.name for file in files if not file.is_file()]
        if missing or not files:
            raise ValueError(f"{self.path} lacks {missing[0] if missing else '*.safetensors'}")
        found = {}
        for file in files:
            try:
                with safe_open(file, framework="numpy") as tensors:
                    found |= dict.fromkeys(tensors.keys(), file)
            except SafetensorError as error:
                raise ValueError(f"{file} is damaged: {error}") from None
        return found

    def _form(self) -> LlamaForm:
        path, settings = self.path, self._settings
        kind = settings.get("model_type")
        if kind not in _KINDS:
            raise ValueError(
                f"{path} holds a model of kind {kind!r}; what can be read are "
                f"{', '.join(_KINDS)}"
            )
        wanted = {
            "hidden_act": "silu",
            "mlp_bias": False,
            "attention_bias": False,
            "use_sliding_window": False,
        }
        for name, value in wanted.items():
            if settings.get(name, value) != value:
                raise ValueError(
                    f"{path}: {name} is {settings[name]!r}, which is not known here"
                )
        number = lambda name: _needed(path, settings, name)
        dim, heads = number("hidden_size"), number("num_attention_heads")
        size = settings.get("head_dim") or dim // heads
        if size * heads != dim:
            raise ValueError(
                f"{path}: {heads} heads of {size} do not share the width of {dim}, which "
                "cannot be read"
            )
        # newer files have both in one place
        rope = settings.get("rope_parameters") or {}
        return LlamaForm(
            name=settings.get("_name_or_path") or path.absolute().name,
            vocab_size=number("vocab_size"),
            dim=dim,
            depth=number("num_hidden_layers"),
            heads=heads,
            kv_heads=settings.get("num_key_value_heads") or heads,
            hidden=number("intermediate_size"),
            context=number("max_position_embeddings"),
            norm_eps=number("rms_norm_eps"),
            rope_theta=float(rope.get("rope_theta", settings.get("rope_theta", 10_000.0))),
            rope_scaling=_scaling(path, rope or settings.get("rope_scaling") or {}),
            bias=_NAMES.of("query_bias", 0) in self._files,
            tied_head=bool(settings.get("tie_word_embeddings", False)),
        )


def _scaling(path: Path, settings: dict[str, Any]) -> RopeScalingConfig:
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind == "default":
        return RopeScalingConfig()
    if kind != "llama3":
        raise ValueError(f"{path} scales rotary positions by {kind!r}, which is not known here")
    number = lambda name: _needed(path, settings, name)
    return RopeScalingConfig(
        factor=number("factor"),
        low=number("low_freq_factor"),
        high=number("high_freq_factor"),
        context=number("original_max_position_embeddings"),
    )


def _needed(path: Path, settings: dict[str, Any], name: str) -> Any:
    if name not in settings:
        raise ValueError(f"{path / 'config.json'} lacks {name}")
    return settings[name]


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(
            f"{path} is not there; give the folder of a model in the layout of "
            "Hugging Face, or a .gguf file"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
