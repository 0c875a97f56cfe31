"""Writing long streams with bounded memory."""

import numpy as np

from hope_jax.data.builder import Parts, write_parts
from hope_jax.data.records import RECORD


def test_parts_read_as_one_stream(tmp_path):
    starts = np.zeros(RECORD // 8, np.uint8)
    records = [{"tokens": np.full(RECORD, n, np.uint32), "starts": starts} for n in range(7)]
    write_parts(tmp_path, "train", iter(records), np.uint32, part=3)
    assert len(list(tmp_path.iterdir())) == 3
    parts = Parts(tmp_path, "train", records=7, part=3)
    assert len(parts) == 7
    assert [int(parts[n]["tokens"][-1]) for n in range(7)] == list(range(7))
    assert parts[0]["tokens"].dtype == np.uint32


def test_no_records_write_nothing(tmp_path):
    write_parts(tmp_path, "train", iter([]), np.uint16)
    assert list(tmp_path.iterdir()) == []
