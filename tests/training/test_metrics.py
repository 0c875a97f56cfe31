"""Writers of metrics, and what a resumed run does to the records of the killed one."""

import json
import math

from tensorboardX import SummaryWriter  # noqa: F401  (the extra is installed for the tests)

from hope_jax.training.metrics import LOG, JsonLines, open_writers, read_log


def test_every_value_is_json_and_comes_back(tmp_path):
    writer = JsonLines(tmp_path / LOG, 0)
    writer.write(1, {"loss": 0.1, "bad": math.nan, "worse": math.inf, "n": 3, "text": "ß"})
    lines = (tmp_path / LOG).read_text().splitlines()  # without close: a kill may come
    writer.close()
    assert json.loads(lines[0]) == {
        "step": 1,
        "loss": 0.1,
        "bad": None,
        "worse": None,
        "n": 3,
        "text": "ß",
    }


def test_going_on_drops_later_records_and_broken_lines(tmp_path):
    writer = JsonLines(tmp_path / LOG, 0)
    for step in range(1, 8):
        writer.write(step, {"loss": step / 10})
    writer.close()
    with (tmp_path / LOG).open("a") as log:
        log.write('"text"\n{"step": 8, "loss": 0.')
    writer = JsonLines(tmp_path / LOG, 4)
    writer.write(5, {"loss": 9.0})
    writer.close()
    assert [(r["step"], r["loss"]) for r in read_log(tmp_path / LOG)] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
        (4, 0.4),
        (5, 9.0),
    ]


def test_tensorboard_gets_the_numbers_too(tmp_path):
    writers = open_writers(tmp_path, 0)
    writers.write(1, {"loss": 2.5, "first_bad": "loss"})
    writers.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"loss" in content and b"first_bad" not in content
    assert read_log(tmp_path / LOG) == [{"step": 1, "loss": 2.5, "first_bad": "loss"}]
