"""Every mixer reads, writes, is saved and goes on, in the language model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixer_cases import CASES, DIM

from hope_jax.config import ModelConfig
from hope_jax.data import ByteTokenizer
from hope_jax.inference import generate, load_state, read, save_state
from hope_jax.models import LanguageModel, init_params, next_token_losses

TEXT = "The quality of mercy is not strained; it droppeth as the gentle rain from heaven"
# The others cost minutes of compilation; CI runs them.
QUICK = ("gated_delta_net",)
EVERY_MIXER = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CASES]


@pytest.mark.parametrize("name", EVERY_MIXER)
def test_a_stream_is_one_read_and_can_be_saved(name, tmp_path):
    """64 bytes go in parallel, the rest token by token; then from a file as from memory."""
    config = ModelConfig(dim=DIM, depth=2, mixer=CASES[name].config, init_std=0.2)
    tokenizer = ByteTokenizer()
    parts = LanguageModel(config), init_params(config, jax.random.key(0)), tokenizer
    reading = read(*parts, TEXT)
    ids_BT = jnp.asarray(tokenizer.encode(TEXT.encode()))[None]
    logits_BTW = parts[0].apply({"params": parts[1]}, ids_BT).logits_BTW
    loss_BT = next_token_losses(logits_BTW[:, :-1], ids_BT[:, 1:])
    np.testing.assert_allclose(reading.loss_T[-loss_BT.shape[1] :], loss_BT[0], atol=1e-3)

    save_state(tmp_path / "state.npz", reading.state, *parts)
    loaded = load_state(tmp_path / "state.npz", *parts)
    texts = [generate(*parts, " up", tokens=9, state=s).text for s in (reading.state, loaded)]
    assert texts[0] == texts[1]
