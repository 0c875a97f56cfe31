"""One small configuration of every task, with a length that fits and one that does not."""

from hope_jax.config.tasks import MQARConfig

# configuration, tokens of a text, a length that is too short (None: any will do)
CASES = {
    "mqar": (MQARConfig(pairs=3, keys=8, values=5), 20, 11),
}
