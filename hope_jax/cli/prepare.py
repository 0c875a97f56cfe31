"""`hope prepare`: turn text into token records that training reads."""

from __future__ import annotations

import argparse
import contextlib

HELP = "turn text into token records that training reads"

_DESCRIPTION = """\
Write a folder with tokens (ArrayRecord), the tokenizer and a manifest. Training reads it
with --set data.path=FOLDER. The folder can be moved and copied.

Where the text comes from (the shipped Shakespeare plays if nothing is said):
  --input PATH ...   text files and folders; every file is one document, or several with
                     --separator LINE
  --tfds FOLDER      a dataset that TFDS has prepared as array_record

What the tokens are:
  byte               one token per byte, vocabulary 256; takes any file, loses nothing
  byte+end           the same and one more token that ends a document
  sentencepiece      a subword vocabulary learnt from the training part (its first 64 MB)
  PATH               a SentencePiece .model or a Hugging Face tokenizer.json

The last tenth of the text is held out for validation. --validation changes how much,
--validation-input and --validation-split name other text; the plays have a fixed split.
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
    tokens.add_argument(
        "--tokenizer", default="byte", help="byte, byte+end, sentencepiece or a file"
    )
    tokens.add_argument(
        "--vocab-size", type=int, help="size of the sentencepiece vocabulary (default: 4096)"
    )


def run(args: argparse.Namespace) -> None:
    """Prepare the data and say what was made."""
    import pathlib

    from hope_jax.data.prepare import check_target, prepare
    from hope_jax.data.progress import byte_progress
    from hope_jax.data.tokenizers import make_tokenizer

    folder = pathlib.Path(args.folder).expanduser().absolute()
    check_target(folder, args.force)  # before the work, not after it
    source = _source(args, folder)
    if args.vocab_size is not None and args.tokenizer != "sentencepiece":
        raise ValueError("--vocab-size belongs to --tokenizer sentencepiece")
    tokenizer = make_tokenizer(
        args.tokenizer,
        vocab_size=4096 if args.vocab_size is None else args.vocab_size,
        documents=lambda: source.documents("train"),
    )
    with _tidy_end(), byte_progress("prepare", source.size()) as advance:
        manifest = prepare(folder, source, tokenizer, force=args.force, advance=advance)
    print(f"{folder}: {manifest.tokenizer} tokens, vocabulary {manifest.vocab_size:,}")
    for split, info in manifest.splits.items():
        per_token = info.bytes / info.tokens if info.tokens else 0.0
        print(
            f"  {split}: {info.tokens:,} tokens, {info.documents:,} documents, "
            f"{info.bytes:,} bytes ({per_token:.2f} per token)"
            + (f", {info.empty_documents:,} empty left out" if info.empty_documents else "")
        )
    print(
        f"train with: hope train --config experiments/quickstart.py --set data.path={folder}"
        + (
            f" --set model.vocab_size={manifest.vocab_size}"
            if manifest.vocab_size != 256
            else ""
        )
    )


@contextlib.contextmanager
def _tidy_end():
    """Let SIGTERM leave by an exception, so that what was begun is removed."""
    import signal
    import sys

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
