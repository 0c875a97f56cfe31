r"""Long short-term memory (Hochreiter and Schmidhuber 1997; forget gates: Gers et al. 2000).

Units of a head are connected, those of different heads are not::

    (i, f, g, o)_t = x_t + U h_{t-1}
    c_t = sigmoid(f_t) c_{t-1} + sigmoid(i_t) tanh(g_t)
    h_t = sigmoid(o_t) tanh(c_t)

where `x_t` is what the inputs give to the gates, for the whole sequence one product that is
taken before. What is left is as many sequential steps as there are tokens, of one product
each. The backward pass is written out for the same reason: as every state is known then, all
gates are one product, and so is the gradient of `U`, which a differentiated loop would add
to, and read and write, at every token. Its steps have one product each as well.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from hope_jax.ops.own_gradient import own_gradient

GATES = ("input", "forget", "candidate", "output")


@flax.struct.dataclass
class LSTMState:
    """What the units remember, float32.

    Attributes:
      h_BHK: outputs of the units.
      c_BHK: their cells.
    """

    h_BHK: jax.Array
    c_BHK: jax.Array


def initial_state(batch: int, heads: int, size: int) -> LSTMState:
    """Zeros, which a document starts from."""
    zeros = jnp.zeros((batch, heads, size), jnp.float32)
    return LSTMState(zeros, zeros)


def step(
    state: LSTMState, x_BHGK: jax.Array, u_HKGK: jax.Array, keep_B: jax.Array
) -> LSTMState:
    """One token.

    Args:
      state: before it.
      x_BHGK: what the input gives to the gates, in the order of `GATES`.
      u_HKGK: recurrent weights of every head; products have the type of `x`.
      keep_B: float32, 0 where the state is forgotten first, else 1.
    """
    keep_B11 = keep_B[:, None, None]
    z_BHGK = _recurrent(state.h_BHK * keep_B11, x_BHGK, u_HKGK)
    i, f, g, o = _activated(z_BHGK)
    c_BHK = f * (state.c_BHK * keep_B11) + i * g
    return LSTMState(o * jnp.tanh(c_BHK), c_BHK)


def read(
    x_BTHGK: jax.Array,
    u_HKGK: jax.Array,
    state: LSTMState | None = None,
    reset_BT: jax.Array | None = None,
) -> tuple[jax.Array, LSTMState]:
    """Outputs of the units after every token.

    Args:
      x_BTHGK: what the inputs give to the gates, in the order of `GATES`; at least one token.
      u_HKGK: recurrent weights; products have the type of `x`.
      state: state to go on from; None: zeros.
      reset_BT: True where the state is forgotten before the token.

    Returns:
      `(h_BTHK, state)`, float32.

    Gates that are wide open add up their candidates, until a document starts:

    >>> gates = jnp.array([9.0, 9.0, 0.1, 9.0])[:, None] * jnp.ones((1, 4, 1, 4, 1))
    >>> reset = jnp.array([[False, False, False, True]])
    >>> h, _ = read(gates, jnp.zeros((1, 1, 4, 1)), reset_BT=reset)
    >>> [round(float(output), 2) for output in h.ravel()]
    [0.1, 0.2, 0.29, 0.1]
    """
    batch, length, heads, _, size = x_BTHGK.shape
    if state is None:
        state = initial_state(batch, heads, size)
    keep_TB = jnp.ones((length, batch), jnp.float32)
    if reset_BT is not None:
        keep_TB = 1.0 - reset_BT.T.astype(jnp.float32)
    h_TBHK, c_BHK = _read(
        jnp.moveaxis(x_BTHGK, 1, 0), u_HKGK, keep_TB, state.h_BHK, state.c_BHK
    )
    return jnp.moveaxis(h_TBHK, 0, 1), LSTMState(h_TBHK[-1], c_BHK)


def _recurrent(h_BHK, x_BHGK, u_HKGK):
    """What the gates are computed of: `x + U h`, float32."""
    z_BHGK = jnp.einsum(
        "...hk,hkgl->...hgl",
        h_BHK.astype(x_BHGK.dtype),
        u_HKGK.astype(x_BHGK.dtype),
        preferred_element_type=jnp.float32,
    )
    return z_BHGK + x_BHGK.astype(jnp.float32)


def _activated(z_BHGK):
    i, f, g, o = jnp.moveaxis(z_BHGK, -2, 0)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


@own_gradient
def _read(x_TBHGK, u_HKGK, keep_TB, h_BHK, c_BHK):
    """`(all h, last c)`; time comes first."""

    def token(state, inputs):
        x_BHGK, keep_B = inputs
        state = step(state, x_BHGK, u_HKGK, keep_B)
        return state, state.h_BHK

    end, h_TBHK = jax.lax.scan(token, LSTMState(h_BHK, c_BHK), (x_TBHGK, keep_TB))
    return h_TBHK, end.c_BHK


def _read_forward(x_TBHGK, u_HKGK, keep_TB, h_BHK, c_BHK):
    def token(state, inputs):
        x_BHGK, keep_B = inputs
        state = step(state, x_BHGK, u_HKGK, keep_B)
        return state, state

    start = LSTMState(h_BHK, c_BHK)
    end, states = jax.lax.scan(token, start, (x_TBHGK, keep_TB))
    saved = x_TBHGK, u_HKGK, keep_TB, start, states
    return (states.h_BHK, end.c_BHK), saved


def _read_backward(saved, gradients):
    x_TBHGK, u_HKGK, keep_TB, start, states = saved
    dh_TBHK, dc_BHK = gradients
    keep_TB11 = keep_TB[..., None, None]
    # the state that each token found
    found = jax.tree.map(
        lambda first, later: jnp.concatenate([first[None], later[:-1]]) * keep_TB11,
        start,
        states,
    )
    i, f, g, o = _activated(_recurrent(found.h_BHK, x_TBHGK, u_HKGK))
    squashed = jnp.tanh(states.c_BHK)
    # derivatives of the cell by its gates, of the output by its gate and by the cell
    by_gate = (g * i * (1 - i), found.c_BHK * f * (1 - f), i * (1 - g * g))
    by_output_gate, by_cell = squashed * o * (1 - o), o * (1 - squashed * squashed)
    u_HKGK = u_HKGK.astype(x_TBHGK.dtype)

    def token(later, inputs):
        dh_BHK, dc_BHK = later
        of_output, keep_B, forget, by_gate, by_output_gate, by_cell = inputs
        dh_BHK = dh_BHK + of_output
        dc_BHK = dc_BHK + dh_BHK * by_cell
        dz = [dc_BHK * gate for gate in by_gate] + [dh_BHK * by_output_gate]
        dz_BHGK = jnp.stack(dz, axis=-2).astype(x_TBHGK.dtype)
        keep_B11 = keep_B[:, None, None]
        dh_BHK = keep_B11 * jnp.einsum(
            "bhgl,hkgl->bhk", dz_BHGK, u_HKGK, preferred_element_type=jnp.float32
        )
        return (dh_BHK, keep_B11 * forget * dc_BHK), dz_BHGK

    inputs = dh_TBHK, keep_TB, f, by_gate, by_output_gate, by_cell
    (dh_BHK, dc_BHK), dz_TBHGK = jax.lax.scan(
        token, (jnp.zeros_like(start.h_BHK), dc_BHK), inputs, reverse=True
    )
    du_HKGK = jnp.einsum(
        "tbhk,tbhgl->hkgl",
        found.h_BHK.astype(x_TBHGK.dtype),
        dz_TBHGK,
        preferred_element_type=jnp.float32,
    )
    du_HKGK = du_HKGK.astype(saved[1].dtype)
    return dz_TBHGK, du_HKGK, jnp.zeros_like(keep_TB), dh_BHK, dc_BHK


_read.defvjp(_read_forward, _read_backward)
