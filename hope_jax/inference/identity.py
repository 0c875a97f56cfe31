"""Which model a saved state belongs to: fingerprints of configuration and slow weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import jax.numpy as jnp
import numpy as np

from hope_jax.config import ModelConfig, to_dict
from hope_jax.models import LanguageModel
from hope_jax.nested.paths import flatten


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Short hashes of the two things that make a model what it is.

    Attributes:
      configuration: of `ModelConfig`.
      weights: of the names, shapes, types and bits of all slow weights.
    """

    configuration: str
    weights: str


def fingerprint(model: LanguageModel, params: Any) -> Fingerprint:
    """Fingerprint of a model, wherever its weights are and however they are sharded.

    Goes over all weights once, an array at a time, in host memory: about half a second per
    GB with a processor that has instructions for SHA-256, and the time of the copy to the
    host on an accelerator. Every shard must be within reach of this process.

    >>> from hope_jax.config import ModelConfig
    >>> model, params = LanguageModel(ModelConfig()), {"w": jnp.zeros((2, 3))}
    >>> one, other = fingerprint(model, params), fingerprint(model, {"w": jnp.ones((2, 3))})
    >>> one.configuration == other.configuration, one.weights == other.weights
    (True, False)
    """
    return Fingerprint(
        configuration=_short(hashlib.sha256(_text(model.config).encode())),
        weights=digest(params),
    )


def _text(config: ModelConfig) -> str:
    """The configuration; without what says how a CMS learns within a text, if it does not.

    Without defaults too, so that a new field, off by default, changes no fingerprint.
    """
    data = _set(config)
    if not config.cms.in_context.on:
        data.get("cms", {}).pop("in_context", None)
    return json.dumps(data, indent=2)


def _set(config: Any) -> dict[str, Any]:
    """Fields that are not at their defaults, all the way down."""
    found = {"type": config.type} if hasattr(config, "type") else {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found[field.name] = _set(value)
        elif value != field.default:
            found[field.name] = to_dict(value)
    return found


def digest(tree: Any) -> str:
    """Short hash of the names, shapes, types and bits of all arrays of a tree."""
    sha = hashlib.sha256()
    for name, leaf in flatten(tree).items():
        sha.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        # of a copy: an array keeps what it was converted to, and all weights together
        # would then stay in host memory too
        sha.update(np.asarray(jnp.copy(leaf)).reshape(-1).view(np.uint8))
    return _short(sha)


def _short(sha) -> str:
    return sha.hexdigest()[:16]
