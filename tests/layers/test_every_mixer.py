"""What the language model, training and streams ask of every mixer."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixer_cases import CASES, DIM

from hope_jax.cli.describe import describe
from hope_jax.config import MIXER_CONFIGS, ModelConfig, TrainConfig, from_dict, to_dict
from hope_jax.layers.registry import MIXERS, make_mixer
from hope_jax.models import abstract_params, count_params, match_params
from hope_jax.nested.paths import flatten
from hope_jax.optim.model_matrices import model_matrices

BATCH, TIME, START = 2, 11, 7  # row 1 has a second document at START
CUT = 6  # inside a chunk; the same in all tests, so that its pieces are compiled once
RESET_BT = jnp.zeros((BATCH, TIME), bool).at[1, START].set(True)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


@functools.cache
def counting(name):
    """A compiled mixer that gives what it counts too, its parameters and some input."""
    module = make_mixer(ModelConfig(dim=DIM, depth=1, mixer=CASES[name].config))
    x_BTD = jax.random.normal(jax.random.key(1), (BATCH, TIME, DIM))
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), x_BTD))["params"]

    @functools.partial(jax.jit, static_argnames="writes")
    def read(x_BTD, state, reset_BT, writes=True, params=params):
        how = {"writes": writes, "mutable": ["stats"]}
        return module.apply({"params": params}, x_BTD, state, reset_BT, **how)

    return read, params, x_BTD


def started(name):
    """The same mixer `(x, state, reset, writes)` without what it counts."""
    read, params, x_BTD = counting(name)
    return lambda *args, **how: read(*args, **how)[0], params, x_BTD


def counted(name, *args, **how):
    """Writes to the memory while reading."""
    counts = flatten(counting(name)[0](*args, **how)[1]["stats"])
    return sum(int(counts[path]) for path in counts if "write_events" in path)


@functools.cache
def whole(name):
    """All tokens in one read."""
    apply, _, x_BTD = started(name)
    return apply(x_BTD, None, RESET_BT)


def test_every_mixer_is_tested():
    assert set(CASES) == set(MIXERS) == set(MIXER_CONFIGS)
    assert all(MIXER_CONFIGS[name] is type(case.config) for name, case in CASES.items())


@pytest.mark.parametrize("name", CASES)
def test_token_by_token_is_one_read(name):
    """From a fresh state on, over a document start; its size does not change."""
    apply, _, x_BTD = started(name)
    y_BTD, end = whole(name)
    _, state = apply(x_BTD[:, :0], None, RESET_BT[:, :0])
    shapes = jax.tree.map(jnp.shape, end)
    for t in range(TIME):
        assert CASES[name].grows or jax.tree.map(jnp.shape, state) == shapes
        now = slice(t, t + 1)
        one_BTD, state = apply(x_BTD[:, now], state, RESET_BT[:, now])
        close(one_BTD[:, 0], y_BTD[:, t], err_msg=f"token {t}")
    jax.tree.map(close, state, end)


@pytest.mark.parametrize("name", CASES)
def test_pieces_are_one_read(name):
    """A cut inside a chunk, with tokens enough after it for the parallel form."""
    apply, _, x_BTD = started(name)
    y_BTD, end = whole(name)
    first_BTD, state = apply(x_BTD[:, :CUT], None, RESET_BT[:, :CUT])
    second_BTD, state = apply(x_BTD[:, CUT:], state, RESET_BT[:, CUT:])
    close(jnp.concatenate([first_BTD, second_BTD], axis=1), y_BTD)
    jax.tree.map(close, state, end)


@pytest.mark.parametrize("name", CASES)
def test_nothing_leaks(name):
    """Not from later tokens, other rows, or the document before; within one, it mixes."""
    apply, _, x_BTD = started(name)
    y_BTD, _ = whole(name)
    late_BTD, _ = apply(x_BTD.at[0, 8].add(1.0), None, RESET_BT)
    close(late_BTD[0, :8], y_BTD[0, :8])
    close(late_BTD[1], y_BTD[1])
    assert np.abs(late_BTD[0, 9:] - y_BTD[0, 9:]).max() > 1e-4
    before_BTD, _ = apply(x_BTD.at[1, :START].add(1.0), None, RESET_BT)
    close(before_BTD[1, START:], y_BTD[1, START:])
    # where a chunk starts too: elsewhere a document's first chunk may be a short one
    start = 2 * 4
    later_BTD, _ = apply(x_BTD, None, jnp.zeros_like(RESET_BT).at[:, start].set(True))
    first_BTD = jnp.roll(x_BTD, -start, axis=1)
    alone_BTD, _ = apply(first_BTD, None, jnp.zeros_like(RESET_BT))
    close(alone_BTD[:, : TIME - start], later_BTD[:, start:])


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.memory])
def test_reading_without_writing_leaves_the_memory(name):
    """By chunk and by token; it still reads what was written before, and counts no write."""
    apply, _, x_BTD = started(name)
    memory = CASES[name].memory
    fresh = apply(x_BTD[:, :0], None, RESET_BT[:, :0])[1]
    _, state = apply(x_BTD[:, :CUT], None, RESET_BT[:, :CUT])
    changes = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), memory(state), memory(fresh)
    )
    assert max(jax.tree.leaves(changes)) > 1e-3
    assert counted(name, x_BTD[:, :CUT], None, RESET_BT[:, :CUT]) > 0
    for part in (slice(CUT, TIME), slice(CUT, CUT + 1)):
        part_BTD, part_BT = x_BTD[:, part], jnp.zeros_like(RESET_BT[:, part])
        y_BTD, after = apply(part_BTD, state, part_BT, writes=False)
        jax.tree.map(np.testing.assert_array_equal, memory(after), memory(state))
        assert counted(name, part_BTD, state, part_BT, writes=False) == 0
        fresh_BTD, _ = apply(part_BTD, fresh, part_BT, writes=False)
        assert np.abs(y_BTD - fresh_BTD).max() > 1e-4


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_is_trained(name):
    apply, params, x_BTD = started(name)

    def loss(params):
        y_BTD, _ = apply(x_BTD, None, RESET_BT, params=params)
        return jnp.mean(jnp.sin(3 * y_BTD) * jnp.cos(jnp.arange(DIM * 1.0))[None, None])

    grads = jax.jit(jax.grad(loss))(params)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, path


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.speed])
def test_fields_for_speed_change_nothing_else(name):
    _, params, x_BTD = started(name)
    y_BTD, end = whole(name)
    field, values = CASES[name].speed
    for value in values:
        config = dataclasses.replace(CASES[name].config, **{field: value})
        module = make_mixer(ModelConfig(dim=DIM, depth=1, mixer=config))
        other_BTD, other = jax.jit(module.apply)({"params": params}, x_BTD, None, RESET_BT)
        close(other_BTD, y_BTD)
        jax.tree.map(close, other, end)


@pytest.mark.parametrize("name", CASES)
def test_types_stay_what_they_are(name):
    """bfloat16 in, bfloat16 out, and a state of one type however it was made."""
    module = make_mixer(
        ModelConfig(dim=DIM, depth=1, mixer=CASES[name].config, dtype="bfloat16")
    )
    _, params, x_BTD = started(name)

    def read(time, state=None):
        part_BTD = x_BTD[:, :time].astype(jnp.bfloat16)
        reset_BT = RESET_BT[:, :time]
        return jax.eval_shape(module.apply, {"params": params}, part_BTD, state, reset_BT)

    types = lambda tree: jax.tree.map(lambda leaf: leaf.dtype, tree)
    y_BTD, many = read(TIME)
    assert y_BTD.dtype == jnp.bfloat16
    fresh = read(0)[1]
    assert types(fresh) == types(many) == types(read(1, fresh)[1]) == types(read(5, many)[1])


@pytest.mark.parametrize("name", CASES)
def test_by_name_and_as_json(name):
    model = ModelConfig(mixer=CASES[name].config, dim=DIM)
    assert from_dict(to_dict(model), ModelConfig) == model


@pytest.mark.parametrize("name", CASES)
def test_matrices_are_known_to_the_rules_for_matrices(name):
    params = abstract_params(ModelConfig(dim=DIM, mixer=CASES[name].config))
    dims = model_matrices(dict.fromkeys(flatten(params), 0))
    found = {path.removeprefix("blocks/mixer/") for path in dims if dims[path]}
    assert {path for path in found if not path.startswith("blocks/")} == CASES[name].matrices


@pytest.mark.parametrize("name", CASES)
def test_parameters_can_be_matched_and_described(name):
    model = ModelConfig(vocab_size=11, dim=DIM, depth=2, mixer=CASES[name].config)
    target = 3 * count_params(model).total
    matched = match_params(model, target)
    assert abs(count_params(matched).total - target) < 0.01 * target
    sections = describe(TrainConfig(model=matched))
    state = next(s for s in sections if s.title.startswith("fast state"))
    constant = "the same after any number of tokens" in state.note
    assert constant != CASES[name].grows
