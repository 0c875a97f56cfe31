"""What the main process says to the others, which are stood in for here."""

import json

import jax
import pytest

from hope_jax.errors import Busy
from hope_jax.parallel import processes


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Busy("wait"), Busy),
        (ValueError("wait"), ValueError),
        (json.JSONDecodeError("wait", "", 0), ValueError),
        (FileNotFoundError("wait"), OSError),
    ],
)
def test_an_error_of_the_main_process_keeps_its_kind_in_the_others(monkeypatch, error, kind):
    """By which they choose their exit status."""
    sent = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    def fail():
        raise error

    monkeypatch.setattr(processes, "is_main", lambda: True)
    monkeypatch.setattr(processes, "_told", lambda answer: sent.append(json.dumps(answer)))
    with pytest.raises(type(error)):
        processes.on_main(fail)
    monkeypatch.setattr(processes, "is_main", lambda: False)
    monkeypatch.setattr(processes, "_told", lambda answer: json.loads(sent[0]))
    with pytest.raises(kind, match="wait") as raised:
        processes.on_main(fail)
    assert type(raised.value) is kind
