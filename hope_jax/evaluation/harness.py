"""A model of this package for EleutherAI's lm-evaluation-harness.

The harness (`pip install hope_jax[harness]`) knows models of its own alone and looks for no
others, so its program is started from here; what follows is what `python -m lm_eval` takes:

    python -m hope_jax.evaluation.harness --model hope --model_args workdir=DIR --tasks piqa

In a program, importing this module registers the model, and `HopeLM` may be given to
`lm_eval.simple_evaluate` as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import hope_jax
from hope_jax.config.check import require
from hope_jax.evaluation.rows import pair_row, text_row
from hope_jax.evaluation.scorer import Scorer
from hope_jax.inference.apart import params_apart
from hope_jax.inference.generate import write
from hope_jax.inference.learning import Mode
from hope_jax.inference.reading import beginning, encode
from hope_jax.inference.sampling import sampling
from hope_jax.inference.stream import open_stream, read_ids

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from tqdm import tqdm
except ImportError as error:
    raise ImportError(
        "this needs the lm-evaluation-harness: pip install 'hope_jax[harness]', or lm_eval"
    ) from error


@register_model("hope")
class HopeLM(LM):
    """A checkpoint as the harness wants a model.

    No text is cut short, whatever its length: the state goes on from piece to piece. Contexts
    that several requests have in common are read once for each batch.

    Args:
      workdir: folder of a run or of one checkpoint, as `hope_jax.load` takes it.
      batch_size: rows side by side; "auto" is 16.
      max_gen_toks: tokens of a text that is written, where the task does not say.
      writes: False reads without updates of memories, those of the CMS included.
      seed: of texts that are drawn.
      device: unused; JAX chooses it, from JAX_PLATFORMS in the environment where that is set.
      max_batch_size: unused; the harness gives both to every model.
    """

    def __init__(
        self,
        workdir: str | Path,
        batch_size: int | str = 16,
        max_gen_toks: int = 256,
        writes: bool = True,
        seed: int = 0,
        device: str | None = None,
        max_batch_size: int | None = None,
    ):
        super().__init__()
        del device, max_batch_size
        batch = 16 if str(batch_size).startswith("auto") else int(batch_size)
        loaded = hope_jax.load(workdir)
        self._mode = Mode(writes=writes)
        self.scorer = Scorer(
            loaded.model, loaded.params, loaded.tokenizer, batch=batch, mode=self._mode
        )
        self._most, self._seed = max_gen_toks, seed

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log probability of each continuation, and whether it is the greedy one."""
        scorer, items = self.scorer, {}
        for number, request in enumerate(requests):
            items.setdefault(request.args[0], []).append(number)
        row = lambda number: pair_row(scorer.model, scorer.tokenizer, *requests[number].args)
        rows = [[row(number) for number in numbers] for numbers in items.values()]
        found: list[Any] = [None] * len(requests)
        with tqdm(total=len(requests), desc="loglikelihood", disable=disable_tqdm) as bar:
            scores = scorer.score(rows, bar.update)
        for numbers, of_item in zip(items.values(), scores, strict=True):
            for number, score in zip(numbers, of_item, strict=True):
                found[number] = (score.log_probability, score.greedy)
                self.cache_hook.add_partial(
                    "loglikelihood", requests[number].args, found[number]
                )
        return found

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Log probability of each text, read as a whole."""
        scorer = self.scorer
        rows = [
            [text_row(scorer.model, scorer.tokenizer, request.args[0])] for request in requests
        ]
        with tqdm(total=len(rows), desc="loglikelihood_rolling", disable=disable_tqdm) as bar:
            scores = scorer.score(rows, bar.update)
        found = [score.log_probability for [score] in scores]
        for request, value in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts that go on from contexts, up to the first of the `until` texts."""
        apart, texts = params_apart(self.scorer.params), []
        for request in tqdm(requests, desc="generate_until", disable=disable_tqdm):
            context, how = request.args
            texts.append(self._write(apart, context, dict(how)))
            self.cache_hook.add_partial("generate_until", request.args, texts[-1])
        return texts

    def _write(self, apart: Any, context: str, how: dict[str, Any]) -> str:
        scorer = self.scorer
        model, tokenizer = scorer.model, scorer.tokenizer
        until = how.get("until") or []
        until = [until] if isinstance(until, str) else until
        until = [stop for stop in until if stop]  # an empty one is in every text
        tokens = int(how.get("max_gen_toks", self._most))
        draws = how.get("do_sample", how.get("temperature", 0) > 0)
        temperature = float(how.get("temperature", 1.0)) if draws else 0.0
        drawing = sampling(temperature, how.get("top_k"), how.get("top_p"))
        ids_T = np.concatenate([beginning(model, tokenizer), encode(model, tokenizer, context)])
        if not len(ids_T):
            require(tokenizer.end_id is not None, "a text cannot begin from an empty context")
            ids_T = np.asarray([tokenizer.end_id], np.int32)
        stream = open_stream(model, scorer.params, len(ids_T) + tokens)
        stream, _ = read_ids(
            model, scorer.params, apart, stream, ids_T[None], tokenizer.vocab_size, self._mode
        )
        text = ""
        pieces = write(
            model, apart, tokenizer, stream, tokens, drawing, self._seed, self._mode, ids_T
        )
        for piece in pieces:
            text += piece.text
            if any(stop in text for stop in until):
                break
        return _before(text, until)


def _before(text: str, until: Iterable[str]) -> str:
    """The text up to the first of `until` in it."""
    places = [text.find(stop) for stop in until]
    return text[: min((place for place in places if place >= 0), default=len(text))]


def main() -> None:
    """The harness's own program, with the model `hope`."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
