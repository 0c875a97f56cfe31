"""Which parameters decay, for every parameter of every mixer by name."""

import pytest
from mixer_cases import CASES, DIM

from hope_jax.config import ModelConfig, override
from hope_jax.models import abstract_params
from hope_jax.nested.paths import flatten
from hope_jax.optim.decay import decays

DECAY = """
    table head
    w_q w_k w_v w_r w_query w_key w_value w_query_key w_out w_memory_out
    w_in w_gate w_input w_recurrent w_expand w_expand_gate w_select w_step w_contract
    w_alpha w_beta w_eta w_mu w_rate w_retention w_momentum
    w_decay_in w_decay_out w_rate_in w_rate_out w_gate_in w_gate_out
    conv conv_q conv_k conv_v conv_rate conv_query conv_key conv_shared
    memory_0 memory_1 memory_in memory_out memory_value memory_rate
    memory_y memory_q memory_k memory_beta
    generator_in generator_value generator_rate
    left_period_4_w_in left_period_4_w_gate left_period_4_w_out view_period_4
""".split()
SPARED = """
    scale norm_scale read_norm attention_norm context_norm inner_norm
    read_norm_scale read_norm_bias memory_norm_scale memory_norm_bias
    query_bias key_bias value_bias conv_bias memory_in_bias memory_out_bias
    b_alpha b_eta b_mu b_rate b_retention b_momentum b_gates b_step b_feedback
    correction log_rate log_rate_period_4 skip step_offset mix
    decay rate bonus rate_scale removal_scale
    shift_r shift_k shift_v shift_decay shift_rate shift_gate
    persistent
""".split()


def check(model):
    for path, decay in flatten(decays(abstract_params(model))).items():
        name = path.split("/")[-1]
        assert (name in DECAY) + (name in SPARED) == 1, f"say of {path} whether it decays"
        assert decay == (name in DECAY), path


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_weights_decay_and_vectors_and_initial_states_do_not(name, scan):
    check(ModelConfig(dim=DIM, depth=2, mixer=CASES[name].config, scan_layers=scan))


OPTIONS = {
    "independent": {"cms.periods": (1, 4), "cms.variant": "independent", "tied_head": False},
    "reconstruct": {"reconstruct": True},
    "in_context": {
        "mixer": "attention",
        "cms.periods": (1, 4),
        "cms.in_context.chunks": (0, 4),
        "cms.in_context.loss": "local",
        "cms.in_context.rank": 2,
    },
    "self_modifying": {
        "mixer.adaptive": (),
        "mixer.momentum": "titans",
        "mixer.conv_placement": "shared",
    },
    "two_chunks": {"mixer.chunk": 16, "mixer.memory_chunk": 64},
    "memora": {"mixer": "memora"},
    "ttt_linear": {"mixer": "ttt_linear"},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_of_the_model_add_nothing_else(options):
    check(override(ModelConfig(dim=64, depth=2), OPTIONS[options]))
