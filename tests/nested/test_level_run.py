"""Nested scans against the plain loop, wherever a stream is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from level_stream import (
    assert_close,
    loop,
    make_levels,
    make_params,
    make_stream,
    read,
    run_by_hand,
    tick_by_tick,
)

from hope_jax.nested import Level, Levels

PERIODS = (1, 2, 4)


def runner(levels, **options):
    return jax.jit(
        lambda params, state, carry, xs: levels.run(read, params, state, carry, xs, **options)
    )


def part(xs, begin, end):
    return jax.tree.map(lambda x: x[begin:end], xs)


def tick(xs, t):
    return jax.tree.map(lambda x: x[t], xs)


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    periods=st.sampled_from([(1,), (3,), (2, 6), (1, 2, 6), (1, 4, 8), (1, 2, 4, 12)]),
    length=st.integers(2, 14),
    cut=st.floats(0, 1),
    start_is_known=st.booleans(),
)
def test_any_schedule_length_and_cut(periods, length, cut, start_is_known):
    cut = round(cut * length)
    levels, params, xs = make_levels(periods), make_params(periods), make_stream(length)
    runs = [runner(levels, start=start if start_is_known else None) for start in (0, cut)]
    moved, state, carry, head = runs[0](params, levels.init(params), 0.0, part(xs, 0, cut))
    moved, state, carry, tail = runs[1](moved, state, carry, part(xs, cut, length))
    expected, expected_carry, errors = run_by_hand(periods, params, xs)
    assert_close(moved, expected)
    assert_close(carry, expected_carry)
    assert_close(np.concatenate([head, tail]), np.array(errors))
    assert state.tick == length


def test_cut_at_every_position():
    levels, params, xs = make_levels((1, 3)), make_params((1, 3)), make_stream(7)
    run = runner(levels)
    expected, _, errors = run_by_hand((1, 3), params, xs)
    for cut in range(8):
        moved, state, carry, head = run(params, levels.init(params), 0.0, part(xs, 0, cut))
        moved, state, carry, tail = run(moved, state, carry, part(xs, cut, 7))
        assert_close(moved, expected)
        assert_close(np.concatenate([head, tail]), np.array(errors))


def test_one_compiled_run_goes_on_from_every_phase():
    levels, params, xs = make_levels(PERIODS), make_params(PERIODS), make_stream(15)
    run, step = runner(levels), tick_by_tick(levels)
    state, carry, moved = levels.init(params), jnp.zeros(()), params
    for begin in range(9):
        end, end_state, _, _ = run(moved, state, carry, part(xs, begin, begin + 6))
        expected, _, _ = run_by_hand(PERIODS, params, part(xs, 0, begin + 6))
        assert_close(end, expected)
        assert end_state.tick == begin + 6
        moved, state, carry = step(moved, state, carry, tick(xs, begin))
    assert run._cache_size() == 1


def test_streams_at_different_ticks_under_vmap():
    levels, step = make_levels(PERIODS), tick_by_tick(make_levels(PERIODS))
    streams, expected = [], []
    for seed, begin in enumerate((0, 3, 6)):
        params, xs = make_params(PERIODS), make_stream(begin + 7, seed)
        expected.append(run_by_hand(PERIODS, params, xs)[0])
        state, carry = levels.init(params), jnp.zeros(())
        for t in range(begin):
            params, state, carry = step(params, state, carry, tick(xs, t))
        streams.append((params, state, carry, part(xs, begin, begin + 7)))
    moved, state, _, _ = jax.jit(jax.vmap(runner(levels)))(*stack(streams))
    assert_close(moved, stack(expected))
    np.testing.assert_array_equal(state.tick, [7, 10, 13])


def test_slow_parameters_are_identical_until_their_boundary():
    levels, params = make_levels((1, 8)), make_params((1, 8))
    run = runner(levels)
    moved, state, carry, _ = run(params, levels.init(params), 0.0, make_stream(7))
    np.testing.assert_array_equal(moved["every_8"], params["every_8"])
    assert not np.array_equal(moved["every_1"], params["every_1"])
    later, _, _, _ = run(moved, state, carry, make_stream(7))
    assert not np.array_equal(later["every_8"], params["every_8"])


def test_a_run_of_no_ticks_changes_nothing():
    levels, params = make_levels(PERIODS), make_params(PERIODS)
    state = levels.init(params)
    moved, after, carry, ys = runner(levels)(params, state, 0.5, make_stream(0))
    jax.tree.map(np.testing.assert_array_equal, (moved, after), (params, state))
    assert carry == 0.5 and ys.shape == (0,)


@pytest.mark.parametrize("periods, resets", [((1, 4), (1,)), ((1, 2, 6), (1, 2))])
def test_nested_levels_return_to_an_initial_value_that_the_slower_level_learns(periods, resets):
    options = {f"every_{p}": {"reset_to_init": True} for p in resets}
    levels, params = make_levels(periods, **options), make_params(periods)
    xs = make_stream(13)
    expected, _, errors = run_by_hand(periods, params, xs, resets=resets)
    moved, _, _, ys = runner(levels)(params, levels.init(params), 0.0, xs)
    assert_close(moved, expected)
    assert_close(ys, np.array(errors))
    step = tick_by_tick(levels)
    moved, state, carry = params, levels.init(params), jnp.zeros(())
    for t in range(13):
        moved, state, carry = step(moved, state, carry, tick(xs, t))
    assert_close(moved, expected)
    slower = state.levels[f"every_{periods[1]}"]
    assert set(slower.anchor) == {"every_1"}
    assert set(slower.grad_sum) == {"every_1", f"every_{periods[1]}"}


def test_update_of_a_period_is_one_step_on_the_summed_loss_of_the_chunk():
    """Eq. 71: inside a chunk all gradients are taken at the chunk's first parameters."""
    chunk, rate = 5, 0.05
    levels, params, xs = make_levels((chunk,), rate), make_params((chunk,)), make_stream(chunk)
    forget = lambda params, carry, x: (read(params, 0.0, x)[0], carry, 0.0)
    moved, _, _, _ = levels.run(forget, params, levels.init(params), 0.0, xs)

    def chunk_loss(w_D):
        features_CD, target_C = xs
        return 0.5 * jnp.sum((features_CD @ w_D - target_C) ** 2)

    w_D = params[f"every_{chunk}"]
    assert_close(moved, {f"every_{chunk}": w_D - rate * jax.grad(chunk_loss)(w_D)})


@pytest.fixture(scope="module")
def outer():
    """Arguments of a score, and its gradients through the unrolled loop."""
    xs = jax.tree.map(jnp.asarray, make_stream(7))
    arguments = (make_params((1, 3)), jnp.asarray(0.3), jnp.asarray(0.05), xs)

    def unrolled(params, carry, rate, xs):
        moved, _, errors = loop((1, 3), params, carry, tuple(map(list, xs)), rate=rate)
        return score(moved, jnp.stack(errors))

    return arguments, jax.jit(jax.grad(unrolled, (0, 1, 2, 3)))(*arguments)


def score(moved, errors):
    return jnp.sum(errors**2) + sum(jnp.sum(w**2) for w in moved.values())


@pytest.mark.parametrize("options", [{}, {"start": 0, "remat": ("every_1", "every_3")}])
def test_outer_gradients_equal_those_of_the_unrolled_loop(outer, options):
    arguments, expected = outer

    def nested(params, carry, rate, xs):
        levels = make_levels((1, 3), rate)
        state = levels.init(params)
        moved, _, _, errors = levels.run(read, params, state, carry, xs, **options)
        return score(moved, errors)

    assert_close(jax.jit(jax.grad(nested, (0, 1, 2, 3)))(*arguments), expected)


def test_outer_gradients_reach_initial_optimizer_states():
    levels, params, xs = make_levels((2,)), make_params((2,)), make_stream(4)
    fresh = levels.init(params)

    @jax.jit
    def last_error(fast_state):
        state = fresh.replace(levels={"every_2": fast_state})
        return levels.run(read, params, state, 0.0, xs, start=0)[3][-1]

    def moved_by(step):
        shift = lambda x: x + step if x.shape else x
        return jax.tree.map(shift, fresh.levels["every_2"])

    slope = jax.jit(jax.grad(last_error))(fresh.levels["every_2"])
    difference = (last_error(moved_by(0.1)) - last_error(moved_by(-0.1))) / 0.2
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(slope))
    np.testing.assert_allclose(total, difference, rtol=1e-3)
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(slope))


def test_truncation_cuts_fast_levels_at_the_boundary_and_leaves_slow_ones_connected():
    levels, params, xs = make_levels((1, 2, 4)), make_params((1, 2, 4)), make_stream(4)

    def later_error(params, carry, truncate):
        state = levels.init(params)
        return levels.run(read, params, state, carry, xs, start=0, truncate=truncate)[3][
            2:
        ].sum()

    gradient = jax.jit(jax.grad(later_error, (0, 1)), static_argnums=2)
    whole, whole_carry = gradient(params, 0.3, ())
    cut, cut_carry = gradient(params, 0.3, ("every_2",))
    assert np.abs(whole["every_1"]).max() > 0 and whole_carry != 0
    for name in ("every_1", "every_2"):
        np.testing.assert_array_equal(cut[name], np.zeros(3))
    assert cut_carry == 0
    assert np.abs(cut["every_4"]).max() > 0


def test_the_backward_pass_does_not_keep_frozen_parameters_per_tick():
    size = 64
    params = {"fast": jnp.ones(4), "slow": jnp.ones((size, size)) / size}
    tx = make_levels((1,)).levels[0].tx
    levels = Levels((Level("fast", 1, tx, "fast"), Level("slow", 64, tx, "slow")))

    def step_fn(params, carry, x_D):
        loss = lambda p: jnp.mean(jnp.tanh(x_D @ p["slow"]) * p["fast"].sum()) ** 2
        return jax.grad(loss)(params), carry, loss(params)

    def score(params, xs_TD):
        return levels.run(step_fn, params, levels.init(params), (), xs_TD, start=0)[3].sum()

    def copies(length):
        xs_TD = jnp.ones((length, size))
        compiled = jax.jit(jax.grad(score)).lower(params, xs_TD).compile()
        return compiled.memory_analysis().temp_size_in_bytes / params["slow"].nbytes

    assert copies(256) - copies(64) < 192 / 2
