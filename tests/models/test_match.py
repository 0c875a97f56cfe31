"""Models at equal numbers of parameters."""

import pytest

from hope_jax.config import AttentionConfig, CMSConfig, ModelConfig
from hope_jax.models import count_params, match_params


@pytest.mark.parametrize(("target", "periods"), [(800_000, (1,)), (1_234_567, (1, 4, 16))])
def test_the_budget_is_met(target, periods):
    config = ModelConfig(dim=128, mixer=AttentionConfig(), cms=CMSConfig(periods))
    matched = match_params(config, target)
    assert abs(count_params(matched).total - target) <= 0.01 * target
    assert matched.cms.hidden % (4 * len(periods)) == 0


def test_a_budget_below_the_rest_of_the_model_is_refused():
    with pytest.raises(ValueError, match="no CMS hidden width gives 1,000 parameters"):
        match_params(ModelConfig(mixer=AttentionConfig()), 1_000)
