"""What becomes of a step's metrics: fetched, checked, written and shown."""

from __future__ import annotations

import jax

from hope_jax.config import TrainConfig
from hope_jax.training.answers import Answers
from hope_jax.training.clock import Clock
from hope_jax.training.evaluate import Evaluation
from hope_jax.training.finite import BadSteps
from hope_jax.training.hosts import InputTimes
from hope_jax.training.metrics import MetricsWriter
from hope_jax.training.progress import ProgressDisplay
from hope_jax.training.speed import SpeedMeter


class StepLog:
    """Takes in the outcome of every step, in order.

    Attributes:
      skipped: steps of the whole run that were not finite.
      bad_steps: those in a row at the moment.
    """

    def __init__(
        self,
        config: TrainConfig,
        display: ProgressDisplay,
        writer: MetricsWriter,
        meter: SpeedMeter,
        clock: Clock,
        inputs: InputTimes,
        bad_steps: BadSteps,
        skipped: int,
    ):
        self._config = config
        self._display = display
        self._writer = writer
        self._meter = meter
        self._clock = clock
        self._inputs = inputs
        self._last_moves: dict[str, float] = {}
        self.bad_steps = bad_steps
        self.skipped = skipped

    def take(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Take in a step; waits until the device has done it.

        Raises:
          NonFinite: too many steps in a row were not finite.
        """
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
        self.skipped = values["skipped"]
        self._meter.add(self._config.data.batch * self._config.data.length)
        self._display.step(step)
        first = self.bad_steps.see(step, values.pop("bad_tensor"))
        if first is not None:
            self._display.say(f"step {step} was not finite and is skipped; first: {first}")
            self._writer.write(step, values | {"first_bad": first})
            self.bad_steps.check()
            return
        # A slow level rarely moves at a step that is logged: its last move is shown.
        moves = {name: v for name, v in values.items() if name.startswith("update_norm/")}
        self._last_moves |= {name: norm for name, norm in moves.items() if norm}
        if step == 1 or step % self._config.log_every == 0:
            values |= self._last_moves | self._meter.report() | self._inputs.report()
            values["goodput"] = self._clock.goodput()
            self._clock.save()
            self._writer.write(step, values)
            self._display.log(step, values)

    def evaluation(self, step: int, found: Evaluation | Answers) -> None:
        """Take in an evaluation."""
        self._writer.write(step, found.logged())
        self._display.say(f"step {step}  {found.line()}")
