"""`hope prepare --beam`: the same by many workers."""

from __future__ import annotations

import argparse
import logging
import os

from hope_jax.cli.ending import sigterm_as_exit


def run(args: argparse.Namespace) -> None:
    """Prepare the data with Apache Beam and say what was made.

    Raises:
      ValueError: options that do not go together, or a mistake in the input.
      ImportError: Beam is not installed.
    """
    from hope_jax.cli.prepare import report, vocab_size

    if not args.input:
        raise ValueError(
            "--beam needs --input"
            + ("; prepare a TFDS dataset without --beam" if args.tfds else "")
        )
    for option in ("tfds", "feature", "split", "validation_split"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option.replace('_', '-')} and --beam exclude each other")
    if args.validation is not None and args.validation_input:
        raise ValueError("--validation is not needed where the held-out text is named")
    # the link to a job is worth reading, the inner life of the DirectRunner is not
    quiet = args.runner in (None, "DirectRunner")
    logging.getLogger().setLevel(logging.CRITICAL if quiet else logging.INFO)
    try:
        from hope_jax.data.beam.pipeline import prepare_with_beam
        from hope_jax.data.beam.plan import SHARD_BYTES, Plan
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "apache_beam":
            raise
        raise ValueError(
            '--beam needs Apache Beam: pip install "hope_jax[beam]", or "hope_jax[beam]" and '
            '"apache-beam[gcp]" for gs:// and Dataflow'
        ) from None
    from hope_jax.data.progress import byte_progress
    from hope_jax.data.tokenizers import make_tokenizer

    folder = _absolute(args.folder)
    learnt, size = args.tokenizer == "sentencepiece", vocab_size(args)
    given = None if learnt else make_tokenizer(args.tokenizer)
    plan = Plan.make(
        [_absolute(path) for path in args.input],
        f"sentencepiece {size}" if learnt else _identity(args.tokenizer, given),
        validation_paths=[_absolute(path) for path in args.validation_input or ()],
        pattern=args.pattern or "*",
        separator=args.separator,
        jsonl=args.jsonl,
        validation=0.1 if args.validation is None else args.validation,
        shard_bytes=SHARD_BYTES if args.shard_mb is None else args.shard_mb * 1_000_000,
    )
    within = folder.rstrip("/") + "/"
    names = [file.name for some in plan.files.values() for file in some]
    inside = [name for name in names if f"{name}/".startswith(within)]
    if inside:
        raise ValueError(f"{folder} holds {inside[0]}, which is input; choose a folder outside")

    def tokenizer(sample):
        if not learnt:
            return given
        return make_tokenizer("sentencepiece", vocab_size=size, documents=sample)

    total = sum(shard.size for shard in plan.shards())
    with sigterm_as_exit(), byte_progress("prepare", total) as advance:
        manifest = prepare_with_beam(
            folder,
            plan,
            tokenizer,
            _options(args.runner, args.passed_on),
            force=args.force,
            advance=advance,
        )
    report(folder, manifest)


def _options(runner: str | None, passed_on: list[str]) -> list[str]:
    """Options of Beam: one process per core where the work is done here and nothing else is
    said."""
    options = [f"--runner={runner or 'DirectRunner'}", *passed_on]
    direct = runner in (None, "DirectRunner")
    if direct and not any(option.startswith("--direct_") for option in passed_on):
        options += [
            f"--direct_num_workers={os.cpu_count()}",
            "--direct_running_mode=multi_processing",
            "--default_sdk_harness_log_level=CRITICAL",  # this process tells it too
        ]
    return options


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def _identity(spec: str, tokenizer) -> str:
    return spec if spec in ("byte", "byte+end") else f"file {tokenizer.fingerprint}"
