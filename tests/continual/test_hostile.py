"""200,000 hostile tokens, read by the model that the notebook ships, at the default limits."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

from continual.hostile import attack

import hope_jax
from hope_jax.streams import Limits

NOTEBOOKS = Path(__file__).resolve().parents[2] / "experiments" / "notebooks"


@pytest.mark.slow
@pytest.mark.long
def test_ordinary_text_is_read_as_before():
    base = hope_jax.load(NOTEBOOKS / "a_stream_that_remembers")
    found = attack(base, Limits())
    for text, most in {
        "one token": 0.05,
        "random characters": 0.05,
        "random tokens": 0.15,
    }.items():
        assert abs(found[text]["change"]) < most, (text, found[text])
