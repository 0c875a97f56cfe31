"""Stands in for Slurm's srun: $TASKS processes on this machine, which get its SIGTERM.

Notes its words as the other programs of the tests do, and ends with the largest exit status.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

words = sys.argv[1:]
with (Path(os.environ["HOME"]) / "calls.jsonl").open("a") as out:
    print(json.dumps(["srun", words, ""]), file=out)
while words[0].startswith("--"):
    words = words[1:]
tasks = int(os.environ.get("TASKS", "1"))
step = {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(tasks)}
told = []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
running = [
    subprocess.Popen(
        words, env=os.environ | step | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}
    )
    for i in range(tasks)
]
while any(process.poll() is None for process in running):
    for number in told:
        for process in running:
            process.send_signal(number)
    told.clear()
    time.sleep(0.05)
codes = [process.returncode for process in running]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
