"""The self-referential weight matrix is its equation, in one piece and in several."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrences import close

from hope_jax.ops.srwm import read_by_token, step

B, T, H, K = 2, 9, 2, 3
SIZES = (K, K, K, 4)


def problem(seed=0, time=T, scale=1.0):
    """Initial matrices, inputs, matrices of a stream, and resets."""
    rng = np.random.default_rng(seed)
    as_f32 = lambda x: jnp.asarray(x, jnp.float32)
    initial = as_f32(scale * rng.normal(size=(H, K, sum(SIZES))))
    memory = as_f32(scale * rng.normal(size=(B, H, K, sum(SIZES))))
    reset = np.zeros((B, time), bool)
    reset[0, 0] = reset[1, [4, 5]] = True
    return initial, as_f32(rng.normal(size=(B, time, H, K))), memory, jnp.asarray(reset)


def plainly(initial, x, memory, reset, writes=True):
    """The published equations, float64, with values read one by one, and `[O, K]` matrices."""
    initial, x = np.asarray(initial, np.float64), np.asarray(x, np.float64)
    end, y = np.array(memory, np.float64), np.zeros(x.shape)
    softmax = lambda z: np.exp(z) / np.exp(z).sum()
    for b, t, h in np.ndindex(x.shape[:3]):
        w = initial[h].T if reset is not None and reset[b, t] else end[b, h].T
        y[b, t, h], q, k, beta = np.split(w @ x[b, t, h], np.cumsum(SIZES)[:-1])
        if writes:
            new, old = w @ softmax(q), w @ softmax(k)
            rate = np.repeat(1 / (1 + np.exp(-beta)), SIZES)
            w = w + np.outer(rate * (new - old), softmax(k))
        end[b, h] = w.T
    return y, end


read = jax.jit(read_by_token, static_argnames=("writes", "chunk", "remat"))


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("scale", [1.0, 30.0])  # with the larger one softmaxes pick one entry
def test_it_is_its_definition(writes, scale):
    args = problem(scale=scale)
    close(read(*args, writes, chunk=4), plainly(*args, writes), 1e-4)


def test_without_a_stream_it_starts_from_the_initial_matrices():
    initial, x, _, _ = problem()
    at_start = jnp.broadcast_to(initial, (B, *initial.shape))
    close(read(initial, x), plainly(initial, x, at_start, None))


@functools.partial(jax.jit, static_argnames=("chunk", "remat"))
def gradient_of(initial, x, memory, reset, chunk, remat):
    def score(initial, x, memory):
        out = read_by_token(initial, x, memory, reset, chunk=chunk, remat=remat)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in out)

    return jax.value_and_grad(score, (0, 1, 2))(initial, x, memory)


@pytest.mark.parametrize(("chunk", "remat"), [(4, "chunk"), (1, "sqrt"), (64, "auto")])
def test_what_is_made_again_changes_nothing(chunk, remat):
    args = problem(1)
    close(gradient_of(*args, chunk, remat), gradient_of(*args, T, "none"))


def test_any_cut_is_no_cut():
    initial, x, memory, reset = problem(2)
    whole = read(initial, x, memory, reset, chunk=4)
    pieces = []
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        part = slice(start, stop)
        y, memory = read(initial, x[:, part], memory, reset[:, part], chunk=4)
        pieces.append(y)
    close((jnp.concatenate(pieces, 1), memory), whole)


def test_nothing_crosses_a_reset():
    """Neither values nor gradients; what comes after it starts from the initial matrices."""
    initial, x, memory, _ = problem(3)
    reset = jnp.zeros((B, T), bool).at[:, 5].set(True)

    def later(initial, x, memory):
        y, end = read_by_token(initial, x, memory, reset, chunk=4)
        return jnp.sum(y[:, 5:] ** 2) + jnp.sum(end**2)

    of_initial, of_x, of_memory = jax.jit(jax.grad(later, (0, 1, 2)))(initial, x, memory)
    assert not np.any(of_memory) and not np.any(of_x[:, :5])
    assert np.all(np.abs(of_x[:, 5:]).max((0, 2, 3)) > 0) and np.all(of_initial != 0)


def test_a_key_that_is_written_reads_like_the_query():
    """With one-hot keys and queries and a rate of one, the delta rule copies a column."""
    matrix = np.zeros((1, K, sum(SIZES)), np.float32)
    matrix[0, :, :K] = np.arange(9.0).reshape(3, 3)
    matrix[0, 0, K + 1] = matrix[0, 0, 2 * K + 2] = 1e3  # query 1 and key 2 of input 0
    matrix[0, 0, -4:] = 1e3
    memory = jnp.asarray(matrix)[None]
    _, after = step(memory, jnp.asarray([[[1.0, 0.0, 0.0]]]))
    np.testing.assert_allclose(after[0, 0, 2, :K], [3, 4, 5], rtol=1e-6)
    np.testing.assert_array_equal(after[0, 0, :2], matrix[0, :2])


def test_matrices_must_fit():
    initial, x, _, _ = problem()
    with pytest.raises(ValueError, match="need \\(2, 3, 13\\)"):
        read_by_token(initial[..., 1:], x)
