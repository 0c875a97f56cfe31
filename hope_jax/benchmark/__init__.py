"""Speed and memory of HOPE beside its baselines, in one process on the same shapes."""

from hope_jax.benchmark.cases import MODELS, QUICK, Settings
from hope_jax.benchmark.results import Results
from hope_jax.benchmark.run import benchmark

__all__ = ["MODELS", "QUICK", "Results", "Settings", "benchmark"]
