"""Parameters as matrices: which ones are, and which axes are rows and columns.

Rules that multiply gradients as matrices take `dims`, which says for every parameter what
its matrix is: `optax.contrib.MuonDimensionNumbers(reduction_axis, output_axis)`, the axes
that a layer sums over and those that it leaves. All other axes are batch axes: a stack of
layers or heads is as many matrices. `dims` is a tree of these, or a function from parameters
to such a tree, or None: every parameter is a matrix `[K, Z]`, applied as `x @ W`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from hope_jax.nested.paths import flatten, path_name

Dims = Any  # tree of MuonDimensionNumbers, function from parameters to it, or None


def two_dimensional(params: Any) -> Any:
    """`dims` for the practical forms: 2-D parameters are matrices, the rest are not (None).

    >>> two_dimensional({"w": jnp.ones((3, 4)), "b": jnp.ones(4)})
    {'b': None, 'w': MuonDimensionNumbers(reduction_axis=0, output_axis=1)}
    """
    return jax.tree.map(lambda x: MuonDimensionNumbers() if x.ndim == 2 else None, params)


def by_path(dims: Dims, tree: Any) -> dict[str, MuonDimensionNumbers | None]:
    """`dims` of every leaf of `tree` by its path; None where it is not a matrix."""
    leaves = flatten(tree)
    if dims is None:
        return {p: MuonDimensionNumbers() if x.ndim == 2 else None for p, x in leaves.items()}
    given = dims(tree) if callable(dims) else dims
    known = {
        path_name(keys): value
        for keys, value in jax.tree_util.tree_leaves_with_path(given, is_leaf=_is_dims)
        if value is None or isinstance(value, MuonDimensionNumbers)
    }
    for path in leaves:
        if path not in known:
            raise ValueError(
                f"dims says nothing of the parameter {path!r}; give MuonDimensionNumbers for a "
                f"matrix and None for what is none"
            )
    return {path: known[path] for path in leaves}


def map_matrices(rule: str, dims: Dims, fn: Callable, tree: Any, *rest: Any) -> Any:
    """`fn` over the leaves of `tree` and `rest`, every leaf seen as matrices `[..., K, Z]`.

    Args:
      rule: what asks for matrices, for the error.
      dims: see the module.
      fn: `(matrix, *matrices) -> matrix` of the same shape.
      tree, *rest: trees of one structure, same leaf shapes.

    Raises:
      ValueError: a leaf that is not a matrix, or axes that its shape does not have.

    >>> print(map_matrices("a rule", None, lambda m_KZ: 2 * m_KZ, {"w": jnp.ones((1, 3))}))
    {'w': Array([[2., 2., 2.]], dtype=float32)}
    """
    axes = by_path(dims, tree)
    leaves = [flatten(other).values() for other in (tree, *rest)]
    made = []
    for path, *xs in zip(axes, *leaves, strict=True):
        view, back = matrix_view(rule, path, xs[0].shape, axes[path])
        made.append(back(fn(*(view(x) for x in xs))))
    return jax.tree.unflatten(jax.tree.structure(tree), made)


def matrix_view(
    rule: str, path: str, shape: tuple[int, ...], dims: MuonDimensionNumbers | None
) -> tuple[Callable[[jax.Array], jax.Array], Callable[[jax.Array], jax.Array]]:
    """Functions from a parameter of this shape to `[..., K, Z]`, and back."""
    if dims is None:
        raise ValueError(
            f"{rule} works on matrices, but {path!r} has shape {shape}. Keep it out with "
            f"optax.partition, use the form that gives the rest to AdamW, or say with dims "
            f"which of its axes are rows and columns"
        )
    rows, columns = (_axes(a, path, shape) for a in (dims.reduction_axis, dims.output_axis))
    batch = tuple(a for a in range(len(shape)) if a not in rows + columns)
    order = (*batch, *rows, *columns)
    if sorted(order) != list(range(len(shape))):
        raise ValueError(f"dims of {path!r}, {dims}, name an axis of {shape} twice")
    sizes = [tuple(shape[a] for a in group) for group in (batch, rows, columns)]
    flat = (*sizes[0], math.prod(sizes[1]), math.prod(sizes[2]))
    inverse = tuple(order.index(a) for a in range(len(shape)))

    def view(x):
        return x.transpose(order).reshape(flat)

    def back(x):
        return x.reshape(sum(sizes, ())).transpose(inverse)

    return view, back


def match_rms(rms: float, dims: Dims = None) -> optax.GradientTransformation:
    """Give the update of every matrix the root mean square `rms`.

    0.2 is about what AdamW's updates have, so that one learning rate serves both (Liu et
    al., 2025, "Muon is scalable for LLM training"). An update of zeros stays as it is.

    >>> tx = match_rms(0.2)
    >>> update, _ = tx.update({"w": jnp.full((2, 3), 7.0)}, tx.init({"w": jnp.ones((2, 3))}))
    >>> print(f"{update['w'].std() + update['w'].mean():.3f}")
    0.200
    """

    def scale(u_KZ):
        square = jnp.mean(jnp.square(u_KZ.astype(jnp.float32)), axis=(-2, -1), keepdims=True)
        factor = rms * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
        return (u_KZ * factor).astype(u_KZ.dtype)

    return optax.stateless(
        lambda updates, params: map_matrices("match_rms", dims, scale, updates)
    )


def _axes(axes: Any, path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    for axis in axes:
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"dims of {path!r} name axis {axis}, but its shape is {shape}")
    return tuple(axis % len(shape) for axis in axes)


def _is_dims(x: Any) -> bool:
    return x is None or isinstance(x, MuonDimensionNumbers)
