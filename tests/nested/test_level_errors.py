"""Every refusal names the level and the remedy."""

import jax.numpy as jnp
import optax
import pytest

from hope_jax.nested import Level, Levels

SGD = optax.sgd(0.1)


def level(name, period, params=None, **options):
    return Level(name, period, SGD, params or name, **options)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: level("a", 0), "'a' has period 0; use a whole number of ticks from 1"),
        (lambda: level("a", -2), "'a' has period -2"),
        (lambda: level("a", 1.5), "'a' has period 1.5"),
        (lambda: level("a", True), "'a' has period True"),
        (lambda: level("a/b", 1), "level name 'a/b'"),
        (lambda: level("a", 1, reduction="max"), "reduction 'max'; use 'sum' or 'mean'"),
        (lambda: Levels(()), "there is no level"),
        (lambda: Levels((level("a", 1), level("a", 2))), "two levels are named 'a'"),
        (lambda: Levels((level("a", 4), level("b", 6))), "'b': period 6 .*'a'; use 4 or 8"),
        (lambda: Levels((level("a", 4), level("b", 2))), "'b' .*order the levels from fastest"),
        (
            lambda: Levels((Level("a", 1, SGD), Level("b", 2, SGD))),
            "'a' and 'b' both take the remaining",
        ),
        (
            lambda: Levels((level("a", 1), level("b", 2, reset_to_init=True))),
            "'b' has reset_to_init, but no slower level",
        ),
        (
            lambda: Levels((level("a", 2, reset_to_init=True), level("b", 2))),
            "'a' has reset_to_init, but the next level 'b' has the same period",
        ),
    ],
)
def test_schedules_that_cannot_be_run(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "levels, message",
    [
        ((level("a", 1),), "parameter 'b/w' is in no level; widen .*'a'"),
        ((level("a", 1), level("b", 2, ("b", "a/w"))), "'a/w' is in two levels, 'a' and 'b'"),
        ((level("a", 1, "[ab]"), level("c", 2)), "level 'c' has no parameters"),
        ((level("a", 1, "[ab]"), Level("rest", 2, SGD)), "level 'rest' has no parameters"),
    ],
)
def test_parameters_that_do_not_fit(levels, message):
    params = {"a": {"w": jnp.zeros(1)}, "b": {"w": jnp.zeros(1)}}
    with pytest.raises(ValueError, match=message):
        Levels(levels).init(params)


def test_arguments_that_do_not_fit():
    levels, params = Levels((level("a", 4),)), {"a": jnp.zeros(1)}
    state = levels.init(params)
    step_fn = lambda params, carry, x: (params, carry, x)
    with pytest.raises(ValueError, match="gradients and parameters differ in structure"):
        levels.step(params, state, {"b": jnp.zeros(1)})
    with pytest.raises(ValueError, match="names 'b'; the levels are .'a'."):
        levels.run(step_fn, params, state, (), jnp.zeros(3), remat=("b",))
    with pytest.raises(ValueError, match="start=2, but the state is at tick 0"):
        levels.run(step_fn, params, state, (), jnp.zeros(3), start=2)
    for xs in ((), (jnp.zeros(3), jnp.zeros(4)), jnp.zeros(())):
        with pytest.raises(ValueError, match="leading axes"):
            levels.run(step_fn, params, state, (), xs)
