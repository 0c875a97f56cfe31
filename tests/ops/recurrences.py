"""What tests of recurrences with a constant state have in common."""

import jax
import jax.numpy as jnp
import numpy as np


def close(got, want, tolerance=1e-5):
    """Trees whose leaves differ by little of the largest number in each."""
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, atol=tolerance * float(np.abs(w).max() + 1e-6), rtol=0)


def check_nothing_crosses_a_reset(read, tokens, memory, start=6):
    """Neither values nor gradients: those of everything before it are exactly 0."""
    batch, time = tokens.v_BTHV.shape[:2]
    reset_BT = jnp.zeros((batch, time), bool).at[:, start].set(True)

    def later(tokens, memory):
        y, end = read(tokens, memory, reset_BT)
        return jnp.sum(y[:, start:] ** 2) + jnp.sum(end**2)

    grads, of_memory = jax.jit(jax.grad(later, (0, 1)))(tokens, memory)
    assert not np.any(of_memory)
    for leaf in jax.tree.leaves(grads):
        assert not np.any(leaf[:, :start])
    assert np.all(np.abs(grads.v_BTHV[:, start:]).max((0, 2, 3)) > 0)


def check_causality(read, tokens, memory, last=7):
    """A token is changed by itself and those before it, and by no later one."""
    at_last = lambda tokens: jnp.sum(read(tokens, memory)[0][:, last] ** 2)
    grads = jax.jit(jax.grad(at_last))(tokens)
    for leaf in jax.tree.leaves(grads):
        assert not np.any(leaf[:, last + 1 :]) and np.any(leaf[:, last])
    assert np.all(np.abs(grads.v_BTHV[:, : last + 1]).max((0, 2, 3)) > 0)
