"""The LSTM's loop and its gradient, which is written out, are those of the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrences import close

from hope_jax.ops.lstm import LSTMState, initial_state, read, step

B, T, H, K = 2, 9, 2, 3


def problem(seed=0, scale=1.0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(scale * rng.normal(size=shape), jnp.float32)
    x, u = draw(B, T, H, 4, K).astype(dtype), draw(H, K, 4, K)
    state = LSTMState(draw(B, H, K), draw(B, H, K))
    reset = np.zeros((B, T), bool)
    reset[0, 0] = reset[1, [4, 5]] = True
    return x, u, state, jnp.asarray(reset)


def plainly(x, u, state, reset):
    """The equations, float64, unit by unit."""
    x, u, h, c = (np.array(z, np.float64) for z in (x, u, state.h_BHK, state.c_BHK))
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    outputs = np.zeros((B, T, H, K))
    for b, t, n in np.ndindex(B, T, H):
        if reset[b, t]:
            h[b, n], c[b, n] = 0, 0
        i, f, g, o = (x[b, t, n, gate] + h[b, n] @ u[n, :, gate] for gate in range(4))
        c[b, n] = sigmoid(f) * c[b, n] + sigmoid(i) * np.tanh(g)
        outputs[b, t, n] = h[b, n] = sigmoid(o) * np.tanh(c[b, n])
    return outputs, h, c


def by_steps(x, u, state, reset):
    """A loop that is differentiated as it stands."""
    keep = 1.0 - reset.astype(jnp.float32)

    def token(state, inputs):
        state = step(state, inputs[0], u, inputs[1])
        return state, state.h_BHK

    state, h = jax.lax.scan(token, state, (jnp.moveaxis(x, 1, 0), keep.T))
    return jnp.moveaxis(h, 0, 1), state


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_it_is_its_definition(scale):
    args = problem(scale=scale)
    close(jax.jit(read)(*args), plainly(*args))


@pytest.mark.parametrize("resets", [True, False])
@pytest.mark.parametrize("scale", [1.0, 10.0])  # with the larger one gates are saturated
def test_gradients_are_those_of_the_loop(resets, scale):
    x, u, state, reset = problem(1, scale)
    reset = reset & resets

    def gradient(form):
        def score(x, u, state):
            out = form(x, u, state, reset)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(out))

        return jax.jit(jax.value_and_grad(score, (0, 1, 2)))(x, u, state)

    close(gradient(read), gradient(by_steps), 1e-4)


def test_any_cut_is_no_cut():
    x, u, state, reset = problem(2)
    whole = read(x, u, state, reset)
    pieces = []
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        h, state = read(x[:, start:stop], u, state, reset[:, start:stop])
        pieces.append(h)
    close((jnp.concatenate(pieces, 1), state), whole)


def test_nothing_crosses_a_reset():
    x, u, state, _ = problem(3)
    reset = jnp.zeros((B, T), bool).at[:, 5].set(True)

    def later(x, state):
        h, end = read(x, u, state, reset)
        return jnp.sum(h[:, 5:] ** 2) + jnp.sum(end.c_BHK)

    of_x, of_state = jax.jit(jax.grad(later, (0, 1)))(x, state)
    assert not np.any(of_x[:, :5]) and np.all(np.abs(of_x[:, 5:]).max((0, 2, 3, 4)) > 0)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_state))
    close(read(x, u, state, reset)[0][:, 5:], read(x[:, 5:], u)[0])


def test_half_precision_multiplies_and_float32_remembers():
    x, u, state, reset = problem(dtype=jnp.bfloat16)
    h, end = jax.jit(read)(x, u, None, reset)
    assert {leaf.dtype for leaf in jax.tree.leaves((h, end))} == {jnp.dtype("float32")}
    close(h, plainly(x, u, initial_state(B, H, K), reset)[0], 0.02)
    grads = jax.jit(jax.grad(lambda x, u: jnp.sum(read(x, u)[0]), (0, 1)))(x, u)
    assert (grads[0].dtype, grads[1].dtype) == (jnp.bfloat16, jnp.float32)
