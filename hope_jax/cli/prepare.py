"""`hope prepare`: turn text into token records that training reads."""

from __future__ import annotations

import argparse
import shlex

from hope_jax.cli.ending import sigterm_as_exit

HELP = "turn text into token records that training reads"
PASSES_ON = True  # options of Beam

_DESCRIPTION = """\
Write a folder with tokens (ArrayRecord), the tokenizer and a manifest. Training reads it
with --set data.path=FOLDER. The folder can be moved and copied.

Where the text comes from (the shipped Shakespeare plays if nothing is said):
  --input PATH ...   text files and folders; every file is one document, or several with
                     --separator LINE, or as JSON lines (also packed, .gz) with --jsonl FIELD
  --tfds FOLDER      a dataset that TFDS has prepared as array_record

What the tokens are:
  byte               one token per byte, vocabulary 256; takes any file, loses nothing
  byte+end           the same and one more token that ends a document
  sentencepiece      a subword vocabulary learnt from the training part (its first 64 MB)
  PATH               a SentencePiece .model or a Hugging Face tokenizer.json

The last tenth of the text is held out for validation. --validation changes how much,
--validation-input and --validation-split name other text; the plays have a fixed split.

More text than one machine is for: --beam has the work done by the workers of an Apache Beam
runner (pip install "hope_jax[beam]"), all cores of this machine if no runner is named. It
takes --input, also with globs and URLs such as gs://, writes shards, and the same command goes
on where it was stopped. The held-out part is then a fraction of documents, chosen by a hash
of their text. Options of Beam follow after --. See docs/data_at_scale.md.

--verify reads prepared data again and compares it with its checksums.
"""

_EXAMPLES = """\
examples:
  hope prepare data/plays
  hope prepare data/plays-4k --tokenizer sentencepiece --vocab-size 4096
  hope prepare data/notes --input notes/ --pattern '*.md' --validation 0.05
  hope prepare data/wiki --input wiki.train.txt --validation-input wiki.valid.txt
  hope prepare data/stories --input stories.txt --separator '<|endoftext|>'
  hope prepare data/lm1b --tfds ~/tensorflow_datasets/lm1b/1.1.0 --validation-split test \\
      --tokenizer tokenizer.json
  hope prepare data/c4 --beam --input 'c4/en/c4-train.*.json.gz' --jsonl text \\
      --validation-input 'c4/en/c4-validation.*.json.gz' --tokenizer tokenizer.json
  hope prepare data/c4 --verify
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the command line."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = _DESCRIPTION, _EXAMPLES
    parser.add_argument("folder", help="the new folder")
    parser.add_argument("--force", action="store_true", help="replace prepared data there")
    text = parser.add_argument_group("text")
    text.add_argument("--input", nargs="+", metavar="PATH", help="text files and folders")
    text.add_argument(
        "--validation-input", nargs="+", metavar="PATH", help="text files to hold out"
    )
    text.add_argument("--pattern", help="which files of a folder (default: all, '*')")
    text.add_argument("--separator", metavar="LINE", help="line that divides documents")
    text.add_argument(
        "--jsonl", metavar="FIELD", help="lines are JSON; the text is in this field"
    )
    text.add_argument("--tfds", metavar="FOLDER", help="prepared TFDS dataset")
    text.add_argument("--feature", help="feature with the text (default: text)")
    text.add_argument("--split", help="TFDS split to train on (default: train)")
    text.add_argument("--validation-split", metavar="SPLIT", help="TFDS split to hold out")
    text.add_argument(
        "--validation",
        type=float,
        metavar="FRACTION",
        help="part of the text that is held out (default: 0.1)",
    )
    tokens = parser.add_argument_group("tokens")
    tokens.add_argument("--tokenizer", help="byte (default), byte+end, sentencepiece or a file")
    tokens.add_argument(
        "--vocab-size", type=int, help="size of the sentencepiece vocabulary (default: 4096)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare prepared data with its checksums"
    )
    beam = parser.add_argument_group("many workers")
    beam.add_argument("--beam", action="store_true", help="work with Apache Beam, in shards")
    beam.add_argument(
        "--runner",
        metavar="NAME",
        help="DirectRunner (default: this machine), DataflowRunner, FlinkRunner, ...",
    )
    beam.add_argument(
        "--shard-mb",
        type=int,
        metavar="MB",
        help="input of a shard (default: 256); a larger file that is not packed is cut",
    )


def run(args: argparse.Namespace) -> None:
    """Prepare the data and say what was made."""
    from hope_jax.cli import prepare_beam

    args.passed_on = getattr(args, "passed_on", [])
    if args.verify:
        return _verify(args)
    args.tokenizer = "byte" if args.tokenizer is None else args.tokenizer
    if args.beam:
        return prepare_beam.run(args)
    for option in ("runner", "shard_mb", "passed_on"):
        if getattr(args, option):
            name = {"passed_on": "what follows --"}.get(option, f"--{option.replace('_', '-')}")
            raise ValueError(f"{name} belongs to --beam")

    from hope_jax.config.paths import local_path
    from hope_jax.data.prepare import check_target, prepare
    from hope_jax.data.progress import byte_progress
    from hope_jax.data.tokenizers import make_tokenizer

    folder = local_path(args.folder, "FOLDER without --beam").absolute()
    check_target(folder, args.force)  # before the work, not after it
    source = _source(args, folder)
    tokenizer = make_tokenizer(
        args.tokenizer,
        vocab_size=vocab_size(args),
        documents=lambda: source.documents("train"),
    )
    with sigterm_as_exit(), byte_progress("prepare", source.size()) as advance:
        manifest = prepare(folder, source, tokenizer, force=args.force, advance=advance)
    report(folder, manifest)


def vocab_size(args: argparse.Namespace) -> int:
    """Of a vocabulary that is learnt.

    Raises:
      ValueError: another tokenizer is asked for, with a size.
    """
    if args.vocab_size is not None and args.tokenizer != "sentencepiece":
        raise ValueError("--vocab-size belongs to --tokenizer sentencepiece")
    return 4096 if args.vocab_size is None else args.vocab_size


def report(folder, manifest) -> None:
    """Say what was made, and how to train on it."""
    print(f"{folder}: {manifest.tokenizer} tokens, vocabulary {manifest.vocab_size:,}")
    for split, info in manifest.splits.items():
        per_token = info.bytes / info.tokens if info.tokens else 0.0
        print(
            f"  {split}: {info.tokens:,} tokens, {info.documents:,} documents, "
            f"{info.bytes:,} bytes ({per_token:.2f} per token)"
            + (f", {info.empty_documents:,} empty left out" if info.empty_documents else "")
            + (f", {len(info.shards):,} shards" if info.shards else "")
        )
    print(
        "train with: hope train --config experiments/quickstart.py "
        f"--set data.path={shlex.quote(str(folder))}"
        + (
            f" --set model.vocab_size={manifest.vocab_size}"
            if manifest.vocab_size != 256
            else ""
        )
    )


def _verify(args: argparse.Namespace) -> None:
    """Compare the folder with its checksums."""
    from hope_jax.config.paths import local_path
    from hope_jax.data.manifest import Manifest
    from hope_jax.data.progress import byte_progress
    from hope_jax.data.verify import size_on_disk, verify

    own = ("command", "folder", "verify")
    given = [value for option, value in vars(args).items() if option not in own]
    if any(value is not None and value is not False and value != [] for value in given):
        raise ValueError("--verify reads what is in the folder; it takes no other option")
    folder = local_path(args.folder, "FOLDER of --verify").absolute()
    manifest = Manifest.read(folder)
    with byte_progress("verify", size_on_disk(manifest)) as advance:
        verify(folder, advance)
    shards = sum(len(info.shards) for info in manifest.splits.values())
    print(f"{folder} is what its manifest says" + (f" ({shards:,} shards)" if shards else ""))


def _source(args: argparse.Namespace, folder):
    """The text that the arguments name.

    Raises:
      ValueError: options that do not belong together.
    """
    import pathlib

    from hope_jax.data.sources import CorpusSource, TextSource

    kind = "--input" if args.input else "--tfds" if args.tfds else "the shipped corpus"
    if args.input and args.tfds:
        raise ValueError("--input and --tfds exclude each other")
    owners = {
        "validation_input": "--input",
        "pattern": "--input",
        "separator": "--input",
        "jsonl": "--input",
        "feature": "--tfds",
        "split": "--tfds",
        "validation_split": "--tfds",
    }
    for option, owner in owners.items():
        if getattr(args, option) is not None and kind != owner:
            name = option.replace("_", "-")
            raise ValueError(f"--{name} belongs to {owner}, but the text is {kind}")
    if args.validation is not None and (args.validation_input or args.validation_split):
        raise ValueError("--validation is not needed where the held-out text is named")
    validation = 0.1 if args.validation is None else args.validation
    if args.input:
        for path in [*args.input, *(args.validation_input or ())]:
            if folder.is_relative_to(pathlib.Path(path).absolute()):
                raise ValueError(
                    f"{folder} is inside the input {path} and would be read as text the next "
                    "time; choose a folder outside"
                )
        return TextSource(
            args.input,
            pattern=args.pattern or "*",
            separator=args.separator,
            jsonl=args.jsonl,
            validation=validation,
            validation_paths=args.validation_input or (),
        )
    if args.tfds:
        from hope_jax.data.tfds_source import TfdsSource

        return TfdsSource(
            args.tfds,
            feature=args.feature or "text",
            split=args.split or "train",
            validation_split=args.validation_split,
            validation=validation,
        )
    if args.validation is not None:
        raise ValueError("--validation: the shipped corpus has a fixed split")
    return CorpusSource()
