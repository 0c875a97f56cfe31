"""The experiment files for large and small models, counted without allocating them."""

from pathlib import Path

import pytest

from hope_jax.config.load import load_config
from hope_jax.models import count_params

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
NOMINAL = {
    "hope_340m": 340e6,
    "hope_760m": 760e6,
    "hope_1b": 1.3e9,
    "hope_7b": 6.7e9,
    "small": 0.8e6,
}


@pytest.mark.parametrize("name", NOMINAL)
def test_sizes_are_nominal_and_equal_across_variants(name):
    totals = [
        count_params(load_config(f"{EXPERIMENTS / name}.py:{variant}").model).total
        for variant in ("hope", "hope_attention", "transformer")
    ]
    assert all(abs(total - NOMINAL[name]) <= 0.03 * NOMINAL[name] for total in totals)
    assert max(totals) - min(totals) <= 0.012 * min(totals)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="choose one of.*transformer"):
        load_config(f"{EXPERIMENTS}/hope_1b.py:mamba")
