"""Held-out batches through a model, one after the other."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from hope_jax.data import Batches
from hope_jax.models import LanguageModel
from hope_jax.parallel import one_device, place_batch, replicated


class HeldOutReader:
    """Reads batches with a function that is compiled once for each kind of reading.

    Args:
      read: `(model, params, batch, *, writes)` to what is to be known of a batch.
      model: the language model.
      mesh: that of the parameters; one device by default.
    """

    def __init__(self, read: Callable[..., Any], model: LanguageModel, mesh: Mesh | None):
        self._mesh = mesh or one_device()
        self._read = jax.jit(
            functools.partial(read, model),
            static_argnames="writes",
            out_shardings=replicated(self._mesh),
        )

    def __call__(
        self, params: Any, held_out: Batches, batches: int, *, writes: bool
    ) -> Iterator[Any]:
        """What `read` gave of the first `batches` batches, or all there are, on the host."""
        with contextlib.closing(iter(held_out)) as reader:
            for batch in itertools.islice(reader, batches):
                batch = place_batch(batch, held_out.rows, held_out.batch, self._mesh)
                yield jax.device_get(self._read(params, batch, writes=writes))
