"""Other data of a task that a model is judged by, and when it knows enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from hope_jax.config import DataConfig, TrainConfig, override, parse_assignments
from hope_jax.config.check import require
from hope_jax.data import TaskData, Tokenizer, open_dataset
from hope_jax.parallel import check_batch, local_rows
from hope_jax.training.answers import AnswerEvaluator, Answers


def tests_of(config: TrainConfig) -> dict[str, DataConfig]:
    """The data of `config.tests`, by their text.

    Raises:
      ValueError: one does not fit, or changes something else than data.

    >>> from hope_jax.config.tasks import MQARConfig
    >>> config = TrainConfig(data=DataConfig(task=MQARConfig()), tests=("data.length=96",))
    >>> tests_of(config)["data.length=96"].length
    96
    """
    return {
        text: other_data(config.data, text.split(), f"tests: {text!r}") for text in config.tests
    }


def other_data(data: DataConfig, sets: Sequence[str], where: str) -> DataConfig:
    """The data with some of its fields changed.

    Args:
      data: of a run.
      sets: such as `data.length=512`.
      where: they come from, for messages.

    Raises:
      ValueError: a change does not fit, or is of something else than data.
    """
    changes = {}
    for name, value in parse_assignments(list(sets)).items():
        require(
            name.startswith("data."),
            f"{where} changes {name}, but a trained model is judged by other data alone; name "
            "a field of data",
        )
        changes[name.removeprefix("data.")] = value
    return override(data, changes)


def open_tests(config: TrainConfig, tokenizer: Tokenizer, mesh: Mesh) -> dict[str, TaskData]:
    """Held-out examples of `config.tests`, by their text.

    A test may have a batch of its own, such as a smaller one for longer examples.

    Args:
      config: of the run.
      tokenizer: of its data.
      mesh: that shares the batches.

    Raises:
      ValueError: one does not fit, or the mesh cannot share its batch.
    """
    opened = {}
    for text, data in tests_of(config).items():
        check_batch(data.batch, f"tests: {text!r}: data.batch {data.batch}", mesh)
        rows = local_rows(data.batch, mesh)
        opened[text] = open_dataset(data, tokenizer, split="validation", rows=rows)
    return opened


def knows_enough(
    config: TrainConfig,
    params: Any,
    evaluator: AnswerEvaluator,
    found: Answers,
    tests: dict[str, TaskData],
) -> bool:
    """Whether `config.enough` of the answers are right, held out and in every test.

    Args:
      config: of the run.
      params: slow weights.
      evaluator: of the run.
      found: held out, with these weights.
      tests: from `open_tests`.
    """
    if config.enough is None or found.accuracy < config.enough:
        return False
    return all(
        evaluator(params, data, config.eval_batches).accuracy >= config.enough
        for data in tests.values()
    )
