"""Many runs from one file, each its own folder, and one report over them."""

from hope_jax.config.sweeps import Point, grid, load_sweep
from hope_jax.sweeps.collect import Run, find_runs
from hope_jax.sweeps.report import write_report
from hope_jax.sweeps.runner import Ending, is_finished, run_points
from hope_jax.sweeps.tune import Row, rows_of, tune_rows

__all__ = [
    "Ending",
    "Point",
    "Row",
    "Run",
    "find_runs",
    "grid",
    "is_finished",
    "load_sweep",
    "rows_of",
    "run_points",
    "tune_rows",
    "write_report",
]
