"""Compile in a process of its own, and tell its end apart: done, too large, crashed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hope_jax.aot.report import Report
from hope_jax.config import TrainConfig, to_json
from hope_jax.errors import GaveUp
from hope_jax.parallel.slices import find_slice

_OWN = ("SIGSEGV", "SIGABRT", "SIGBUS")  # how the compiler ends by a mistake of its own
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # by default one process per machine may load it
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


class CompilerCrash(GaveUp):
    """The TPU compiler ended without an answer, which is its own mistake."""


class CompilerKilled(GaveUp):
    """The process of the TPU compiler was ended from outside."""


def compile_for(
    config: TrainConfig,
    where: str,
    *,
    slices: int = 1,
    program: str = "train",
    keep: Path | None = None,
    timeout: float | None = None,
) -> Report:
    """Compile a program of this configuration for a TPU slice that need not be there.

    Args:
      config: the run; `mesh` is that of the slice.
      where: product name or topology; see `hope_jax.parallel.slices.find_slice`.
      slices: how many.
      program: "train" or "decode".
      keep: a file for the text of the compiled program.
      timeout: seconds.

    Raises:
      ValueError: no such slice, a mesh or batch that does not fit it, or the package libtpu
        is not installed.
      CompilerCrash: the compiler died; nothing is said about the program.
      CompilerKilled: it was killed, which says nothing about program and compiler.
      TimeoutError: it took longer than `timeout`.
    """
    find_slice(where)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            "the TPU compiler is not installed; install the tpu extra: "
            "pip install 'hope_jax[tpu]'"
        )
    request: dict[str, Any] = {
        "config": to_json(config),
        "slice": where,
        "slices": slices,
        "program": program,
        "parent": os.getpid(),
        "keep": None if keep is None else str(Path(keep).absolute()),
    }
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder) / "request.json", Path(folder) / "report.json"
        asked.write_text(json.dumps(request))
        command = [sys.executable, "-m", "hope_jax.aot.worker", str(asked), str(told)]
        try:
            done = subprocess.run(
                command,
                env=os.environ | _ENVIRONMENT,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"compiling for {where} took more than {timeout:.0f} s; the time grows with "
                "what a layer does, not with the number of layers or chips"
            ) from None
        if told.exists():
            facts = json.loads(told.read_text())
            names = {field.name for field in dataclasses.fields(Report)}
            return Report(**{name: value for name, value in facts.items() if name in names})
    last = [line for line in done.stderr.strip().splitlines() if line.strip()][-1:]
    reason = last[0] if last else "it said nothing"
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        if name not in _OWN:
            why = " (by hand, or because the machine ran out of memory)"
            raise CompilerKilled(
                f"the process that compiled {config.name} for {where} was ended from outside "
                f"by {name}{why if name == 'SIGKILL' else ''}; try again"
            )
        raise CompilerCrash(
            f"the TPU compiler crashed ({name}) on {config.name} for {where}: {reason}. This "
            "says nothing about the program; try another mesh, or another version of libtpu"
        )
    if reason.startswith("ValueError: "):
        raise ValueError(reason.removeprefix("ValueError: "))
    raise CompilerCrash(f"compiling {config.name} for {where} failed: {reason}")
