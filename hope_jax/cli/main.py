"""The program `hope`: picks a subcommand and imports only that one.

A subcommand `x` is the module `hope_jax.cli.x` with `HELP`, `add_arguments(parser)` and
`run(args)`, which returns an exit status or None. With `PASSES_ON`, what follows a `--` is not
parsed here but in `args.passed_on`. This module imports nothing heavy, so
that `hope --help` answers at once.

Exit status: 0 done; 1 it does not fit (`hope aot`), or runs failed (`hope sweep`); 2 a mistake
that the user can mend, told in one message; 70 a program that does the work gave up: the TPU
compiler, a runner of Beam; 75 try again later: the other processes of a run did not come in
time, or another process trains in the folder; 130 and 143 stopped by Ctrl-C and by SIGTERM; 141
the reader of the output has gone.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

import hope_jax
from hope_jax.cli.programs import keep_programs
from hope_jax.errors import GaveUp, status_of

COMMANDS = {
    "train": "train a model, or go on with a run that was stopped",
    "sweep": "train all points of a sweep, or one of them by its index",
    "report": "compare finished runs in a table with plots",
    "prepare": "turn text into token windows that training reads",
    "evaluate": "measure a finished model on texts and benchmarks",
    "generate": "write text with a trained model",
    "stream": "talk with a model that learns from what it reads",
    "convert": "turn a pretrained Llama-form model into a checkpoint",
    "export": "write the slow weights of a run alone, to keep or to give away",
    "describe": "print the levels, parameters, state and cost of a model",
    "bench": "measure speed and memory of HOPE beside its baselines",
    "aot": "compile for a TPU slice without a TPU: memory, collectives, floor of a step",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own); returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="hope",
        description="Train HOPE language models, and look into them.",
        epilog="`hope COMMAND --help` says more. HOPE_TRACEBACK=1 shows where an error came "
        "from.",
    )
    parser.add_argument(
        "--version", action="version", version=f"hope_jax {hope_jax.__version__}"
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    parsers = {name: commands.add_parser(name, help=text) for name, text in COMMANDS.items()}

    chosen = next((word for word in argv if not word.startswith("-")), None)
    if chosen not in COMMANDS:
        parser.parse_args(argv)  # prints the help or the error, and exits
    module = importlib.import_module(f"hope_jax.cli.{chosen}")
    parsers[chosen].description = module.__doc__
    parsers[chosen].formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parsers[chosen])
    argv, passed_on = cut(module, argv)
    args = parser.parse_args(argv)
    args.passed_on = passed_on
    several = getattr(args, "distributed", False) or getattr(args, "coordinator", None)
    keep_programs(chosen, alone=not several)
    return _run(module, args)


def cut(module, argv: list[str]) -> tuple[list[str], list[str]]:
    """A command line in two: what `module` parses, and what it passes on to a library."""
    if not getattr(module, "PASSES_ON", False) or "--" not in argv:
        return argv, []
    place = argv.index("--")
    return argv[:place], argv[place + 1 :]


def _run(module, args: argparse.Namespace) -> int:
    try:
        return module.run(args) or 0
    except KeyboardInterrupt:
        print(f"hope {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `hope ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, GaveUp) as error:
        if os.environ.get("HOPE_TRACEBACK") == "1":
            raise
        return tell(args.command, error)


def tell(command: str, error: Exception) -> int:
    """Say in one message what was wrong; returns the exit status."""
    print(f"hope {command}: error: {_message(error)}", file=sys.stderr)
    return status_of(error)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
