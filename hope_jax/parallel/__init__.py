"""Devices, and where arrays live on them."""

from hope_jax.parallel.feed import check_batch, local_rows, place_batch
from hope_jax.parallel.mesh import (
    batch_parts,
    describe_mesh,
    make_mesh,
    one_device,
    use_mesh,
    within_a_copy,
)
from hope_jax.parallel.placement import (
    batch_sharding,
    bytes_per_device,
    param_shardings,
    replicated,
    state_shardings,
)
from hope_jax.parallel.rules import AXES, RULES, spec

__all__ = [
    "AXES",
    "RULES",
    "batch_parts",
    "batch_sharding",
    "bytes_per_device",
    "check_batch",
    "describe_mesh",
    "local_rows",
    "make_mesh",
    "one_device",
    "param_shardings",
    "place_batch",
    "replicated",
    "spec",
    "state_shardings",
    "use_mesh",
    "within_a_copy",
]
