"""What the TPU compiler says of a step, without a TPU: does it fit, and what crosses chips."""

from hope_jax.aot.hlo import Collective, find_collectives
from hope_jax.aot.report import Report
from hope_jax.aot.run import CompilerCrash, CompilerKilled, compile_for

__all__ = [
    "Collective",
    "CompilerCrash",
    "CompilerKilled",
    "Report",
    "compile_for",
    "find_collectives",
]
