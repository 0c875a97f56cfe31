"""What happens to a run of several processes when something breaks, and what is lost.

    python experiments/pods/faults.py               # about 20 minutes on 2 cores
    python experiments/pods/faults.py --faults kill hang

Every fault is done to real runs of `hope train` on this machine, one process per host of a pod,
with CPU collectives; then the same command is given again, and the losses of all steps are
compared with those of a run that nobody disturbed. The table goes to
experiments/results/pods/faults/README.md; where the processes' logs are is printed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.progress import track

from hope_jax.checkpoint.storage import finished_steps
from hope_jax.config import (
    CMSConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    SelfModifyingConfig,
    TrainConfig,
    to_json,
)

OUT = Path(__file__).resolve().parent.parent / "results" / "pods" / "faults"
STEPS = 40
AFTER = 20  # steps, something breaks
ENDS_WITHIN = 600  # seconds
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
    "JAX_COMPILATION_CACHE_DIR": tempfile.mkdtemp(prefix="fault-programs-"),
}
CONFIG = TrainConfig(
    name="faults",
    model=ModelConfig(
        dim=32,
        depth=2,
        mixer=SelfModifyingConfig(heads=2, chunk=16, rate_hidden=8),
        cms=CMSConfig((1, 4), hidden=64),
    ),
    data=DataConfig(batch=8, length=32),
    optim=OptimConfig(warmup=5),
    steps=STEPS,
    log_every=1,
    eval_every=1_000,
    checkpoint_every=15,
    sample_tokens=0,
    position_plot=False,
    ngrams=False,
)


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that breaks.

    Attributes:
      what: in words.
      do: to the processes (pids by rank), after step `AFTER`; None: nothing.
      small_files: rank of a process that can write no large file, as on a full disk.
      elsewhere: rank of a process whose work folder is not that of the others.
      again: number of processes that go on.
    """

    what: str
    do: Callable[[list[int]], None] | None = None
    small_files: int | None = None
    elsewhere: int | None = None
    again: int = 2


FAULTS = {
    "nothing": Fault("nothing (4 processes in place of 1)"),
    "sigterm": Fault(
        "SIGTERM to process 1 of 4, as before a preemption; 2 go on",
        lambda pids: os.kill(pids[1], signal.SIGTERM),
    ),
    "kill": Fault("SIGKILL to process 1 of 4", lambda pids: os.kill(pids[1], signal.SIGKILL)),
    "kill_main": Fault(
        "SIGKILL to process 0 of 4, which the others meet at",
        lambda pids: os.kill(pids[0], signal.SIGKILL),
    ),
    "hang": Fault(
        "process 2 of 4 hangs (SIGSTOP)", lambda pids: os.kill(pids[2], signal.SIGSTOP)
    ),
    "disk": Fault("the disk is full for process 1 of 4 from the start", small_files=1),
    "folder": Fault("process 3 of 4 has another disk at the work folder", elsewhere=3),
    "one": Fault(
        "SIGTERM to process 3 of 4; a single process goes on",
        lambda pids: os.kill(pids[3], signal.SIGTERM),
        again=1,
    ),
}


class Run:
    """`hope train` in `count` processes."""

    def __init__(self, folder: Path, count: int, logs: Path, fault: Fault | None = None):
        (folder / "config.json").write_text(to_json(CONFIG))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.logs = [logs.with_name(f"{logs.name}-{rank}.log") for rank in range(count)]
        self.watchers = []
        for rank, log in enumerate(self.logs):
            lost = fault is not None and fault.elsewhere == rank
            command = [sys.executable, "-m", "hope_jax", "train"]
            command += ["--config", str(folder / "config.json")]
            command += ["--workdir", str(folder / ("elsewhere" if lost else "run"))]
            if count > 1:
                command += ["--coordinator", f"127.0.0.1:{port}"]
                command += ["--processes", str(count), "--process", str(rank)]
            with log.open("w") as out:
                watcher = subprocess.Popen(
                    command,
                    env=os.environ | ENVIRONMENT,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            if fault is not None and fault.small_files == rank:
                resource.prlimit(watcher.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
            self.watchers.append(watcher)

    def trainers(self) -> list[int]:
        """Process ids of what the watchers watch."""
        return [
            int(Path(f"/proc/{w.pid}/task/{w.pid}/children").read_text().split()[0])
            for w in self.watchers
        ]

    def reach(self, step: int) -> None:
        """Wait for a step."""
        until = time.monotonic() + ENDS_WITHIN
        while f"step {step}/" not in self.logs[0].read_text():
            if time.monotonic() > until or self.watchers[0].poll() is not None:
                raise RuntimeError(f"step {step} did not come: see {self.logs[0]}")
            time.sleep(0.02)

    def end(self, all_but: int | None = None) -> list[int | None]:
        """Exit statuses; None: it had to be killed."""
        until = time.monotonic() + ENDS_WITHIN
        for rank, watcher in enumerate(self.watchers):
            if rank != all_but:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    watcher.wait(max(until - time.monotonic(), 0.1))
        statuses = [watcher.poll() for watcher in self.watchers]
        for watcher in self.watchers:
            watcher.kill()
            watcher.wait()
        return statuses

    def said(self) -> str:
        """What was wrong, as a process told it; else the last word of the first with one."""
        lines = [line for log in self.logs for line in reversed(log.read_text().splitlines())]
        for words in ("hope train: error:", "hope train:", "stopped by"):
            for line in lines:
                if words in line:
                    return line.removeprefix("hope train: ").removeprefix("error: ")
        return ""


def losses(folder: Path) -> dict[int, float]:
    """Loss by step, of the newest line of each."""
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {r["step"]: r["loss"] for r in records if "loss" in r}


def try_fault(name: str, baseline: dict[int, float], out: Path) -> dict:
    """Do it to a run, go on, and compare."""
    fault, folder = FAULTS[name], Path(tempfile.mkdtemp(prefix=f"fault-{name}-"))
    run = Run(folder, 4, out / name, fault)
    began = time.monotonic()
    if fault.do is not None:
        run.reach(AFTER)
        began = time.monotonic()
        fault.do(run.trainers())
    statuses = run.end(all_but=2 if name == "hang" else None)
    seconds = time.monotonic() - began
    facts = {
        "what": fault.what,
        "statuses": statuses,
        "seconds": round(seconds),
        "said": re.sub(r"/\S*/(run|elsewhere)", r"WORKDIR/\1", run.said()),
        "checkpoints": finished_steps(folder / "run" / "checkpoints"),
    }
    if name != "nothing":
        again = Run(folder, fault.again, out / f"{name}-again")
        facts["again"] = again.end()
        found = re.search(r"going on from step (\d+)", again.logs[0].read_text())
        facts["from"] = int(found.group(1)) if found else 0
    here = losses(folder)
    facts["steps"] = len(here)
    facts["difference"] = max(
        abs(here.get(step, float("inf")) / loss - 1) for step, loss in baseline.items()
    )
    shutil.rmtree(folder)
    return facts


def write_page(results: dict[str, dict], out: Path) -> str:
    """README.md with one line per fault."""
    versions = [f"{n} {importlib.metadata.version(n)}" for n in ("jax", "orbax-checkpoint")]
    where = ", ".join([f"Python {sys.version.split()[0]}", *versions])
    lines = [
        "| fault | exit statuses | ended after | what it said | went on from | largest "
        "difference of a loss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for facts in results.values():
        ends = ", ".join("killed" if s is None else str(s) for s in facts["statuses"])
        onward = "" if "from" not in facts else f"step {facts['from']}, status {facts['again']}"
        lines.append(
            f"| {facts['what']} | {ends} | {facts['seconds']} s | {facts['said']} | {onward} "
            f"| {facts['difference']:.1e} |"
        )
    head = (__doc__ or "").strip().splitlines()[0]
    page = f"""# {head}

    python experiments/pods/faults.py

Processes of `hope train` on one machine (2 CPU cores shared with other jobs; {where}),
HOPE of 2 layers and width 32, {STEPS} steps, a checkpoint every {CONFIG.checkpoint_every}.
Faults are done after step {AFTER}. Then the same command is given again, to 2 processes if
nothing else is said. The last column is the largest relative difference, over all {STEPS}
steps, between the run that was broken and a run of one process that nobody disturbed: rounding
of sums over processes, and nothing else. What came after the last checkpoint is computed again;
nothing else is lost. "Ended after" is the time from the fault (in cases that begin with it,
from the start) to the end of the last process.

{chr(10).join(lines)}
"""
    (out / "README.md").write_text(page)
    return page


def main() -> None:
    """Try the faults and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.out / "faults.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    alone = Path(tempfile.mkdtemp(prefix="fault-alone-"))
    logs = Path(tempfile.mkdtemp(prefix="fault-logs-"))
    if any(Run(alone, 1, logs / "alone").end()):
        raise SystemExit(f"the run without a fault failed: see {logs}")
    baseline = losses(alone)
    for name in track(args.faults, "breaking"):
        results[name] = try_fault(name, baseline, logs)
        kept.write_text(json.dumps(results, indent=2) + "\n")
    results = {name: results[name] for name in FAULTS if name in results}
    print(write_page(results, args.out))
    print(f"what the processes said is in {logs}")


if __name__ == "__main__":
    main()
