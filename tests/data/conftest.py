"""Small prepared folders that the data tests share."""

import numpy as np
import pytest

from hope_jax.data.prepare import prepare
from hope_jax.data.sources import TextSource
from hope_jax.data.tokenizers import ByteTokenizer


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """A folder of 30 files of 200 to 1,500 random bytes."""
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    for index in range(30):
        data = rng.integers(0, 256, rng.integers(200, 1500), np.uint8).tobytes()
        (folder / f"{index:02}.bin").write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def prepared(texts, tmp_path_factory):
    """`texts` as byte tokens."""
    folder = tmp_path_factory.mktemp("prepared") / "bytes"
    prepare(folder, TextSource([texts], validation=0.2), ByteTokenizer())
    return folder
