"""The LSTM as a sequence mixer; its recurrence is `hope_jax.ops.lstm`."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from hope_jax.config import LSTMConfig, ModelConfig
from hope_jax.layers.heads import merge
from hope_jax.layers.linear import einsum, parameter, weight
from hope_jax.layers.per_device import BY_HEAD, BY_TIME, ROWS, WEIGHTS, on_each_device
from hope_jax.ops.lstm import GATES, LSTMState, initial_state, read


class LSTM(nn.Module):
    """Long short-term memory and an output projection.

    Hochreiter and Schmidhuber 1997, with forget gates (Gers et al. 2000) whose biases start
    at one (Jozefowicz et al. 2015). It takes as many sequential steps as there are tokens.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        state: LSTMState | None = None,
        reset_BT: jax.Array | None = None,
        writes: bool = True,
    ) -> tuple[jax.Array, LSTMState]:
        """Read every token.

        Args:
          x_BTD: normalised inputs.
          state: outputs and cells of the units; None: every row starts a document.
          reset_BT: True where a document starts.
          writes: changes nothing: an LSTM has no memory that learns, and its state goes on.
        """
        del writes
        mixer: LSTMConfig = self.config.mixer
        batch, time, dim = x_BTD.shape
        heads, size = mixer.heads, mixer.units(dim) // mixer.heads
        if time == 0:
            return x_BTD, initial_state(batch, heads, size) if state is None else state
        shape, axes = (heads, len(GATES), size), ("heads", None, "head_dim")

        def biases(key, shape, dtype):
            del key
            forget = jnp.arange(len(GATES)) == GATES.index("forget")
            at_first = jnp.where(forget, mixer.forget_bias, 0.0)[None, :, None]
            return jnp.broadcast_to(at_first, shape).astype(dtype)

        b_HGK = parameter(self, "b_gates", biases, shape, axes)
        w_DHGK = weight(self, "w_input", (dim, *shape), ("embed", *axes), dim**-0.5)
        w_HKGK = weight(
            self,
            "w_recurrent",
            (heads, size, len(GATES), size),
            ("heads", "memory", None, "head_dim"),
            size**-0.5,
            jnp.float32,
        )
        x_BTHGK = einsum("btd,dhgk->bthgk", x_BTD, w_DHGK)
        x_BTHGK = x_BTHGK + b_HGK.astype(x_BTD.dtype)[None, None]
        of_each = on_each_device(read, (BY_TIME, WEIGHTS, BY_HEAD, ROWS), (BY_TIME, BY_HEAD))
        h_BTHK, state = of_each(x_BTHGK, w_HKGK, state, reset_BT)
        return merge(self, self.config, h_BTHK.astype(x_BTD.dtype)), state
