"""A stream to learn from, and the engine's rule written out as a plain loop.

A linear model with one weight vector per level reads ticks (features, target) and corrects
itself; its prediction goes into the carry, so that every tick depends on all before.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hope_jax.nested import Level, Levels

FEATURES = 3
MOMENTUM = 0.5


def make_levels(periods, rate=0.05, **options):
    """SGD with momentum in every level; `options` by level name."""
    return Levels(
        tuple(
            Level(
                f"every_{period}",
                period,
                optax.sgd(rate, momentum=MOMENTUM),
                f"every_{period}",
                **options.get(f"every_{period}", {}),
            )
            for period in periods
        )
    )


def make_params(periods):
    return {
        f"every_{period}": jnp.asarray(np.random.default_rng(period).normal(size=FEATURES))
        for period in periods
    }


def make_stream(length, seed=0):
    random = np.random.default_rng(seed)
    features_TD = random.normal(size=(length, FEATURES)).astype(np.float32)
    return features_TD, random.normal(size=length).astype(np.float32)


def read(params, carry, tick):
    """`step_fn` of the engine: gradient of half the squared error."""
    features_D, target = tick

    def error(params):
        return sum(w @ features_D for w in params.values()) + carry - target

    value = error(params)
    grads = jax.grad(lambda params: 0.5 * error(params) ** 2)(params)
    return grads, 0.5 * carry + 0.1 * value, value


def loop(periods, params, carry, xs, *, rate=0.05, resets=()):
    """The same by hand, from tick 0: gradients, sums and momenta in plain Python.

    Works on NumPy and on traced arrays. `resets` are periods whose vector returns to its
    initial value at the end of the next slower period (Eq. 72).
    """
    w = {p: params[f"every_{p}"] for p in periods}
    initial = dict(w)
    sums = {p: 0.0 * w[p] for p in periods}
    sums_initial = {p: 0.0 * w[p] for p in periods}
    velocity = {p: 0.0 * w[p] for p in periods}
    velocity_initial = {p: 0.0 * w[p] for p in periods}
    slower = dict(zip(periods, periods[1:], strict=False))
    errors = []
    for t, (features_D, target) in enumerate(zip(*xs, strict=True), start=1):
        error = sum((w[p] * features_D).sum() for p in periods) + carry - target
        errors.append(error)
        carry = 0.5 * carry + 0.1 * error
        for p in periods:
            sums[p] = sums[p] + error * features_D
            sums_initial[p] = sums_initial[p] + error * features_D
        for p in periods:
            if t % p == 0:
                velocity[p] = MOMENTUM * velocity[p] + sums[p]
                w[p] = w[p] - rate * velocity[p]
                sums[p] = 0.0 * sums[p]
            if p in resets and t % slower[p] == 0:
                velocity_initial[p] = MOMENTUM * velocity_initial[p] + sums_initial[p]
                initial[p] = initial[p] - rate * velocity_initial[p]
                sums_initial[p] = 0.0 * sums_initial[p]
                w[p] = initial[p]
    return {f"every_{p}": w[p] for p in periods}, carry, errors


def run_by_hand(periods, params, xs, **options):
    """`loop` in NumPy from a carry of zero."""
    return loop(periods, jax.tree.map(np.asarray, params), 0.0, xs, **options)


def tick_by_tick(levels):
    """Jitted `(params, state, carry, tick) -> (params, state, carry)` by `Levels.step`."""

    @jax.jit
    def step(params, state, carry, tick):
        grads, carry, _ = read(params, carry, tick)
        params, state, _ = levels.step(params, state, grads)
        return params, state, carry

    return step


def assert_close(actual, expected, rtol=1e-4, atol=1e-5):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol, atol), actual, expected)
