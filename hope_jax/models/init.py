"""Parameters of a language model: initial values, shapes, logical axes and counts."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hope_jax.config import ModelConfig
from hope_jax.config.check import require
from hope_jax.models.language_model import LanguageModel
from hope_jax.nested.paths import flatten


def init_params(config: ModelConfig, key: jax.Array) -> Any:
    """Initial parameters, plain float32 arrays without axis names."""
    return _plain_init(config, key)


def abstract_params(config: ModelConfig) -> Any:
    """Shapes of the parameters; nothing is allocated."""
    plain = lambda leaf: jax.ShapeDtypeStruct(leaf.value.shape, leaf.value.dtype)
    return jax.tree.map(plain, _boxed_shapes(config), is_leaf=_is_boxed)


def misfit(config: ModelConfig, params: Any) -> tuple[str, str, str] | None:
    """The first weight that is not as the model needs it; None: all are.

    Returns:
      its path, the shape that it has, and the one that the model needs; "missing" for either.

    >>> params = {"final_norm": {"scale": jnp.zeros(3)}}
    >>> misfit(ModelConfig(dim=16), params)[:2]
    ('blocks/cms/period_1/norm_scale', 'missing')
    """
    said = lambda leaf: "missing" if leaf is None else " x ".join(map(str, leaf.shape)) or "()"
    found, wanted = flatten(params), flatten(abstract_params(config))
    for path in [*wanted, *found]:
        has, needs = said(found.get(path)), said(wanted.get(path))
        if has != needs:
            return path, has, needs
    return None


def abstract_state(config: ModelConfig, batch: int = 1, length: int = 0) -> Any:
    """Shapes of the fast state after reading `length` tokens."""
    tokens_BT = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    variables = {"params": abstract_params(config)}
    return jax.eval_shape(LanguageModel(config).apply, variables, tokens_BT).state


@dataclasses.dataclass(frozen=True)
class ParamShape:
    """Shape of one parameter and the logical name of each axis."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def param_shapes(config: ModelConfig) -> dict[str, ParamShape]:
    """Shape and axes of every parameter by its path, e.g. `blocks/cms/period_1/w_in`."""
    leaves = jax.tree_util.tree_leaves_with_path(_boxed_shapes(config), is_leaf=_is_boxed)
    return {
        "/".join(key.key for key in path): ParamShape(leaf.value.shape, leaf.names)
        for path, leaf in leaves
    }


@dataclasses.dataclass(frozen=True)
class ParamCounts:
    """Numbers of parameters."""

    total: int
    by_component: dict[str, int]  # embed, mixer, cms, reconstruct, norm
    by_period: dict[int, int]  # CMS levels; everything else has period 1


def count_params(config: ModelConfig) -> ParamCounts:
    """Count parameters without allocating them."""
    by_component, by_period = Counter(), Counter()
    for path, param in param_shapes(config).items():
        by_component[_component(path)] += param.size
        by_period[_period(path)] += param.size
    return ParamCounts(
        by_component.total(), dict(by_component), dict(sorted(by_period.items()))
    )


def _init(config: ModelConfig, key: jax.Array) -> Any:
    return LanguageModel(config).init(key, jnp.zeros((1, 1), jnp.int32))["params"]


@functools.partial(jax.jit, static_argnums=0)
def _plain_init(config: ModelConfig, key: jax.Array) -> Any:
    return nn.unbox(_init(config, key))


@functools.lru_cache(maxsize=64)  # one command asks for them again and again
def _boxed_shapes(config: ModelConfig) -> Any:
    shapes = jax.eval_shape(lambda: _init(config, jax.random.key(0)))
    leaves = jax.tree_util.tree_leaves_with_path(shapes, is_leaf=_is_boxed)
    for path, leaf in leaves:
        require(
            _is_boxed(leaf),
            f"parameter {'/'.join(key.key for key in path)} has no names for its axes, so that "
            "nobody knows how to split it over a mesh; declare it with "
            "hope_jax.layers.linear.parameter or weight",
        )
    return shapes


def _is_boxed(leaf: Any) -> bool:
    return isinstance(leaf, nn.Partitioned)


def _component(path: str) -> str:
    parts = path.split("/")
    for name in ("embed", "mixer", "cms", "reconstruct"):
        if name in parts:
            return name
    return "norm"


def _period(path: str) -> int:
    for part in path.split("/"):
        if part.startswith("period_"):
            return int(part.removeprefix("period_"))
    return 1
