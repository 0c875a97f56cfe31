"""Flags with which the compiler takes the least time: `python tests/compiler_flags.py LEVEL`.

Compiling takes most of the time of tests on tiny shapes. Unoptimised code (level 0) compiles
in about half of it, and by the older emitter of fused loops in two thirds of what is left
(measured with jaxlib 0.10.2; 0.11 has it no more, and an unknown flag ends the process). Code
that is generated in one part, not split over threads, takes a seventh less of a test's time.
"""

import importlib.metadata
import sys


def quick(level: int) -> str:
    """`XLA_FLAGS` for code of this level of optimisation."""
    flags = [
        f"--xla_backend_optimization_level={level}",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
    version = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
    if version < (0, 11):
        flags.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join(flags)


if __name__ == "__main__":
    print(quick(int(sys.argv[1])))
