"""What the layers of a Linen module were given, for rules that need it (Eqs. 54-57)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hope_jax.nested.paths import path_name

COLLECTION = "layer_inputs"


def apply_with_inputs(
    module: nn.Module,
    variables: Any,
    *args: Any,
    layers: type[nn.Module] | tuple[type[nn.Module], ...] = (nn.Dense,),
    mutable: str | Collection[str] = (),
    **kwargs: Any,
) -> tuple[Any, Any]:
    """`module.apply`, and what every layer was given, in the structure of the parameters.

    The recorded inputs are what `hope_jax.optim.dgd` takes as its extra argument `inputs`.
    They are ordinary values of the computation: this can be traced by `jit`, `vmap` and
    `grad` (as auxiliary output) and works through `nn.remat` and `nn.jit`. A layer that is
    applied several times with the same weights has all its inputs, one after the other.

    Lifted scans and maps have to hand the record out: give `nn.scan` or `nn.vmap`
    `variable_axes={"layer_inputs": 0, ...}`. Weights stacked along axis 0 then get inputs
    stacked along axis 0, and weights that all steps share get all their inputs.

    Not supported, with an error: layers whose own matrix is not `[K, Z]` (convolutions,
    attention with head axes), a lifted transformation without the axis above or with
    several stacked axes of which a layer has only some, and `nn.while_loop`, or `nn.cond`
    and `nn.switch` with branches that apply different layers (JAX raises there). Not
    noticed: weights that `nn.map_variables` transforms before the layer sees them.

    Args:
      module: an unbound module.
      variables: as for `module.apply`, with "params".
      *args: arguments of the module.
      layers: classes that multiply the last axis of their first argument by the one
        matrix `[K, Z]` that they own, as `nn.Dense` does. This is taken on trust.
      mutable: names of collections that the module changes, e.g. "batch_stats".
      **kwargs: keyword arguments of `module.apply` (`rngs`, `method`) and of the module.

    Returns:
      The output of `module.apply` (with `mutable`: a pair of it and the changed collections),
      and inputs: `variables["params"]` with `[..., N, K]` in
      the place of each layer's matrix, leading axes of the input merged into N, in the type
      in which the layer was given them, and None elsewhere. A layer that was not
      called has None.

    Raises:
      ValueError: no layer of these classes was called, or one that is not supported. The
        message names the layer.

    Example:
      >>> import optax
      >>> from hope_jax.optim import dgd
      >>> model = nn.Sequential([nn.Dense(8), nn.tanh, nn.Dense(1)])
      >>> x = jnp.linspace(-1, 1, 16)[:, None]
      >>> params = model.init(jax.random.key(0), x)["params"]
      >>> rule = dgd(0.1)
      >>> def loss(params):
      ...     y, inputs = apply_with_inputs(model, {"params": params}, x)
      ...     return jnp.mean((y - x**2) ** 2), inputs
      >>> @jax.jit
      ... def train(params, state):
      ...     (value, inputs), grads = jax.value_and_grad(loss, has_aux=True)(params)
      ...     updates, state = rule.update(grads, state, params, inputs=inputs)
      ...     return optax.apply_updates(params, updates), state, value
      >>> params, state, before = train(params, rule.init(params))
      >>> for _ in range(50):
      ...     params, state, after = train(params, state)
      >>> bool(after < before / 2)
      True
      >>> print(jax.tree.map(jnp.shape, loss(params)[1]["layers_2"]))
      {'bias': None, 'kernel': (16, 8)}
    """
    layers = layers if isinstance(layers, tuple) else (layers,)
    mutable = [mutable] if isinstance(mutable, str) else mutable
    if not isinstance(mutable, Collection):
        raise ValueError(f"mutable={mutable!r}; give the names of the collections instead")

    def record(call, given, named, context):
        result = call(*given, **named)
        layer = context.module
        if isinstance(layer, layers) and context.method_name == "__call__":
            _record(layer, jnp.asarray((*given, *named.values())[0]))
        return result

    # nn.jit keeps what it has traced by the mutable collections, so the name of one more
    # keeps records of different layers apart.
    wanted = [*mutable, COLLECTION, f"{COLLECTION} of {layers}"]
    with nn.intercept_methods(record):
        output, changed = module.apply(variables, *args, mutable=wanted, **kwargs)
    changed = dict(changed)
    recorded = _by_path(changed.pop(COLLECTION, {}))
    if not recorded:
        names = ", ".join(layer.__name__ for layer in layers)
        raise ValueError(
            f"no layer of {type(module).__name__} that was called is a {names}; name the "
            f"classes of its layers in `layers`"
        )
    leaves, tree = jax.tree.flatten_with_path(variables["params"], is_leaf=_is_box)
    inputs = []
    for keys, w in leaves:
        path = path_name(keys)
        x = None
        if path in recorded:
            x = _merge(path, recorded.pop(path), nn.meta.unbox(w))
            x = w.replace_boxed(x) if _is_box(w) else x
        inputs.append(x)
    if recorded:
        raise ValueError(
            f"layer {next(iter(recorded))!r} has no parameter of that path in "
            f'variables["params"]: a transformation renames it, which is not supported'
        )
    return ((output, changed) if mutable else output), tree.unflatten(inputs)


def _record(layer: nn.Module, x: jax.Array) -> None:
    """Put an input where the layer's matrix is, in a collection of its own."""
    name = "/".join(layer.path) or type(layer).__name__
    own = nn.meta.unbox(dict(layer.variables.get("params", {})))
    shapes = {k: jnp.shape(w) for k, w in own.items() if not isinstance(w, dict)}
    matrices = [k for k, shape in shapes.items() if len(shape) > 1]
    if len(matrices) != 1 or shapes[matrices[0]][:-1] != x.shape[-1:]:
        raise ValueError(
            f"layer {name!r} ({type(layer).__name__}) has parameters {shapes} and an input of "
            f"shape {x.shape}; only layers with one matrix [K, Z] for an input [..., K] are "
            f"supported, so leave its class out of `layers`"
        )
    if not layer.sow(COLLECTION, matrices[0], x.reshape(-1, x.shape[-1])):
        raise ValueError(
            f"layer {name!r} is inside a lifted transformation that does not hand its inputs "
            f'out; add "{COLLECTION}": 0 to the variable_axes of nn.scan or nn.vmap'
        )


def _by_path(recorded: Any) -> dict[str, tuple[jax.Array, ...]]:
    """The calls of each layer by the path of its matrix."""
    leaves = jax.tree.leaves_with_path(recorded, is_leaf=lambda node: isinstance(node, tuple))
    return {path_name(keys): calls for keys, calls in leaves}


def _is_box(node: Any) -> bool:
    return isinstance(node, nn.meta.AxisMetadata)


def _merge(path: str, calls: tuple[jax.Array, ...], w: jax.Array) -> jax.Array:
    """The inputs of all calls as `[..., N, K]`, with the leading axes of the weight."""
    stacked, size = w.shape[:-2], w.shape[-2]
    for x in calls:
        if x.shape[-1] != size or (stacked and x.shape[:-2] != stacked):
            raise ValueError(
                f"layer {path!r} has weights of shape {w.shape} and inputs of shape {x.shape}; "
                f'stacked weights need axis 0 for both "params" and "{COLLECTION}" in '
                f"variable_axes, and no further scan or map that shares them"
            )
    if not stacked:
        calls = [x.reshape(-1, size) for x in calls]
    return jnp.concatenate(calls, axis=-2)
