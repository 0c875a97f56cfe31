"""Compiled programs, kept between commands.

XLA compiles a training step of HOPE in half a minute to minutes, and a command that only
answers a prompt waits longer for compilers than for the model. JAX can keep what it has
compiled in a folder and knows by itself what may be used again: same program, versions,
devices and flags. Here it gets that folder. Nothing of this module imports JAX, which reads
these settings from the environment when it is imported first.

What the user says in JAX's own variables holds: `JAX_COMPILATION_CACHE_DIR` names another
folder, `JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform

COMMANDS = ("train", "sweep", "evaluate", "generate", "stream")
LIMIT = 4 * 2**30  # bytes; what was not used for longest goes first
_FOLDER = "JAX_COMPILATION_CACHE_DIR"
_SWITCH = "JAX_ENABLE_COMPILATION_CACHE"


def keep_programs(command: str, *, alone: bool = True) -> None:
    """Have JAX keep what this command compiles, in `programs` of the cache folder.

    Args:
      command: commands that measure compiling, or need none, keep nothing.
      alone: False for one process of several. GPUs tune programs together, and a process that
        found its own in the folder would leave the others waiting; set `_FOLDER` yourself
        where all of them see one folder.
    """
    if command not in COMMANDS or not alone or _FOLDER in os.environ:
        return
    if os.environ.get(_SWITCH, "true").lower() in ("0", "false", "no", "off"):
        return
    from hope_jax.config.paths import cache_folder  # other commands need no configuration

    folder = cache_folder() / "programs" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _shrink(folder.parent, LIMIT)
    except OSError:  # a home that cannot be written: compiling takes its time
        return
    os.environ[_FOLDER] = str(folder)


def _machine() -> str:
    """Code for a CPU stops another one that lacks an instruction, and homes are shared."""
    processor = platform.machine() + platform.processor()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        features = (line for line in lines if line.startswith(("flags", "Features")))
        processor += next(features, "")
    except OSError:  # not Linux
        pass
    return hashlib.sha256(processor.encode()).hexdigest()[:12]


def _shrink(folder: pathlib.Path, limit: int) -> None:
    """Remove what was not read for longest, until `limit` bytes are left."""
    files = []
    for path in folder.glob("*/*"):
        try:
            stat = path.stat()
        except FileNotFoundError:  # another command shrinks the folder too
            continue
        files.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size
