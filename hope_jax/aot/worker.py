"""The process in which the TPU compiler runs: it may crash, and takes this process along.

python -m hope_jax.aot.worker REQUEST.json REPORT.json
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from hope_jax.aot.hlo import Collective, find_collectives
from hope_jax.aot.programs import lower_decoding, lower_training
from hope_jax.aot.report import Report
from hope_jax.config import TrainConfig, from_json
from hope_jax.models import abstract_state, param_shapes
from hope_jax.models.flops import flops_of_next_token, flops_per_token
from hope_jax.parallel import check_batch, describe_mesh, make_mesh, use_mesh
from hope_jax.parallel.processes import die_with_parent
from hope_jax.parallel.slices import CHIPS_PER_HOST, Slice, find_slice


def work(request: dict[str, Any]) -> Report:
    """Compile what is asked for, and look at it."""
    config, where = from_json(request["config"]), find_slice(request["slice"])
    mesh = make_mesh(config.mesh, _devices(where, request["slices"]))
    training, what = request["program"] == "train", f"data.batch {config.data.batch}"
    if training:
        what += f" / accumulate {config.accumulate}"
    else:  # one token of all streams at once: there is nothing to accumulate
        config = dataclasses.replace(config, accumulate=1)
    check_batch(config.data.batch // config.accumulate, what, mesh)
    with use_mesh(mesh):
        lowered, arguments = (lower_training if training else lower_decoding)(config, mesh)
        facts = _known(config, where, request, mesh, arguments)
        began = time.perf_counter()
        try:
            compiled = lowered.compile()
        except Exception as error:  # the compiler's own types
            text = str(error)
            if "RESOURCE_EXHAUSTED" not in text and "hbm" not in text.lower():
                raise
            return Report(**facts, error=" ".join(text.split())[:2000])
        seconds = time.perf_counter() - began
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if keep := request.get("keep"):
        Path(keep).write_text(text)
    collectives = find_collectives(text)
    by_kind: dict[str, float] = {}
    for one in collectives:
        by_kind[one.kind] = by_kind.get(one.kind, 0.0) + one.moved
    return Report(
        **facts,
        peak=memory.peak_memory_in_bytes,
        temporary=memory.temp_size_in_bytes,
        collectives=by_kind,
        suspicious=tuple(_suspicious(collectives, config, mesh)),
        compile_seconds=seconds,
    )


def _devices(where: Slice, slices: int) -> list[Any]:
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if where.chips < CHIPS_PER_HOST:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if where.chip.name == "v4":
        options["chip_config_name"] = "megacore"
    name = f"{where.chip.name}:{where.grid}"
    described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    return list(described.devices)


def _known(
    config: TrainConfig, where: Slice, request: dict[str, Any], mesh: Mesh, arguments: Any
) -> dict[str, Any]:
    """What needs no compiler."""
    training, slices = request["program"] == "train", request["slices"]
    sizes = {name: _bytes(tree) for name, tree in arguments.items()}
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    rows, length = config.data.batch // parts, config.data.length
    state = abstract_state(config.model, rows // config.accumulate or 1, length)
    fast = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / mesh.shape["tensor"]
    sizes.setdefault("fast state", int(fast))
    tokens = config.data.batch * (length if training else 1)
    if training:
        total = tokens * flops_per_token(config.model, length).training
    else:
        total = tokens * flops_of_next_token(config.model, length).forward
    wide = jax.numpy.dtype(config.model.dtype).itemsize
    weights = sum(p.size for p in param_shapes(config.model).values())
    gathered = weights * wide / mesh.shape["tensor"]
    chunk = getattr(config.model.mixer, "chunk", None)
    if training:
        # The state of the optimizer is read and written once; every device reads the gathered
        # weights in each pass, and fast weights are read and written at every chunk.
        passes = 4 if config.model.remat == "block" else 3
        turns = length / chunk if chunk else 0
        traffic = 2 * (sizes["parameters"] + sizes["optimizer"])
        traffic += config.accumulate * (passes * gathered + 2 * passes * turns * fast)
    else:
        traffic = gathered + 2 * fast
    chips = where.chips * slices
    bandwidth = where.chip.bandwidth / where.chip.devices
    return {
        "config": config.name,
        "program": request["program"],
        "slice": where.name,
        "slices": slices,
        "topology": where.grid,
        "chips": chips,
        "hosts": where.hosts * slices,
        "devices": where.devices * slices,
        "mesh": describe_mesh(mesh),
        "parameters": weights,
        "tokens": tokens,
        "bytes": sizes,
        "usable": where.chip.hbm,
        "flops": total,
        "compute_seconds": total / (chips * where.chip.flops),
        "memory_seconds": traffic / bandwidth,
        "fsdp_bytes": _theory(config, mesh, gathered) if training else 0.0,
        "versions": {n: importlib.metadata.version(n) for n in ("jax", "jaxlib", "libtpu")},
    }


def _theory(config: TrainConfig, mesh: Mesh, gathered: float) -> float:
    """Bytes that a device must receive where weights are in parts.

    They are gathered for the forward pass and, unless kept, again for the backward pass;
    gradients are reduced by parts; copies of the model reduce what is left.
    """
    fsdp, data = mesh.shape["fsdp"], mesh.shape["data"]
    times = config.accumulate * (3 if config.model.remat == "block" else 2)
    inside = times * gathered * (fsdp - 1) / fsdp
    return inside + config.accumulate * 2 * gathered / fsdp * (data - 1) / data


def _bytes(tree: Any) -> int:
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
    )


def _suspicious(collectives: list[Collective], config: TrainConfig, mesh: Mesh) -> list[str]:
    """Collectives that no splitting of weights asks for, the largest first."""
    tensor = mesh.shape["tensor"]
    weights = set()
    for param in param_shapes(config.model).values():
        shape = param.shape[1:] if param.axes and param.axes[0] == "layers" else param.shape
        weights |= {math.prod(shape), math.prod(shape) // tensor}
    rows = config.data.batch // config.accumulate // (mesh.shape["data"] * mesh.shape["fsdp"])
    activations = rows * config.data.length * config.model.dim
    found = []
    for one in sorted(collectives, key=lambda c: -c.moved):
        sizes = [math.prod(dims) for _, dims in one.shapes]
        moves = one.kind in ("all-to-all", "collective-permute") and one.size > 4096
        gathers = one.kind == "all-gather" and any(n > 4096 and n not in weights for n in sizes)
        # tensor parallelism sums activations at the end of each part of a layer
        sums = one.kind == "all-reduce" and tensor == 1 and max(sizes) >= activations > 0
        if moves or gathers or (sums and max(sizes) not in weights):
            shapes = ", ".join(f"{t}{list(map(int, d))}" for t, d in one.shapes[:3])
            found.append(f"{one.kind} of {shapes}, {one.times} x a step, in {one.where[-120:]}")
    return found


def main() -> None:
    """Read the request, write the report."""
    die_with_parent()
    request = json.loads(Path(sys.argv[1]).read_text())
    if os.getppid() != request["parent"]:  # it ended while this one began
        return
    report = work(request)
    Path(sys.argv[2]).write_text(report.to_json())


if __name__ == "__main__":
    main()
