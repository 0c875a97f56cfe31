"""`python -m hope_jax.sweeps.together DIR...`: the runs of a sweep that are one program.

Every folder holds the configuration of its run, as `hope_jax.sweeps.runner` puts it there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hope_jax.config.load import load_config
from hope_jax.errors import status_of
from hope_jax.sweeps.runner import CONFIG


def main(folders: Sequence[str]) -> int:
    """Train them; the exit status tells how it ended, as that of `hope train`."""
    from hope_jax.training.together import train_together

    try:
        configs = [load_config(str(Path(folder) / CONFIG), []) for folder in folders]
        outcomes = train_together(configs, folders)
    except (ValueError, OSError) as error:
        print(f"hope sweep: error: {error}", flush=True)
        return status_of(error)
    stopped = [outcome.stopped for outcome in outcomes if outcome.stopped is not None]
    if stopped:
        print(f"stopped by {stopped[0].name} and saved; run the same sweep to go on")
        return 128 + stopped[0]
    failed = [
        f"{Path(f).name}: {o.failed}"
        for f, o in zip(folders, outcomes, strict=True)
        if o.failed
    ]
    for line in failed:
        print(line)
    return 2 if failed else 0  # they diverged, and would again


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
