"""A new language, then another: what is left of the first, with 0 to 3 levels that learn.

    pip install "hope_jax[pretrained]" sacrebleu
    hope convert smollm2.gguf models/smollm2
    python experiments/languages/run.py --base models/smollm2 --data kalamang/cldf \\
        --levels 0 1 2 3 --seed 0 1 2
    python experiments/languages/report.py runs/languages

A pretrained Transformer reads words and sentences of Kalamang with their English, then the
same of a language that was made up. After each it translates sentences that it has not read, of
both: with nothing in its context but four sentences that show what is wanted, and with the last
pages that it read before them. Without levels (0) only the context can help, which is
in-context learning; with levels the MLPs of the last blocks took steps while it read (level
stacking). A seed draws the sentences and the second language's words. A run that was stopped
goes on after the language that it had read; what is finished is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from languages.asking import ask
from languages.corpus import FILES, PUBLISHED, Language, ciphered, kalamang, read
from rich.progress import track

import hope_jax
from hope_jax import Stream
from hope_jax.checkpoint.whole_file import write_whole
from hope_jax.training.identity import device, versions

LEVELS = {0: (), 1: (64,), 2: (64, 256), 3: (64, 256, 1024)}  # tokens per update
PAGE = 160  # words that are read in one context
MAKE = kalamang, ciphered


def _option(default: Any, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class How:
    """How much is read, and how the levels learn: options of the command line."""

    entries: int = _option(100, "words of each language that are read")
    sentences: int = _option(200, "sentences of each language that are read")
    asked: int = _option(40, "sentences of each language that are asked")
    passes: int = _option(2, "how often all is read, in another order each time")
    lr: float = _option(3e-4, "rate of the levels")
    blocks: int = _option(8, "the last ones, whose MLPs learn")
    window: int = _option(1024, "tokens of the last pages, where they stand in the context")


def run(
    base: hope_jax.Loaded, data: Path, levels: int, seed: int, how: How, file: Path
) -> None:
    """Read both languages and ask after each; writes `file` after each.

    Raises:
      ValueError: `file` was begun with other settings.
    """
    source = read(data)
    languages = [make(source, seed, how.entries, how.sentences, how.asked) for make in MAKE]
    facts = {"levels": levels, "seed": seed, "how": dataclasses.asdict(how)}
    begun = facts | {"before": {}, "after": {}}
    found = json.loads(file.read_text()) if file.exists() else begun
    if any(found[name] != value for name, value in facts.items()):
        raise ValueError(f"{file} was measured with {found['how']}; give another --out")
    folder = file.with_suffix("")  # of the stream
    learning = {"lr": how.lr, "blocks": how.blocks, "stack": "interleaved", "rule": "adam"}
    stream = Stream.open(
        base, levels=LEVELS[levels], reservoir=0, **(learning if levels else {})
    )
    if not found["before"]:
        found["before"] = {of.name: {"empty": vars(ask(stream, of))} for of in languages}
    for number, language in enumerate(languages):
        if language.name in found["after"]:
            continue
        if levels and number:
            stream = Stream.load(folder, checkpoint=base)
        began = time.monotonic()
        pages = study(stream, language, how, seed)
        seconds = round(time.monotonic() - began, 1)
        if levels and language is not languages[-1]:
            stream.save(folder, keep=1)  # where a run that is stopped goes on
        context = with_pages(stream, pages, how.window)
        asked = {}
        for of in languages[: number + 1]:
            # without levels nothing has changed but the context
            empty = vars(ask(stream, of)) if levels else found["before"][of.name]["empty"]
            asked[of.name] = {"empty": empty, "context": vars(ask(context, of))}
        found["after"][language.name] = {
            "asked": asked,
            "tokens": sum(len(base.tokenizer.encode(page)) for page in pages),
            "seconds": seconds,
            "refused": stream.refused,
        }
        origin = {"base": base.config.name, "device": device(), "versions": versions()}
        text = json.dumps(found | origin, indent=1, ensure_ascii=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, text + "\n")
        scores = [f"{of} {known['empty']['chrf']}" for of, known in asked.items()]
        print(f"{file.stem}, after {language.name}: chrF {', '.join(scores)}", flush=True)


def study(stream: Stream, language: Language, how: How, seed: int) -> list[str]:
    """Read a language page by page, the context empty before each; returns what was read."""
    random, pages = np.random.default_rng(seed), []
    for _ in range(how.passes):
        mixed = lambda pairs: [pairs[i] for i in random.permutation(len(pairs))]
        entries, sentences = mixed(language.entries), mixed(language.sentences)
        again = dataclasses.replace(language, entries=entries, sentences=sentences)
        pages += again.pages(PAGE)
    if stream.learns:
        for page in track(pages, language.name, transient=True):
            stream.read(page)
            stream.forget_context()
    return pages


def with_pages(stream: Stream, pages: list[str], window: int) -> Stream:
    """A copy with the last pages in its context, as many as the window holds."""
    copy, encode, kept, tokens = stream.copy(), stream.base.tokenizer.encode, [], 0
    for page in reversed(pages):
        tokens += len(encode(page))
        if tokens > window:
            break
        kept.insert(0, page)
    copy.read("".join(kept), learn=False)
    return copy


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--base", type=Path, required=True, help="a model made by hope convert")
    made.add_argument(
        "--data", type=Path, required=True, help=f"{', '.join(FILES)}: {PUBLISHED}"
    )
    made.add_argument("--levels", type=int, nargs="+", default=[0], choices=LEVELS)
    made.add_argument("--seed", type=int, nargs="+", default=[0])
    made.add_argument("--out", type=Path, default=Path("runs/languages"))
    for field in dataclasses.fields(How):
        made.add_argument(
            f"--{field.name}", type=type(field.default), default=field.default,
            help=f"{field.metadata['help']} (%(default)s)",
        )  # fmt: skip
    return made


def main(argv: list[str] | None = None) -> None:
    """Measure levels and seeds that are not measured yet."""
    made = parser()
    args = made.parse_args(argv)
    how = How(**{field.name: getattr(args, field.name) for field in dataclasses.fields(How)})
    try:
        base = hope_jax.load(args.base)
        for seed, levels in itertools.product(args.seed, args.levels):
            file = args.out / f"levels_{levels}-seed_{seed}.json"
            run(base, args.data, levels, seed, how, file)
    except (ValueError, FileNotFoundError) as error:
        made.exit(2, f"{made.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
