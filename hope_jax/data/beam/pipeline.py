"""Prepare a folder with Apache Beam: plan, tokenizer, shards by many workers, manifest."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pathlib
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from hope_jax.data.beam.plan import FINISHED, Plan, Shard
from hope_jax.data.beam.shards import ShardWriter, read_documents, read_shard, read_tokenizer
from hope_jax.data.beam.storage import Folder
from hope_jax.data.builder import describe_shards
from hope_jax.data.documents import Document, text_boundary
from hope_jax.data.manifest import FILE as MANIFEST_FILE
from hope_jax.data.manifest import PLAN_FILE, Manifest, ShardInfo, SplitInfo
from hope_jax.data.prepare import SPLITS
from hope_jax.data.records import RECORD, records_of, token_dtype
from hope_jax.data.tokenizers import Tokenizer, tokenizer_files
from hope_jax.data.tokenizers.sentence_piece import TRAINING_BYTES
from hope_jax.errors import GaveUp

_WRITE = "write shards"
_SAMPLED = 64  # shards that a tokenizer is trained on
_LOOK = 5.0  # seconds between two looks at what is finished


class RunnerGaveUp(GaveUp):
    """The runner ended without all shards, for a reason that is in no text and no option."""


def prepare_with_beam(
    folder: str,
    plan: Plan,
    tokenizer: Callable[[Callable[[], Iterator[Document]]], Tokenizer],
    options: Sequence[str] = (),
    *,
    force: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Manifest:
    """Write the shards of `plan` into `folder`, or those that are not there yet.

    Args:
      folder: absolute or a URL; workers have to reach it under the same name.
      plan: what to read.
      tokenizer: called at most once, with a function that gives a sample of the training
        text, for tokenizers that learn.
      options: of Beam, such as "--runner=DirectRunner".
      force: begin anew, also where the folder holds other prepared data.
      advance: called with the number of bytes of input done.

    Returns:
      What `manifest.json` in the folder says.

    Raises:
      ValueError: the folder holds something else, text that is empty or that the tokenizer
        refuses.
      OSError: the folder cannot be written.
      RunnerGaveUp: for another reason; what is finished is kept.
    """
    settings = PipelineOptions(list(options))
    FileSystems.set_options(settings)
    place = Folder(folder)
    _claim(place, plan, force)
    place.clear_unfinished()
    if read_tokenizer(place) is None:
        _save(tokenizer(lambda: _sample(plan)), place)
    shards = plan.shards()
    with _watching(place, shards, advance):
        _run(folder, len(shards), settings)
    manifest = _merge(place, plan, shards)
    place.clear_unfinished()
    return manifest


class _WriteShard(beam.DoFn):
    """Index of a shard -> the index, when it is written.

    Workers read plan and tokenizer from the folder: a list of a million files does not fit
    into the description of a job.
    """

    def __init__(self, folder: str):
        self._folder = folder

    def setup(self):
        self._writer = ShardWriter(Folder(self._folder))

    def process(self, index: int):
        self._writer.write(index)
        yield index


def _run(folder: str, shards: int, options: PipelineOptions) -> None:
    try:
        pipeline = beam.Pipeline(options=options)
        _ = (
            pipeline
            | "list shards" >> beam.Create(range(shards), reshuffle=False)
            | "spread over workers" >> beam.Reshuffle()
            | _WRITE >> beam.ParDo(_WriteShard(folder))
        )
        pipeline.run().wait_until_finish()
    except Exception as error:  # runners wrap what a worker raised in their own types
        raise _mistake(error) from error


def _claim(folder: Folder, plan: Plan, force: bool) -> None:
    """Make the folder that of `plan`.

    Raises:
      ValueError: it holds something else.
    """
    ours = (PLAN_FILE, MANIFEST_FILE, *tokenizer_files())
    old = None if force else Plan.read(folder)
    changes = old.differences(plan) if old is not None else []
    if changes and folder.find(FINISHED):
        lines = "\n  ".join(changes)
        raise ValueError(
            f"{folder} was begun with other input or options:\n  {lines}\n"
            "give those of before to go on, choose another folder, or begin anew with --force"
        )
    if old is not None and not changes:
        return
    begun = any(folder.read(name) is not None for name in ours[:2])
    if begun and not force and old is None:
        raise ValueError(f"{folder} is already prepared; use --force to replace it")
    if begun:  # a plan of which nothing is done yet gives way without --force
        splits = [f"{split}-*/**" for split in SPLITS]
        folder.clear(*ours, FINISHED, *splits)
    elif folder.find("*") or folder.find("*/**"):
        raise ValueError(f"{folder} exists and is not prepared data; choose another folder")
    plan.write(folder)


def _save(tokenizer: Tokenizer, folder: Folder) -> None:
    with tempfile.TemporaryDirectory(prefix="hope-") as local:
        tokenizer.save(local)
        for path in pathlib.Path(local).iterdir():
            folder.write(path.name, path.read_bytes())


def _sample(plan: Plan) -> Iterator[Document]:
    """Training text for a tokenizer, from the whole corpus: equal parts of evenly spaced
    shards, or everything if it is not more than is learnt from."""
    shards = [shard for shard in plan.shards() if shard.split == "train"]
    if sum(shard.size for shard in shards) <= TRAINING_BYTES:
        for shard in shards:
            yield from read_documents(plan, shard)
        return
    count = min(_SAMPLED, len(shards))
    for index in range(count):
        left = TRAINING_BYTES // count
        for document in read_documents(plan, shards[index * len(shards) // count]):
            if len(document.data) > left:
                yield document.slice(0, text_boundary(document.data, left))
                break
            yield document
            left -= len(document.data)


def _merge(folder: Folder, plan: Plan, shards: Sequence[Shard]) -> Manifest:
    """Make the manifest of the manifests of the shards."""
    tokenizer = read_tokenizer(folder)
    dtype = token_dtype(tokenizer.vocab_size)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:  # it waits, mostly
        read = lambda shard: read_shard(folder, shard, tokenizer.fingerprint)
        infos = list(pool.map(read, shards))
    missing = [shard.file for shard, info in zip(shards, infos, strict=True) if info is None]
    if missing:
        raise RunnerGaveUp(
            f"the workers have ended, but {len(missing)} shards are missing, the first is "
            f"{missing[0]}; run the same command again"
        )
    splits = {}
    for split in SPLITS:
        own = [info for shard, info in zip(shards, infos, strict=True) if shard.split == split]
        splits[split] = SplitInfo.merge(own)
        if own:
            _describe(folder, split, own, dtype)
    if not splits["train"].tokens:
        raise ValueError("there is no text to train on: every document is empty or held out")
    manifest = Manifest(
        source=plan.describe(),
        tokenizer=tokenizer.name,
        fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        dtype=np.dtype(dtype).name,
        record=RECORD,
        part=max(info.records for info in splits.values()),  # one dataset each
        splits=splits,
    )
    folder.write(MANIFEST_FILE, manifest.text().encode())
    return manifest


def _describe(folder: Folder, split: str, infos: Sequence[ShardInfo], dtype) -> None:
    with tempfile.TemporaryDirectory(prefix="hope-") as local:
        root = pathlib.Path(local)
        records = [records_of(info.tokens) for info in infos]
        size = sum(info.file_bytes for info in infos)
        for name in describe_shards(root, split, records, size, dtype):
            folder.write(name, (root / name).read_bytes())


@contextlib.contextmanager
def _watching(folder: Folder, shards: Sequence[Shard], advance) -> Iterator[None]:
    """Report the input of shards that are finished, whichever runner finishes them."""
    sizes = {shard.manifest: shard.size for shard in shards}
    ended = threading.Event()

    def look() -> None:
        for name in sizes.keys() & folder.find(FINISHED).keys():
            advance(sizes.pop(name))

    def watch() -> None:
        while not ended.wait(_LOOK):
            with contextlib.suppress(OSError):  # a listing that failed is tried again
                look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    look()


def _mistake(error: Exception) -> Exception:
    """The `ValueError` or `OSError` of a worker that a runner's error tells of, if any."""
    text = str(error)
    told = rf"^(?:.*: )?(ValueError|OSError): (.*) \[while running '{_WRITE}"
    own = re.findall(told, text, re.MULTILINE)
    if own:
        kind, message = own[-1]
        return {"ValueError": ValueError, "OSError": OSError}[kind](message)
    if isinstance(error, ValueError | OSError):
        return type(error)(text.partition(" [while running '")[0])
    return RunnerGaveUp(f"the runner gave up: {text}")
