"""The benchmark runs, and what it computes from its measurements is right."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from hope_jax.benchmark import MODELS, QUICK, Results, Settings, benchmark
from hope_jax.benchmark.cases import model_config
from hope_jax.benchmark.measure import Spent, process_peak, reset_peak, spend
from hope_jax.benchmark.plot import write_plot
from hope_jax.benchmark.results import Decoding, Training, decoding_speed
from hope_jax.benchmark.table import print_tables
from hope_jax.models import count_params

TINY = Settings(
    models=("transformer",),
    lengths=(16,),
    contexts=(20,),
    rounds=2,
    dim=16,
    depth=1,
    heads=1,
    batch=2,
    decode_tokens=20,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    lines = []
    return benchmark(TINY, out, lines.append), out, lines


def test_every_case_is_measured_in_every_round(run):
    results, out, lines = run
    data = json.loads((out / "bench.json").read_text())
    assert [(t["model"], t["length"]) for t in data["training"]] == [("transformer", 16)]
    for case in data["training"] + data["decoding"]:
        assert len(case["spent"]) == TINY.rounds
        assert case["tokens_per_second"] > 0 and case["tokens_per_cpu_second"] > 0
    for case in data["training"]:
        assert case["compiled_bytes"] > 4 * 3 * case["params"]  # weights and two moments
        assert case["process_bytes"] > case["compiled_bytes"]
    assert data["training"][0]["ratio"] == 1.0
    assert [d["tokens"] for d in data["decoding"]] == [32]  # whole dispatches
    assert data["machine"]["jax"] and any("round 2 of 2" in line for line in lines)


def test_tables_and_plot(run):
    results, out, _ = run
    console = Console(file=io.StringIO(), width=100)
    print_tables(results, console)
    text = console.file.getvalue()
    assert "transformer" in text and "Decoding" in text
    write_plot(results, out / "bench.png")
    assert (out / "bench.png").stat().st_size > 5_000


def test_ratios_are_taken_within_a_round():
    """A machine that is twice as slow in one round changes no ratio."""

    def case(model, length, cpu):
        spent = [Spent(wall=c, cpu=c) for c in cpu]
        return Training(model, length, 2, 10, 5e6, Spent(1, 1), 100, spent=spent)

    training = [
        case("hope", 50, [2.0, 4.0, 2.0]),
        case("transformer", 50, [1.0, 2.0, 1.2]),
        case("hope", 100, [5.0, 5.0, 5.0]),
    ]
    results = Results(Settings(models=("hope", "transformer")), {}, training)
    speed = results.training_speed(training[0])
    assert speed["tokens_per_cpu_second"] == 50.0
    assert speed["flops_per_cpu_second"] == 5e6 * 50
    assert speed["ratio"] == 0.5 and speed["ratio_range"] == [0.5, 0.6]
    assert results.flatness() == {"hope": 50 / 40}
    console = Console(file=io.StringIO(), width=120)
    print_tables(dataclasses.replace(results, machine={"processor": "x"}), console)
    said = console.file.getvalue()  # the settings name greater lengths, which were skipped
    assert "hope: time per token at T=100 is 1.25 times that at T=50" in said
    assert "ratio" not in results.training_speed(training[2])


def test_decoding_speed_is_the_median():
    spent = [Spent(wall=w, cpu=2 * w) for w in (0.5, 9.0, 1.0)]
    case = Decoding("hope", 10, tokens=100, state_bytes=1, prefill=spent, spent=spent)
    assert decoding_speed(case) == {
        "tokens_per_second": 100.0,
        "tokens_per_cpu_second": 50.0,
        "prefill_seconds": 1.0,
    }


def test_models_differ_only_in_what_they_are_named_for():
    counts = {name: count_params(model_config(name, Settings())).total for name in MODELS}
    assert counts["hope_momentum"] >= counts["hope"]
    assert abs(counts["hope_attention"] / counts["transformer"] - 1) < 0.01
    assert model_config("hope_momentum", QUICK).mixer.momentum == "titans"
    assert model_config("hope_zero", QUICK).mixer.decay_to == "zero"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": ("gru",)}, "--models is 'gru'"),
        ({"lengths": ()}, "lengths is empty"),
        ({"lengths": (0,)}, "lengths names 0"),
        ({"rounds": 0}, "rounds is 0"),
    ],
)
def test_settings_that_make_no_sense(change, said):
    with pytest.raises(ValueError, match=said):
        Settings(**change)


def test_stopwatch_and_scales():
    result, spent = spend(lambda: sum(range(300_000)))
    assert result == 44_999_850_000 and 0 < spent.cpu <= spent.wall * 4
    reset_peak()
    before = process_peak()
    block = bytearray(64 << 20)
    assert process_peak() - before > 32 << 20
    del block
