"""Write text with a trained model.

The text appears as it is written. --state-out keeps what the model remembers after it, and
--state-in goes on from there: the model has then read that text without reading it again.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path

from hope_jax.cli.arguments import add_checkpoint, check_writable, not_utf8

HELP = "write text with a trained model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_checkpoint(parser)
    parser.add_argument("--prompt", default="", metavar="TEXT", help="text to go on from")
    parser.add_argument(
        "--prompt-file", type=Path, metavar="FILE", help="read the prompt from a file"
    )
    parser.add_argument(
        "--tokens", type=int, default=256, metavar="N", help="at most (default: %(default)s)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="X",
        help="0 takes the likeliest token, and so does less than 1e-6 (default: %(default)s)",
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="draw among the K likeliest tokens"
    )
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="draw among the likeliest tokens up to P"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the random numbers"
    )
    parser.add_argument(
        "--state-in", type=Path, metavar="FILE", help="go on from what was kept there"
    )
    parser.add_argument(
        "--state-out", type=Path, metavar="FILE", help="keep what the model remembers"
    )


def run(args: argparse.Namespace) -> None:
    """Read the prompt, write the text, keep the state."""
    if args.prompt and args.prompt_file:
        raise ValueError("--prompt and --prompt-file are both given; use one of them")
    prompt = args.prompt_file.read_bytes() if args.prompt_file else os.fsencode(args.prompt)
    if args.state_out:
        check_writable("--state-out", args.state_out)

    import hope_jax
    from hope_jax.inference import generate, load_state, save_state
    from hope_jax.inference.generate import check_settings

    check_settings(args.tokens, args.temperature, args.top_k, args.top_p, args.seed)
    loaded = hope_jax.load(args.workdir)
    parts = (loaded.model, loaded.params, loaded.tokenizer)
    if not prompt and not args.state_in and loaded.tokenizer.begin_id is None:
        raise ValueError(
            "there is nothing to go on from; give --prompt TEXT, --prompt-file FILE or "
            "--state-in FILE"
        )
    state = load_state(args.state_in, *parts) if args.state_in else None
    try:
        loaded.tokenizer.encode(prompt)  # what it refuses is not shown first
    except UnicodeDecodeError as error:
        raise not_utf8(args.prompt_file or "--prompt", error) from None

    if isinstance(sys.stdout, io.TextIOWrapper):  # its encoding may lack some characters
        sys.stdout.reconfigure(errors="replace")

    def show(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    show(prompt.decode("utf-8", errors="replace"))
    out = generate(
        *parts,
        prompt,
        tokens=args.tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
        state=state,
        on_text=show,
    )
    show("\n")
    if args.state_out:
        save_state(args.state_out, out.state, *parts)
        print(f"state kept in {args.state_out}", file=sys.stderr)
