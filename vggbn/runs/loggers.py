"""Logs of the learning curves beside the results: a CSV file, TensorBoard's event files, W&B."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vggbn import files
from vggbn.errors import UserError, unknown
from vggbn.training.recipe import Recipe

# What TensorBoard and W&B call the fields of an evaluation.
SCALARS = {
    "lr": "lr",
    "train/loss": "train_loss",
    "train/accuracy": "train_accuracy",
    "val/loss": "val_loss",
    "val/accuracy": "val_accuracy",
}
COLUMNS = ("run", "id", "seed", "step", *SCALARS.values(), "time")


class Logged(NamedTuple):
    """A run as a log names it: `bn seed 0`."""

    name: str
    recipe: Recipe
    seed: int

    @property
    def arm(self) -> str:
        """The name without the seed."""
        return re.sub(r",? seed \d+$", "", self.name)


class Logger(Protocol):
    """What is told of runs; `report` gets evaluations only, lines of the learning curve."""

    def report(self, run: Logged, record: dict) -> None:
        """The run has evaluated itself."""
        ...

    def finished(self, run: Logged, record: dict) -> None:
        """The run is over: its record, with the final scores."""
        ...

    def failed(self, run: Logged, text: str) -> None:
        """The run has failed, and why."""
        ...

    def close(self) -> None:
        """No more is told. Runs that are neither finished nor failed were stopped."""
        ...


class Csv:
    """A row for each evaluation, appended to `<folder>/curves.csv`.

    A run that is trained again adds rows with later times.
    """

    def __init__(self, folder: Path, group: str):
        self.path, self.ready = folder / "curves.csv", False

    def report(self, run: Logged, record: dict) -> None:
        if not self.ready:
            self._begin()
        values = [record.get(field, "") for field in ("step", *SCALARS.values())]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._add([run.name, run.recipe.id, run.seed, *values, now])

    def _begin(self) -> None:
        """Cut off the torn last row of a killed writer; a new file gets its header."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as file:
            files.cut_torn_line(file)
            empty = file.seek(0, os.SEEK_END) == 0
        if empty:
            self._add(COLUMNS)
        self.ready = True

    def _add(self, row: Sequence) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(row)
        files.append(self.path, text.getvalue())

    def finished(self, run: Logged, record: dict) -> None:
        """Final scores are in the results file."""

    def failed(self, run: Logged, text: str) -> None:
        """What was evaluated stays."""

    def close(self) -> None:
        """Every row is on disk already."""


class TensorBoard:
    """Event files in `<folder>/tensorboard/<arm>/seed<n>`, written without TensorFlow.

    They are written here and at once: tensorboardX's SummaryWriter does it in a thread, and waits
    for ever where that thread has met a full disk.
    """

    def __init__(self, folder: Path, group: str):
        _need("tensorboardX", "tensorboard")
        self.folder, self.writers = folder / "tensorboard", {}

    def report(self, run: Logged, record: dict) -> None:
        scalars = {tag: record[field] for tag, field in SCALARS.items() if field in record}
        self._write(run, record["step"], scalars)

    def finished(self, run: Logged, record: dict) -> None:
        scores = {"test/accuracy": record["final"]["test_accuracy"]}
        self._write(run, record["history"][-1]["step"], scores)
        self._close(run.name)

    def failed(self, run: Logged, text: str) -> None:
        self._close(run.name)

    def close(self) -> None:
        for name in list(self.writers):
            self._close(name)

    def _write(self, run: Logged, step: int, scalars: dict[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        writer = self.writers.get(run.name) or self._opened(run, step)
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        writer.write_event(event)
        writer.flush()

    def _opened(self, run: Logged, step: int):
        """A new file. TensorBoard forgets what older files of the run say from `step` on."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore

        folder = self.folder / run.arm.replace("/", "_") / f"seed{run.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{time.time_ns()}")
        start = SessionLog(status=SessionLog.START)
        writer.write_event(Event(wall_time=time.time(), step=step, session_log=start))
        self.writers[run.name] = writer
        return writer

    def _close(self, name: str) -> None:
        if name in self.writers:
            self.writers.pop(name).close()


class WandB:
    """A W&B run for each run, in the project $WANDB_PROJECT or vggbn; group: the experiment.

    Its id is that of the recipe and the seed, so that a run that goes on later goes on there.
    """

    def __init__(self, folder: Path, group: str):
        _need("wandb", "wandb")
        import wandb  # pyright: ignore[reportMissingImports]

        self.wandb, self.folder, self.group, self.runs = wandb, folder, group, {}
        if os.environ.get("WANDB_MODE", "online") != "online":
            return
        try:
            wandb.login()  # asks for a key now, where one is needed, and not amid the training
        except wandb.Error as error:
            raise UserError(
                f"--log wandb cannot log in ({error}); WANDB_MODE=offline needs no account."
            ) from None

    def report(self, run: Logged, record: dict) -> None:
        scalars = {tag: record[field] for tag, field in SCALARS.items() if field in record}
        self._run(run).log({"step": record["step"], **scalars})

    def finished(self, run: Logged, record: dict) -> None:
        theirs = self._run(run)
        theirs.summary["test/accuracy"] = record["final"]["test_accuracy"]
        theirs.summary["status"] = record["status"]
        self._finish(run.name, 0)

    def failed(self, run: Logged, text: str) -> None:
        self._finish(run.name, 1)

    def close(self) -> None:
        for name in list(self.runs):
            self._finish(name, 1)

    def _run(self, run: Logged):
        if run.name not in self.runs:
            self.folder.mkdir(parents=True, exist_ok=True)
            theirs = self.runs[run.name] = self.wandb.init(
                project=os.environ.get("WANDB_PROJECT", "vggbn"),
                group=self.group,
                name=run.name,
                id=f"{run.recipe.id}-seed{run.seed}",
                resume="allow",
                reinit="create_new",
                config=asdict(run.recipe) | {"seed": run.seed},
                dir=self.folder,
                # Else each run would keep a copy of what this process prints for all of them.
                settings={"silent": True, "console": "off"},
            )
            # W&B's own step only rises: a run that is trained again could not be logged by it.
            theirs.define_metric("*", step_metric="step")
        return self.runs[run.name]

    def _finish(self, name: str, status: int) -> None:
        if name in self.runs:
            self.runs.pop(name).finish(exit_code=status)


KINDS: dict[str, Callable[[Path, str], Logger]] = {
    "csv": Csv,
    "tensorboard": TensorBoard,
    "wandb": WandB,
}


def _need(package: str, extra: str) -> None:
    """UserError with the command that installs what is missing."""
    if find_spec(package) is None:
        raise UserError(
            f"--log {extra} needs the package {package}: make install EXTRAS={extra}, or "
            f"pip install -c constraints.txt -e '.[{extra}]'."
        )


class Logs:
    """Several logs as one. One that fails is told of, once, and left out: the runs go on."""

    def __init__(self, loggers: dict[str, Logger]):
        self.loggers, self.reported = dict(loggers), set()

    def report(self, run: Logged, record: dict) -> None:
        """Pass on an evaluation; other reports, of progress alone, are nothing for a log."""
        if "val_accuracy" in record:
            self.reported.add(run.name)
            self._tell(lambda logger: logger.report(run, record))

    def finished(self, run: Logged, record: dict) -> None:
        """Pass it on; a run that was found, not trained, is first logged from its record."""
        if run.name not in self.reported:
            for point in record["history"]:
                self.report(run, point)
        self._tell(lambda logger: logger.finished(run, record))

    def failed(self, run: Logged, text: str) -> None:
        self._tell(lambda logger: logger.failed(run, text))

    def close(self) -> None:
        self._tell(lambda logger: logger.close())

    def _tell(self, say: Callable[[Logger], Any]) -> None:
        for kind, logger in list(self.loggers.items()):
            try:
                say(logger)
            # A log is not worth a run, and other people's packages raise what they like.
            except Exception as error:
                del self.loggers[kind]
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                print(
                    f"\nThe {kind} log has stopped ({reason}); the runs go on without it.",
                    file=sys.stderr,
                )


@contextmanager
def open_logs(kinds: Iterable[str], folder: Path, group: str) -> Iterator[Logs]:
    """The logs of these kinds in `folder`, closed at the end.

    UserError, before anything is trained: an unknown kind, or its package is not installed.
    """
    kinds = list(dict.fromkeys(kinds))
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("log", kind, KINDS)
    logs = Logs({kind: KINDS[kind](folder, group) for kind in kinds})
    try:
        yield logs
    finally:
        logs.close()
