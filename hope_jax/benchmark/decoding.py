"""Speed of writing: prefill, then one token at a time at batch 1."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.benchmark.cases import Settings, model_config
from hope_jax.benchmark.measure import spend
from hope_jax.benchmark.results import Decoding
from hope_jax.inference.apart import params_apart
from hope_jax.inference.sampling import sampling
from hope_jax.inference.stream import (
    STEPS,
    layers_apart,
    open_stream,
    read_pieces,
    step_tokens,
)
from hope_jax.models import LanguageModel, init_params


class DecodeCase:
    """Decoding with one model after `context` tokens."""

    def __init__(self, name: str, context: int, settings: Settings):
        config = model_config(name, settings)
        self._model = LanguageModel(config)
        self._params = init_params(config, jax.random.key(0))
        self._apart = params_apart(self._params)
        self._context = context
        self._vocab = settings.vocab_size
        dispatches = -(-settings.decode_tokens // STEPS)
        self.result = Decoding(name, context, dispatches * STEPS, 0)
        self._steps(self._steps(self._prefill()), dispatches=1)  # compile

    def measure(self) -> None:
        """One round."""
        stream, prefill = spend(self._prefill)
        stream, spent = spend(lambda: self._steps(stream, self.result.tokens // STEPS))
        self.result.prefill.append(prefill)
        self.result.spent.append(spent)
        self.result.state_bytes = stream.nbytes

    def _prefill(self) -> Any:
        """A stream after the context, its layers apart to write on."""
        ids_BT = np.random.default_rng(0).integers(0, self._vocab, (1, self._context))
        room = self._context + self.result.tokens + STEPS
        stream = open_stream(self._model, self._params, room)
        stream, _, rest_BT = read_pieces(self._model, self._params, stream, ids_BT)
        stream = layers_apart(self._model, stream)
        for start in range(0, rest_BT.shape[1], STEPS):
            stream = self._step(stream, rest_BT[:, start : start + STEPS])
        return stream

    def _steps(self, stream: Any, dispatches: int = 1) -> Any:
        nothing_BN = np.zeros((1, 0), np.int32)
        for _ in range(dispatches):
            stream = self._step(stream, nothing_BN)
        return stream

    def _step(self, stream: Any, given_BT: np.ndarray) -> Any:
        given = given_BT.shape[1]
        given_BN = np.zeros((1, STEPS), np.int32)
        given_BN[:, :given] = given_BT
        keys_B = jax.random.split(jax.random.key(0), 1)
        return step_tokens(
            self._model,
            self._apart,
            stream,
            jnp.asarray(given_BN),
            given,
            given or STEPS,
            keys_B,
            how=sampling(),
            vocab=self._vocab,
        ).stream
