"""A pretrained model to a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from hope_jax.checkpoint.export import empty_folder, write_slow
from hope_jax.checkpoint.load import Loaded
from hope_jax.config import DataConfig, OptimConfig, TrainConfig, override
from hope_jax.config.paths import local_path
from hope_jax.models import LanguageModel, misfit
from hope_jax.models.in_context import with_slow_weights
from hope_jax.pretrained.gguf_file import GGUFFile
from hope_jax.pretrained.llama import params_of
from hope_jax.pretrained.safetensors_folder import SafetensorsFolder
from hope_jax.training.identity import describe_run, versions

LEARNING_RATE = 3e-5  # of training that goes on from weights that are good already


def read_pretrained(source: str | Path, changes: Mapping[str, Any] | None = None) -> Loaded:
    """A pretrained model, as `hope_jax.load` gives one that was trained here.

    Args:
      source: a .gguf file, or a folder with config.json, safetensors files and a tokenizer.
      changes: fields of its `TrainConfig` by dotted name, such as
        `{"model.cms.in_context.chunks": (64, 512)}`, that leave all weights as they are.

    Raises:
      FileNotFoundError: there is nothing at `source`.
      ValueError: what is there is damaged or has another form than Llama's, or `changes` do not
        fit.
      ImportError: the package that reads such files is not installed.
    """
    path = local_path(source, "the pretrained model")
    if not path.exists():
        raise FileNotFoundError(f"there is no model at {path}")
    model = SafetensorsFolder(path) if path.is_dir() else GGUFFile(path)
    form = model.form
    plain = form.model_config()
    config = TrainConfig(
        name=form.name,
        model=plain,
        data=DataConfig(length=min(form.context, 1024)),
        optim=OptimConfig(lr=LEARNING_RATE),
    )
    config = override(config, dict(changes or {}))
    tokenizer = model.tokenizer()
    if tokenizer.vocab_size > form.vocab_size:
        raise ValueError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} ids and the embedding "
            f"{form.vocab_size} rows"
        )
    params = params_of(form, model.read, str(path))
    params = with_slow_weights(config.model, params)
    wrong = misfit(config.model, params)
    if wrong is not None:
        where, has, needs = wrong
        raise ValueError(
            f"{path}: with these changes {where} would be {needs}, and the model has it {has}; "
            "change only what leaves the weights as they are"
        )
    return Loaded(
        config=config,
        model=LanguageModel(config.model),
        params=jax.device_put(params),
        tokenizer=tokenizer,
        step=0,
        versions=versions(),
        path=path,
    )


def convert(
    source: str | Path, folder: str | Path, changes: Mapping[str, Any] | None = None
) -> Path:
    """Write a pretrained model as a checkpoint, which all that reads models takes.

    Args:
      source: as in `read_pretrained`.
      folder: a new or an empty folder.
      changes: as in `read_pretrained`.

    Returns:
      the checkpoint that was written, `folder/0`.

    Raises:
      FileNotFoundError, ValueError, ImportError: as `read_pretrained`, and if `folder` is not
        empty.
      OSError: the disk is full, or cannot be written; the folder is as it was.

    >>> convert("models/none.gguf", "models/none")
    Traceback (most recent call last):
      ...
    FileNotFoundError: there is no model at models/none.gguf
    """
    folder = empty_folder(folder)  # before the work
    loaded = read_pretrained(source, changes)
    return write_slow(loaded, describe_run(loaded.config, loaded.tokenizer), folder)
