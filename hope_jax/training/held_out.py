"""Held-out batches through a model, one after the other."""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
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

        def of_batch(params: Any, batch: Any, *, writes: bool, several: bool) -> Any:
            one = functools.partial(read, model, writes=writes)
            return (jax.vmap(one, in_axes=(0, None)) if several else one)(params, batch)

        self._read = jax.jit(
            of_batch,
            static_argnames=("writes", "several"),
            out_shardings=replicated(self._mesh),
        )

    def __call__(
        self,
        params: Any,
        held_out: Batches,
        batches: int,
        *,
        writes: bool,
        several: bool = False,
    ) -> Iterator[Any]:
        """What `read` gave of the first `batches` batches, or all there are, on the host.

        With `several` the parameters are those of several models along a first axis, and what
        was read has it too.
        """
        with contextlib.closing(iter(held_out)) as reader:
            for batch in itertools.islice(reader, batches):
                batch = place_batch(batch, held_out.rows, held_out.batch, self._mesh)
                yield jax.device_get(self._read(params, batch, writes=writes, several=several))


def apart(parts: Sequence[Any]) -> list[list[Any]]:
    """What was read of several models batch by batch, model by model.

    >>> apart([{"n": jax.numpy.array([1, 2])}, {"n": jax.numpy.array([3, 4])}])[1]
    [{'n': Array(2, dtype=int32)}, {'n': Array(4, dtype=int32)}]
    """
    models = len(jax.tree.leaves(parts[0])[0])
    return [
        [jax.tree.map(operator.itemgetter(i), part) for part in parts] for i in range(models)
    ]
