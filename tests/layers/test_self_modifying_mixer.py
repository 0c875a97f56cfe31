"""The self-modifying mixer: every option, and the defects found in other implementations."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import ModelConfig, SelfModifyingConfig
from hope_jax.layers.self_modifying import SelfModifyingTitans, recurrence_spec

SMALL = SelfModifyingConfig(heads=2, chunk=4, rate_hidden=4)


def mixer(**options):
    config = ModelConfig(dim=16, depth=1, mixer=dataclasses.replace(SMALL, **options))
    return SelfModifyingTitans(config)


@functools.cache
def started(**options):
    """A mixer, its parameters and some input."""
    module = mixer(**options)
    x_BTD = jax.random.normal(jax.random.key(1), (2, 11, 16))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x_BTD))["params"]
    return module, params, x_BTD


@functools.cache
def gradient_of(**options):
    """Gradient of all parameters, of a loss that no output leaves out."""
    module, params, x_BTD = started(**options)

    def loss(params):
        y_BTD, _ = module.apply({"params": params}, x_BTD)
        return jnp.mean(jnp.sin(3 * y_BTD) * jnp.cos(jnp.arange(16.0))[None, None])

    return jax.jit(jax.grad(loss))(params)


OPTIONS = [
    {},
    {"adaptive": ()},
    {"adaptive": ("k", "v", "q", "eta", "alpha"), "momentum": "titans"},
    {"adaptive": ("v", "eta"), "retention": "none", "rule": "gd", "gate": False},
    {"adaptive": ("k",), "conv": 0, "input_norm": "rms", "decay_to": "zero"},
    {"memory": "linear", "conv_placement": "shared", "objective": "dot"},
    {
        "memory_chunk": 2,
        "activation": "silu",
        "hidden_norm": "none",
        "hidden": 12,
        "value_norm": "rms",
    },
    {"chunk": 2, "memory_chunk": 4, "read": "chunk_start", "scope": "input_only"},
    {"value_expansion": 3, "memory_chunk": 2},
]


# Compiling all of them takes minutes; CI does.
EVERY_OPTION = [
    pytest.param(o, id=str(i), marks=() if i == 0 else pytest.mark.slow)
    for i, o in enumerate(OPTIONS)
]


@pytest.mark.parametrize("options", EVERY_OPTION)
def test_every_option_trains_all_its_parameters(options):
    """No generator memory is left without an outer gradient."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient_of(**options)):
        assert jnp.isfinite(leaf).all(), path
        assert jnp.abs(leaf).max() > 0, f"no gradient reaches {jax.tree_util.keystr(path)}"


def test_every_memory_gets_an_outer_gradient():
    """Inside the stacked matrices too: k, v, eta, alpha and memory, one by one."""
    gradient = gradient_of()
    spec = recurrence_spec(SMALL, 8).groups[0].spec
    for name in spec.widths:
        assert jnp.abs(gradient["memory_in"][..., spec.columns(name)]).min(axis=-2).max() > 0
    for stack in ("memory_value", "memory_rate"):
        assert (jnp.abs(gradient[stack]).max(axis=(0, 2, 3)) > 0).all()


def test_memories_mix_tokens_beyond_the_convolution():
    module, params, x_BTD = started()

    def last(x_BTD, writes):
        return jnp.sum(module.apply({"params": params}, x_BTD, writes=writes)[0][:, -1] ** 2)

    gradient = jax.jit(jax.grad(last), static_argnums=1)
    reach = jnp.abs(gradient(x_BTD, True)).max(axis=(0, 2))
    assert (reach > 0).all()
    off = jnp.abs(gradient(x_BTD, False)).max(axis=(0, 2))
    assert (off[:-4] == 0).all() and (off[-4:] > 0).all()


def test_writes_are_counted_and_happen_in_less_than_a_chunk():
    module, params, x_BTD = started(chunk=16)
    apply = jax.jit(
        lambda x_BTD, writes: module.apply(
            {"params": params}, x_BTD, writes=writes, mutable=["stats"]
        ),
        static_argnums=1,
    )
    for writes in (True, False):
        _, stats = apply(x_BTD, writes)
        stats = {name: float(value[0]) for name, value in stats["stats"].items()}
        assert stats["write_events"] == (2 * 2 * 11 if writes else 0)
        assert (stats["memory_change"] > 0.01) == writes
        assert (abs(stats["memory_norm"] - 1) > 0.01) == writes
        assert 0 < stats["eta"] < 1 and 0 < stats["alpha"] < 1


@pytest.mark.parametrize("start", [0.5, 0.95])
def test_momentum_does_not_overshoot_where_a_text_repeats_itself(start):
    """One token again and again, and two in turn: no more in the memories than at the start."""
    module = mixer(chunk=16, momentum="titans", initial_momentum=start, remat="none")
    two_D = jax.random.normal(jax.random.key(2), (2, 16))
    alternating_TD = jnp.tile(two_D, (256, 1))
    x_BTD = jnp.stack([jnp.tile(two_D[:1], (512, 1)), alternating_TD])
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x_BTD[:, :1]))["params"]
    size = lambda state: float(
        sum(jnp.sum(w**2) for g in state.recurrent.groups for w in jax.tree.leaves(g.running))
    )
    read = jax.jit(lambda x_BTD: module.apply({"params": params}, x_BTD)[1])
    assert size(read(x_BTD)) < size(read(x_BTD[:, :0]))


def test_a_factor_of_the_gradient_is_one_of_the_rate():
    assert SelfModifyingConfig(chunk=16, grad_factor=2.0).rate_limit == 1 / 8
    assert SelfModifyingConfig(chunk=16).rate_limit == 1 / 4


@pytest.mark.slow
def test_outer_gradients_can_be_truncated():
    full, params, x_BTD = started()
    cut = mixer(bptt_chunks=1)

    def last(x_BTD):
        y_BTD, _ = cut.apply({"params": params}, x_BTD)
        return jnp.sum(y_BTD[:, -1] ** 2), y_BTD

    reach, y_BTD = jax.jit(jax.grad(last, has_aux=True))(x_BTD)
    whole_BTD, _ = jax.jit(full.apply)({"params": params}, x_BTD)
    np.testing.assert_array_equal(whole_BTD, y_BTD)
    reach = jnp.abs(reach).max(axis=(0, 2))
    # Writes of earlier chunks (tokens 0 to 7) are constants for token 10; the convolution
    # still carries tokens 5 to 7 into the last chunk.
    assert (reach[:5] == 0).all() and (reach[8:] > 0).all()
