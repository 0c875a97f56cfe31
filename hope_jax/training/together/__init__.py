"""Runs that differ in seeds and learning rate alone, trained as one program.

A small model leaves an accelerator idle most of the time, and much of a short run's time goes
into compiling. So the runs are stacked along a first axis, and `jax.vmap` of the ordinary step
trains all of them; each has its own folder with all that a run of its own would have written,
and may go on alone.
"""

from hope_jax.training.together.alike import MAY_DIFFER, common
from hope_jax.training.together.loop import train_together

__all__ = ["MAY_DIFFER", "common", "train_together"]
