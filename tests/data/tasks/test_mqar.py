"""Multi-query associative recall."""

import numpy as np
import pytest

from hope_jax.config import DataConfig
from hope_jax.config.tasks import MQARConfig
from hope_jax.data import open_dataset
from hope_jax.data.tasks.mqar import MQAR
from hope_jax.data.tokenizers import ByteTokenizer


def test_every_key_comes_twice_and_is_answered_by_its_value():
    task = MQAR(MQARConfig(pairs=4, keys=6, values=9), length=40)
    for seed in range(50):
        example = task.example(np.random.default_rng(seed))
        names = [task.symbols[i] for i in example.inputs_T]
        table = dict(zip(names[0:8:2], names[1:8:2], strict=True))
        assert len(table) == 4
        places = np.flatnonzero(example.asked_T)
        assert len(places) == 4 and places.min() >= 8
        assert {names[t] for t in places} == set(table)
        for t in places:
            assert task.symbols[example.targets_T[t]] == table[names[t]]
        rest = set(range(8, 40)) - set(places)
        assert all(names[t] == "." for t in rest)


def test_a_small_power_asks_soon():
    means = []
    for power in (0.01, 1.0):
        task = MQAR(MQARConfig(pairs=2, keys=4, values=4, power=power), length=400)
        examples = [task.example(np.random.default_rng(s)) for s in range(200)]
        means.append(np.mean([np.flatnonzero(e.asked_T).mean() for e in examples]))
    soon, evenly = means
    assert evenly == pytest.approx(202, abs=12) and soon < 80


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pairs": 0}, "task.pairs is 0"),
        ({"pairs": 9, "keys": 8}, "keys 8 is fewer than task.pairs 9"),
        ({"values": 1}, "task.values is 1"),
        ({"power": 0.0}, "task.power is 0.0"),
        ({"examples": 0}, "task.examples is 0"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        MQARConfig(**fields)


def test_another_tokenizer_and_split_are_refused():
    config = DataConfig(task=MQARConfig(), length=64)
    with pytest.raises(ValueError, match="task mqar has 129 symbols"):
        open_dataset(config, ByteTokenizer())
    with pytest.raises(ValueError, match="no split 'test'"):
        open_dataset(config, split="test")
    tokenizer = open_dataset(config).tokenizer
    with pytest.raises(ValueError, match="'HAMLET' is no symbol of this task"):
        tokenizer.encode("k1 HAMLET")
