"""One small configuration of every task, with a length that fits and one that does not."""

from hope_jax.config.tasks import BabilongConfig, MQARConfig, NeedleConfig

# configuration, tokens of a text, a length that is too short (None: any will do); the stories
# of bAbI are put in by the tests
CASES = {
    "babilong": (BabilongConfig(), 300, 60),
    "mqar": (MQARConfig(pairs=3, keys=8, values=5), 20, 11),
    "niah": (NeedleConfig(digits=2), 240, 160),
    "niah_multikey": (NeedleConfig(form="multikey", digits=2, needles=2), 300, 200),
}
