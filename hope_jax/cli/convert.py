"""Turn a pretrained Transformer into a checkpoint that hope reads.

Models of the Llama form (Llama, Qwen-2, SmolLM2) from a .gguf file, or from a folder in the
layout of Hugging Face with config.json, safetensors files and a tokenizer. The weights stay as
they are, and so does what the model predicts. Which of its MLPs learn from what the model
reads, and how fast, is chosen here with --set or later, when a stream is opened.

examples:
  hope convert SmolLM2-135M.gguf models/smollm2
  hope stream --workdir models/smollm2 --levels 32,128 --blocks 8 --rule adam --lr 0.001
  hope convert Qwen2-0.5B models/qwen2 --set "model.cms.in_context.chunks=(64,512)"
      --set model.cms.in_context.stack=interleaved
"""

from __future__ import annotations

import argparse

from hope_jax.cli.arguments import add_set

HELP = "turn a pretrained Llama-form model into a checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `hope convert`."""
    parser.add_argument("source", metavar="MODEL", help="a .gguf file, or a folder")
    parser.add_argument("folder", metavar="FOLDER", help="a new folder")
    add_set(parser)


def run(args: argparse.Namespace) -> None:
    """Convert, and say what came of it."""
    from hope_jax.checkpoint.storage import read_json
    from hope_jax.config import from_dict, parse_assignments
    from hope_jax.models import count_params
    from hope_jax.pretrained import convert

    path = convert(args.source, args.folder, parse_assignments(args.set))
    config = from_dict(read_json(path, ("contents", "config"))["config"]["config"])
    model, size = config.model, count_params(config.model).total
    print(
        f"{path}: {config.name}, {size:,} parameters in {model.depth} blocks of width "
        f"{model.dim}, vocabulary {model.vocab_size:,}; try hope generate --workdir "
        f"{args.folder}"
    )
