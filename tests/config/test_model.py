"""Mistakes in a model's configuration are told when it is made."""

import pytest

from hope_jax.config import CMSConfig


@pytest.mark.parametrize("periods", [(), (0,), (2, 2), (1, 4, 1)])
def test_periods_that_cannot_be_run(periods):
    with pytest.raises(ValueError, match="cms.periods"):
        CMSConfig(periods=periods)


def test_periods_need_not_start_at_one():
    assert CMSConfig(periods=(2, 8, 32)).periods == (2, 8, 32)
