"""Small configurations of every task, with a length that fits and one that does not."""

from hope_jax.config.tasks import (
    BabilongConfig,
    CompressionConfig,
    CopyingConfig,
    FormalConfig,
    GroupConfig,
    InductionConfig,
    MemorizationConfig,
    MQARConfig,
    NeedleConfig,
    RecallConfig,
)

# configuration, tokens of a text, a length that is too short (None: any will do); the stories
# of bAbI are put in by the tests
CASES = {
    "babilong": (BabilongConfig(), 300, 60),
    "mqar": (MQARConfig(pairs=3, keys=8, values=5), 20, 11),
    "niah": (NeedleConfig(digits=2), 240, 160),
    "niah_multikey": (NeedleConfig(form="multikey", digits=2, needles=2), 300, 200),
    "recall": (RecallConfig(keys=4, values=4), 24, 8),
    "noisy_recall": (RecallConfig(keys=4, values=4, noise=0.3), 32, 8),
    "fuzzy_recall": (RecallConfig(keys=4, values=4, motif=3), 40, 24),
    "copying": (CopyingConfig(symbols=5, copied=4), 16, 7),
    "compression": (CompressionConfig(symbols=5), 9, 1),
    "induction": (InductionConfig(symbols=5), 12, 2),
    "memorization": (MemorizationConfig(keys=6, values=9), 9, 1),
    "group_s5": (GroupConfig(), 12, None),
    "group_a5": (GroupConfig(group="A5"), 12, None),
    "group_swaps": (GroupConfig(group="S3", swaps=True), 12, None),
    "parity": (FormalConfig(longest=16), 20, 15),
    "aa": (FormalConfig(language="aa", longest=64), 64, 63),
    "abab": (FormalConfig(language="abab", longest=80), 80, 79),
    "anbn": (FormalConfig(language="anbn", longest=60), 60, 59),
    "anbncn": (FormalConfig(language="anbncn", longest=90), 90, 89),
    "shuffle2": (FormalConfig(language="shuffle2", longest=20), 20, 19),
}
