"""What the paper leaves open about the memory: one answer changed at a time.

    hope prepare data/wikitext-2 --input wiki.train.tokens --validation-input wiki.valid.tokens
    hope sweep experiments/ablations/open_questions.py --local 2 --set data.path=data/wikitext-2
    hope report runs/open_questions

A variant changes the base in one answer: the inner objective, what delta gradient descent
decays, whether queries adapt, momentum, which state a token reads, and the chunks of the
main memory and of the memories that generate keys, values and rates. Besides, where retention
decays to and how much the main memory says. Two layers of width 128, 450,000 parameters, 600
steps of 1,024 bytes. Chunks of one token take a step per token: about ten times as long.
"""

from hope_jax.config import (
    DataConfig,
    ModelConfig,
    OptimConfig,
    SelfModifyingConfig,
    TrainConfig,
    grid,
)
from hope_jax.models import match_budget

CHUNK = 16
CHUNKS = (1, 4, 16, 64)
BASE = {"heads": 2, "chunk": CHUNK, "max_rate": 0.25}
CHANGES = {
    "base": {},
    "objective_dot": {"objective": "dot"},
    "scope_input_only": {"scope": "input_only"},
    "adaptive_q": {"adaptive": ("k", "v", "q", "eta", "alpha")},
    "momentum": {"momentum": "titans"},
    "read_chunk_start": {"read": "chunk_start"},
    "decay_to_zero": {"decay_to": "zero"},
    "value_expansion_2": {"value_expansion": 2},
    # The limit of the rate is the one that the project's defaults give for the longer chunk.
    **{
        f"memory_chunk_{c}": {"memory_chunk": c, "max_rate": min(1.0, 4 / max(c, CHUNK))}
        for c in CHUNKS
        if c != CHUNK
    },
    **{
        f"generator_chunk_{c}": {
            "chunk": c,
            "memory_chunk": CHUNK,
            "max_rate": min(1.0, 4 / max(c, CHUNK)),
        }
        for c in CHUNKS
        if c != CHUNK
    },
    **{
        f"both_chunks_{c}": {"chunk": c, "max_rate": min(1.0, 4 / c)}
        for c in CHUNKS
        if c != CHUNK
    },
}


def get_config(variant: str = "base") -> TrainConfig:
    """The run of one change."""
    if variant not in CHANGES:
        raise ValueError(f"variant {variant!r}; choose one of {', '.join(CHANGES)}")
    mixer = SelfModifyingConfig(**{**BASE, **CHANGES[variant]})
    model = ModelConfig(vocab_size=256, dim=128, depth=2, mixer=mixer)
    return TrainConfig(
        name=f"open_{variant}",
        model=model,
        data=DataConfig(batch=4, length=256),
        optim=OptimConfig(lr=6e-3, warmup=60, end_lr=0.1),
        steps=600,
        log_every=10,
        eval_every=600,
        eval_batches=8,
        checkpoint_every=300,
        sample_tokens=0,
        position_plot=False,
        ngrams=False,
    )


def finish(config: TrainConfig) -> TrainConfig:
    """The feed-forward part as wide as 0.45 M parameters allow."""
    return match_budget(config, 450_000)


def sweep():
    """Every change with three seeds."""
    yield from grid({"variant": [*CHANGES], ("seed", "data.seed"): [0, 1, 2]})
