"""A model that goes on learning: streams that read, answer, sleep, and are kept."""

from hope_jax.inference.limits import NO_LIMITS, Limits
from hope_jax.streams.many import ManyStreams
from hope_jax.streams.sleep import Sleep, SleepReport
from hope_jax.streams.stream import Stream

__all__ = ["NO_LIMITS", "Limits", "ManyStreams", "Sleep", "SleepReport", "Stream"]
