"""What a run was made with: versions and device, for checkpoints and summaries."""

from __future__ import annotations

import base64
import importlib.metadata
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import hope_jax
from hope_jax.config import TrainConfig, to_dict
from hope_jax.data import Tokenizer
from hope_jax.parallel import describe_mesh, one_device

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of what the numbers depend on."""
    return {
        "hope_jax": hope_jax.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def device(mesh: Mesh | None = None) -> dict[str, Any]:
    """The devices of a mesh (default: one), how they share the work, and the processors."""
    mesh = mesh or one_device()
    first = mesh.devices.flat[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": mesh.devices.size,
        "mesh": describe_mesh(mesh),
        "processes": jax.process_count(),
        "cpus": _cpus(),
        "machine": platform.machine(),
    }


def _cpus() -> int | None:
    """Processors that this process may use, or, where the system does not say, all."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def describe_run(config: TrainConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What travels inside every checkpoint: configuration, versions and tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        files = {
            path.name: base64.b64encode(path.read_bytes()).decode()
            for path in Path(folder).iterdir()
        }
    return {"config": to_dict(config), "versions": versions(), "tokenizer": files}
