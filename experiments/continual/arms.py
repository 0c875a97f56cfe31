"""The models that are compared, of one size."""

from __future__ import annotations

import dataclasses

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    DataConfig,
    GatedDeltaNetConfig,
    InContextConfig,
    M3Rule,
    ModelConfig,
    OptimConfig,
    SelfModifyingConfig,
    TrainConfig,
)
from hope_jax.models import count_params, match_params

LENGTH, BATCH, STEPS = 384, 16, 1200
# In training. Of few facts any value is a good guess, and a model that only guesses among those
# that it read does not learn which name has which.
FACTS = (4, 16)
# Training begins with a few sentence forms: which name has which value is learnt from them
# sooner, and the other forms are then soon learnt too.
FEW_FORMS = 3  # leads, and cores, of each kind
FEW_FORMS_STEPS = 250

HELP = {
    "cms": "a CMS that learns within a text, over Gated DeltaNet",
    "cms_self_modifying": "the same over HOPE's own sequence memory",
    "frozen_cms": "`cms` without learning within a text",
    "transformer": "Transformer++",
}


def get_config(arm: str = "cms", vocab_size: int = 768, steps: int = STEPS) -> TrainConfig:
    """Configuration of an arm's training.

    `cms` and `cms_self_modifying` learn within a text: their fast CMS level every 16 tokens;
    the slow one is for sleep. In their training the context is dropped between facts and
    questions. `frozen_cms` and `transformer` keep theirs, so that they can use what they have.
    """
    cms = ModelConfig(
        vocab_size=vocab_size,
        dim=96,
        depth=2,
        mixer=GatedDeltaNetConfig(heads=2, chunk=32),
        cms=CMSConfig(
            periods=(1, 4),
            hidden=768,
            in_context=InContextConfig(chunks=(16, 0), lr=1.0, blocks=1),
        ),
    )
    size = count_params(cms).total
    frozen = dataclasses.replace(
        cms, cms=dataclasses.replace(cms.cms, in_context=InContextConfig())
    )
    models = {
        "cms": cms,
        "cms_self_modifying": match_params(
            dataclasses.replace(cms, mixer=SelfModifyingConfig(heads=2)), size
        ),
        "frozen_cms": frozen,
        "transformer": match_params(
            dataclasses.replace(
                frozen, mixer=AttentionConfig(heads=3), cms=CMSConfig(periods=(1,))
            ),
            size,
        ),
    }
    return TrainConfig(
        name=arm,
        steps=steps,
        model=models[arm],
        data=DataConfig(batch=BATCH, length=LENGTH),
        # With a decay of 0.1 no arm that drops its context learned which name has which value;
        # AdamW is far behind after as many steps.
        optim=OptimConfig(rule=M3Rule(), lr=0.01, warmup=50, weight_decay=0.01),
    )
