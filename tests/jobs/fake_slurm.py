"""sbatch, srun, sacct, scancel and scontrol as far as submitit uses them, on this machine.

`install(folder)` makes the commands; what they do is kept in files there. A file `hold` keeps new
jobs waiting.
"""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scancel", "scontrol")
# Begun in a session of its own: what a job does, again for as long as it is put back in the queue.
JOB = """
while [ -e {hold} ]; do sleep 0.05; done
touch {key}.began
while true; do
  sh {script}; status=$?
  [ -e {key}.requeue ] || break
  rm {key}.requeue
done
echo $status > {key}.exit
"""


def install(folder: Path) -> Path:
    """The commands, as files of `folder`/bin; returns that."""
    binaries = folder / "bin"
    binaries.mkdir(parents=True)
    for name in COMMANDS:
        path = binaries / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "{folder}" {name} "$@"\n')
        path.chmod(0o755)
    return binaries


def sbatch(here: Path, script: str) -> None:
    text = Path(script).read_text()
    if "--partition=nowhere" in text:
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    with open(here / "calls", "a") as file:
        file.write(text + "\0")
    number = 100 + len((here / "calls").read_text().split("\0"))
    array = re.search(r"--array=0-(\d+)", text)
    copy = here / f"{number}.sh"
    copy.write_text(text)
    for task in range(int(array[1]) + 1) if array else [None]:
        key = here / (f"{number}" if task is None else f"{number}_{task}")
        env = os.environ | {"SLURM_JOB_ID": str(number), "SLURM_NTASKS": "1"}
        if task is not None:
            env |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(task)}
        job = subprocess.Popen(
            ["sh", "-c", JOB.format(hold=here / "hold", key=key, script=copy)],
            env=env, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        key.with_suffix(".pid").write_text(str(job.pid))
    print(f"Submitted batch job {number}")


def srun(here: Path, *words: str) -> None:
    """srun [--unbuffered] --output FILE --error FILE COMMAND ..."""
    files, rest = {}, list(words)
    while rest[0].startswith("--"):
        flag = rest.pop(0)
        if flag in ("--output", "--error"):
            files[flag] = rest.pop(0)
    names = {"%j": "SLURM_JOB_ID", "%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID"}
    for stream, flag in ((1, "--output"), (2, "--error")):
        path = files[flag].replace("%t", "0")
        for sign, name in names.items():
            path = path.replace(sign, os.environ.get(name, ""))
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.execvp(rest[0], rest)


def sacct(here: Path, *words: str) -> None:
    print("JobID|State|NodeList")
    for number in [word for before, word in pairwise(words) if before == "-j"]:
        for path in sorted(here.glob(f"{number}*.pid")):
            print(f"{path.stem}|{_state(path)}|node1")


def _state(path: Path) -> str:
    if path.with_suffix(".cancelled").exists():
        return "CANCELLED by 0"
    if path.with_suffix(".exit").exists():
        return "COMPLETED" if path.with_suffix(".exit").read_text() == "0\n" else "FAILED"
    return "RUNNING" if path.with_suffix(".began").exists() else "PENDING"


def scancel(here: Path, *numbers: str) -> None:
    for number in numbers:
        (here / f"{number}.cancelled").touch()
        with suppress(ProcessLookupError):
            os.killpg(int((here / f"{number}.pid").read_text()), signal.SIGKILL)


def scontrol(here: Path, verb: str, number: str) -> None:
    (here / f"{number}.{verb}").touch()


if __name__ == "__main__":
    globals()[sys.argv[2]](Path(sys.argv[1]), *sys.argv[3:])
