"""Configuration of data, training run and checkpoints."""

from __future__ import annotations

import dataclasses
from typing import Literal

from hope_jax.config.check import choose, require
from hope_jax.config.mesh import MeshConfig
from hope_jax.config.model import ModelConfig
from hope_jax.config.optim import OptimConfig
from hope_jax.config.tasks import CompressionConfig, TaskConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the token windows come from.

    `path` is a folder written by `hope prepare`; None means the corpus shipped with the
    package, which is prepared on first use under the cache folder. With a `task` the windows
    are its examples, which nothing but its rule makes, or its rule and the text of `path`.
    """

    task: TaskConfig | None = None
    path: str | None = None
    batch: int = 16  # sequences per step over all hosts
    length: int = 256  # tokens per sequence
    seed: int = 0  # order of the windows
    reset: Literal["document", "never"] = "document"  # forget fast state at document starts
    workers: int = 0  # reader processes; 0 reads in threads

    def __post_init__(self):
        for field in ("batch", "length"):
            value = getattr(self, field)
            require(
                1 <= value < 2**31,  # tokens and rows are counted with 32 bits
                f"data.{field} is {value}; use 1 to {2**31 - 1}",
            )
        require(self.seed >= 0, f"data.seed is {self.seed}; use 0 or more")
        require(self.workers >= 0, f"data.workers is {self.workers}; use 0 (threads) or more")
        choose("data.reset", self.reset, "document", "never")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that determines a training run."""

    name: str = "run"
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    mesh: MeshConfig = MeshConfig()
    # Weights that training begins with: of a run, a checkpoint, or what `hope convert` wrote;
    # None: random ones.
    start: str | None = None
    steps: int = 1_000
    seed: int = 0  # parameter initialisation and the sample; below 2 ** 32
    accumulate: int = 1  # micro-batches per step
    log_every: int = 10
    eval_every: int = 200
    eval_batches: int = 16
    checkpoint_every: int = 200
    keep_checkpoints: int = 3
    max_bad_steps: int = 10  # non-finite steps in a row before the run stops
    sample_tokens: int = 300  # length of the text printed at the end; 0: none
    sample_prompt: str = "\n"
    position_plot: bool = True  # loss by position, memory writes on and off
    ngrams: bool = True  # count n-gram models of the training text, to compare with
    # Of a task: what the trained model is judged by as well, each a text of changes of data.*
    # with spaces between, e.g. "data.length=100 data.task.shortest=51 data.task.longest=100".
    tests: tuple[str, ...] = ()
    # Of a task: training ends at the evaluation at which this share is right, held out and in
    # every test; None: after `steps`.
    enough: float | None = None

    def __post_init__(self):
        for field in (
            "steps",
            "accumulate",
            "log_every",
            "eval_every",
            "eval_batches",
            "checkpoint_every",
            "keep_checkpoints",
            "max_bad_steps",
        ):
            value = getattr(self, field)
            require(value >= 1, f"{field} is {value}; use at least 1")
        require(bool(self.name), "name is empty; a run needs one")
        require(
            0 <= self.seed < 2**32,  # JAX would take larger ones modulo this
            f"seed is {self.seed}; use 0 to {2**32 - 1}",
        )
        # what follows the last step must not fail for what could be known before the first
        require(
            self.sample_tokens >= 0,
            f"sample_tokens is {self.sample_tokens}; use 0 (no sample) or more",
        )
        require(
            bool(self.sample_prompt) or not self.sample_tokens,
            "sample_prompt is empty; give at least a newline, or set sample_tokens to 0",
        )
        require(
            self.data.task is not None or not self.tests,
            f"tests {self.tests} change a task, and data.task is None; choose one, or leave "
            "tests empty",
        )
        require(
            self.enough is None or (self.data.task is not None and 0 < self.enough <= 1),
            f"enough is {self.enough}; use a share of right answers to a task, above 0 and up "
            "to 1, or None",
        )
        told_back = isinstance(self.data.task, CompressionConfig)
        require(
            told_back == self.model.reconstruct,
            f"model.reconstruct is {self.model.reconstruct} and data.task "
            f"{self.data.task.type if self.data.task else None}; it is for the task "
            "compression, and that task needs it",
        )
        require(
            self.data.batch % self.accumulate == 0,
            f"data.batch {self.data.batch} is not a multiple of accumulate {self.accumulate}",
        )
