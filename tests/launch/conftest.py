"""The launch scripts beside programs that only note how they were called.

PATH holds nothing else, so a script that reaches for a tool that is not meant cannot find it.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELL = """awk basename bash cat chmod cut date dirname echo env find git grep gzip head id kill
ls lsb_release mkdir mktemp mountpoint mv printf rm sed sh sleep sort tail tar tee touch tr
true uname wc""".split()
# Notes its words and its input, and answers what answers.json says: the first entry whose words
# are all in the call gives its answers in turn, the last for ever.
STUB = f"""#!{sys.executable} -S
import fcntl, json, sys
from pathlib import Path

folder, words = Path({{folder!r}}), sys.argv[1:]
name = Path(sys.argv[0]).name
with (folder / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    reads = words[-2:] == ["-f", "-"] or "tee" in [name, *words[:1]]
    stdin = sys.stdin.read() if reads else ""
    with (folder / "calls.jsonl").open("a") as out:
        print(json.dumps([name, words, stdin]), file=out)
    file = folder / "answers.json"
    answers = json.loads(file.read_text()) if file.exists() else []
    for entry in answers:
        if all(want in " ".join([name, *words]) for want in entry["words"]):
            status, text = entry["answers"][0]
            if len(entry["answers"]) > 1:
                entry["answers"].pop(0)
            file.write_text(json.dumps(answers))
            print(text, end="")
            sys.exit(status)
"""


@dataclasses.dataclass(frozen=True)
class Call:
    """A program that a script has called."""

    program: str
    words: list[str]
    stdin: str

    @property
    def line(self) -> str:
        """All of it in one line."""
        return " ".join([self.program, *self.words])


class Scripts:
    """Runs scripts of launch/ with noting programs.

    Args:
      folder: for the programs and what they note.
    """

    def __init__(self, folder: Path):
        self.root, self.folder, self.bin = ROOT, folder, folder / "bin"
        self.bin.mkdir(parents=True)
        for tool in SHELL:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        (self.bin / "python3").symlink_to(sys.executable)
        self.env = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LC_ALL": "C",
            "PYTHONWARNINGS": "error",
            # a checkout of another user, which git would not read with this HOME
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }

    def stub(self, *names: str) -> None:
        """Have these programs on PATH; they note their calls."""
        for name in names:
            path = self.bin / name
            path.unlink(missing_ok=True)
            path.write_text(STUB.format(folder=str(self.folder)))
            path.chmod(0o755)

    def answer(self, *words: str, answers: list[tuple[int, str]]) -> None:
        """What a noting program gives for calls with all of `words`: statuses and output."""
        file = self.folder / "answers.json"
        known = json.loads(file.read_text()) if file.exists() else []
        file.write_text(json.dumps([*known, {"words": words, "answers": answers}]))

    def run(self, script: str, *words: str, status: int = 0, **env: str):
        """Run launch/SCRIPT; fails unless it ends with this status."""
        done = subprocess.run(
            [ROOT / "launch" / script, *words],
            env=self.env | env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == status, (done.args, done.stdout, done.stderr)
        return done

    def refused(self, script: str, *words: str, **env: str) -> str:
        """The one line with which the script refuses; it must have called nothing."""
        done = self.run(script, *words, status=2, **env)
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"launch/{script}: error: "), done.stderr
        assert done.stdout == "" and self.calls() == []
        return done.stderr

    def calls(self, program: str | None = None) -> list[Call]:
        """What was called so far, in order."""
        file = self.folder / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        calls = [Call(*json.loads(line)) for line in lines]
        return [c for c in calls if program in (None, c.program)]


@pytest.fixture
def scripts(tmp_path):
    """Scripts with a kubectl, gcloud, xpk, sbatch, squeue, scancel and ssh that only note."""
    made = Scripts(tmp_path / "machine")
    made.stub("kubectl", "gcloud", "xpk", "sbatch", "squeue", "scancel", "ssh", "docker")
    yield made
    assert os.path.realpath(made.bin / "gcloud") == str(made.bin / "gcloud")  # never a real one
