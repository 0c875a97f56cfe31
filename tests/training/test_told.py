"""What a report on text tells of the places in a window."""

import pytest

from hope_jax.training.evaluate import Evaluation
from hope_jax.training.report import Results, _told


@pytest.mark.parametrize(
    ("length", "places"),
    [(1, ["1-1"]), (2, ["1-1", "2-2"]), (4, ["1-1", "2-2", "3-4"]), (16, None)],
)
def test_every_window_is_told_by_its_last_positions(length, places):
    losses = [float(place) for place in range(length)]
    on = Evaluation(1.0, 1.0, tuple(losses), 100, 5)
    off = Evaluation(2.0, 2.0, tuple(2 * loss for loss in losses), 100, 0)
    told = [line.split() for line in _told(Results(on, off, {}))[2:]]
    ranges = [[int(edge) for edge in line[1].rstrip(":").split("-")] for line in told]
    assert places is None or [f"{a}-{b}" for a, b in ranges] == places
    assert len(ranges) <= 4 and ranges[-1][1] == length
    for (a, b), line in zip(ranges, told, strict=True):
        mean = sum(losses[a - 1 : b]) / (b - a + 1)
        assert line[2:] == ["on", f"{mean:.4f},", "off", f"{2 * mean:.4f}"]
