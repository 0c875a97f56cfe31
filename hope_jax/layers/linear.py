"""Weights with logical axes, and products in the compute type."""

from __future__ import annotations

import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from hope_jax.config import ModelConfig
from hope_jax.parallel.rules import parts

GATHERED = ("embed", "memory")  # axes along which a weight is whole where it is used


def parameter(
    module: nn.Module,
    name: str,
    init: nn.initializers.Initializer,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    dtype: jnp.dtype = jnp.float32,
) -> jax.Array:
    """Declare a float32 parameter of `module`, and give it as it is used.

    What a mesh splits over `fsdp` is gathered here and nowhere else: once where the layer
    begins, in the type of the products, so that little crosses chips, and not inside of
    whatever the layer does with it. Parts over `tensor` stay apart.

    Args:
      module: the module that owns it, inside its compact method.
      name: parameter name, e.g. `w_query`.
      init: initial values.
      shape: full shape.
      axes: logical axis names, one per dimension.
      dtype: of the result.
    """
    value = module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32)
    used = tuple(None if axis in GATHERED else axis for axis in axes)
    # The first of the two is for the gradient: in parts again at once, it is reduced by parts.
    return constrain(constrain(value.astype(dtype), axes), used)


def constrain(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
    """`x` split over the mesh by its logical axes, those that the mesh divides; any rank."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    places = nn.logical_to_mesh_axes(axes)
    if places is None:
        return x
    kept = [
        p if size % parts(mesh, p) == 0 else None
        for p, size in zip(places, x.shape, strict=True)
    ]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*kept))


def cut_normal(std: float) -> nn.initializers.Initializer:
    """Normal with deviation `std`, cut at two."""
    # cut there, a normal has 0.8796 of the deviation of the whole one
    return nn.initializers.truncated_normal(std / 0.8796)


def weight(
    module: nn.Module,
    name: str,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    std: float,
    dtype: jnp.dtype | None = None,
) -> jax.Array:
    """A `parameter` that is normal with deviation `std`, cut at two.

    Args:
      module, name, shape, axes: as in `parameter`.
      std: standard deviation; `fan_in ** -0.5` keeps the scale of the input.
      dtype: of the result; None: the compute type of `module.config`.
    """
    dtype = compute_dtype(module.config) if dtype is None else dtype
    return parameter(module, name, cut_normal(std), shape, axes, dtype)


def constant(
    module: nn.Module,
    name: str,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    value: float,
) -> jax.Array:
    """A float32 `parameter` that starts at `value` everywhere."""
    return parameter(module, name, nn.initializers.constant(value), shape, axes)


def conv_kernel(
    module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> jax.Array:
    """The float32 taps of a causal convolution, the current input's first.

    They start with the current input passing, and earlier ones coming in at random.
    """

    def init(key, shape, dtype):
        taps = 0.3 * jax.random.normal(key, shape, dtype)
        return taps.at[0].add(1.0)

    return parameter(module, name, init, shape, axes)


def einsum(
    equation: str, x: jax.Array, w: jax.Array, *, result: jnp.dtype | None = None
) -> jax.Array:
    """Product of activations and a weight in the type of the activations.

    The weight is cast to the type of `x`. Matrix units accumulate bfloat16 products in
    float32 by themselves; the result is rounded to the type of `x`, so that what crosses
    chips is small, unless `result` asks for another type.

    Args:
      equation: axes of `x` that stay, then those that are summed, which come first in
        `w`; the result may have its axes in any order.
      x: activations.
      w: weight.
      result: type of the result; None: that of `x`.
    """
    of_x, of_w, of_result = re.split(",|->", equation)
    summed = sum(axis in of_w for axis in of_x)
    if not of_w.startswith(of_x[-summed:]):
        return jnp.einsum(
            equation, x, w.astype(x.dtype), preferred_element_type=result or x.dtype
        )
    # As a product of two matrices: the gradient of the weight is one as well. As a tensor
    # product it would be summed over two axes, for which a CPU first transposes copies.
    kept, new = x.shape[:-summed], w.shape[summed:]
    size = math.prod(w.shape[:summed])
    rows = x.reshape(math.prod(kept), size)
    columns = w.astype(x.dtype).reshape(size, math.prod(new))
    y = jnp.matmul(rows, columns, preferred_element_type=result or x.dtype)
    y = y.reshape(*kept, *new)
    order = of_x[:-summed] + of_w[summed:]
    return jnp.transpose(y, [order.index(axis) for axis in of_result])


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """Type of activations and matrix products."""
    return jnp.dtype(config.dtype)


def output_std(config: ModelConfig, fan_in: int) -> float:
    """Deviation of weights that write into the residual stream.

    Divided by the root of the number of additions to the stream, `2 depth` for a mixer
    and one CMS level per block, so that its scale does not grow with depth.
    """
    levels = 1 if config.cms.variant == "independent" else len(config.cms.periods)
    branches = getattr(config.mixer, "branches", 1)
    return (fan_in * config.depth * (branches + levels)) ** -0.5


def logit(p: float) -> float:
    """The bias at which a sigmoid gives `p`, which lies between 0 and 1."""
    return math.log(p / (1 - p))


def log_uniform_steps(low: float, high: float) -> nn.initializers.Initializer:
    """Biases at which a softplus gives steps between two limits, evenly in their logarithm."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        log_step = jax.random.uniform(key, shape, dtype, math.log(low), math.log(high))
        return jnp.log(jnp.expm1(jnp.exp(log_step)))

    return init
