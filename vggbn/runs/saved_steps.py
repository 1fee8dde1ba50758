"""Steps of a run on disk, by Orbax: the last ones and the best one, each under SHA-256.

    FOLDER/1200/         a step: the arrays of its state, and a note (JSON)
    FOLDER/1200/sha256   a line for each file of it, written last: without it the step is not whole

Orbax writes a step beside its place and renames it, so a killed process leaves whole steps only.
But a bit that has changed on the disk it reads without a word: what is read here is checked first.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vggbn import files
from vggbn.errors import UserError
from vggbn.runs.arrays import alone, quiet_orbax, reason, require_room

LAST = 2  # steps that are kept, besides the best
SUMS = "sha256"


class SavedStep(NamedTuple):
    """arrays: {name: array}; note: what JSON holds; score: of the step, or None."""

    step: int
    arrays: dict[str, np.ndarray]
    note: dict[str, Any]


class Damaged(Exception):
    """A saved step is not what was saved; says what is wrong."""


class Writer:
    """Saves steps in a thread of its own while the run goes on."""

    def __init__(self, folder: Path):
        self.folder, self._manager = Path(folder).absolute(), None
        self._thread, self._written = ThreadPoolExecutor(1), None
        self._step = -1  # the one that is being written

    def save(
        self, step: int, arrays: Mapping[str, np.ndarray], note: dict, score: float | None = None
    ) -> None:
        """Keep a step, once the one before is written; the highest score's is kept longer.

        The arrays must not change afterwards. UserError: the one before could not be written.
        """
        self.wait()
        self._step = step
        self._written = self._thread.submit(self._write, step, dict(arrays), note, score)

    def _write(self, step: int, arrays: dict, note: dict, score: float | None) -> None:
        import orbax.checkpoint as ocp

        self._manager = self._manager or _manager(self.folder)
        require_room(self.folder, arrays.values())
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays),  # pyright: ignore
            note=ocp.args.JsonSave(note),  # pyright: ignore
        )
        metrics = {} if score is None or math.isnan(score) else {"score": score}
        self._manager.save(step, args=arguments, metrics=metrics, force=True)
        _seal(self.folder / str(step))

    def wait(self) -> None:
        """Until what was given to `save` is on the disk. UserError: it could not be written."""
        written, self._written = self._written, None
        try:
            if written is not None:
                written.result()
        except Exception as error:  # Orbax and TensorStore raise many types for a full disk
            raise self._refusal(error) from error

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            if self._manager is not None:
                self._manager.close()

    def _refusal(self, error: Exception) -> UserError:
        whole = [step for step in steps(self.folder) if step != self._step]
        kept = f"from step {whole[-1]}, which is whole" if whole else "from the start"
        return UserError(
            f"step {self._step} cannot be saved in {self.folder} ({reason(error)}): free some "
            f"space or name another --out; the same command then goes on {kept}."
        )


def _manager(folder: Path):
    import orbax.checkpoint as ocp
    from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

    score = lambda metrics: metrics.get("score", -math.inf)  # noqa: E731
    best = policy.BestN(n=1, get_metric_fn=score)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy.AnyPreservationPolicy([policy.LatestN(LAST), best]),
        best_fn=score,  # only then does Orbax write metrics down, and read them in the next process
        create=False,
        cleanup_tmp_directories=True,
        save_root_metadata=False,
        enable_async_checkpointing=False,  # `Writer` has a thread, in which sealing follows
        multiprocessing_options=alone(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    return ocp.CheckpointManager(folder, options=options)


# --- checksums -----------------------------------------------------------------------------------


def _seal(folder: Path) -> None:
    """Force a written step to the disk, then say what is in it."""
    lines = []
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            lines.append(f"{_sha256(file)}  {path.relative_to(folder).as_posix()}\n")
    files.write(folder / SUMS, "".join(lines))


def _files(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if not path.name.startswith(SUMS))


def _sha256(file) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(folder: Path) -> None:
    """Damaged, unless the files are those that were sealed."""
    try:
        told = _sums(folder / SUMS)
    except (OSError, ValueError) as error:
        raise Damaged(f"{SUMS} cannot be read") from error
    there = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    if differ := sorted(told.keys() ^ there.keys()):
        raise Damaged(f"{differ[0]} is missing" if differ[0] in told else f"{differ[0]} is new")
    for name, path in there.items():
        try:
            with path.open("rb") as file:
                found = _sha256(file)
        except OSError as error:
            raise Damaged(f"{name} cannot be read ({error.strerror})") from error
        if found != told[name]:
            raise Damaged(f"{name} has changed since it was written")


def _sums(path: Path) -> dict[str, str]:
    """{file: SHA-256}. ValueError: a damaged line."""
    pairs = (line.split("  ", 1) for line in path.read_bytes().decode("ascii").splitlines())
    return {name: digest for digest, name in pairs}


# --- reading -------------------------------------------------------------------------------------


def steps(folder: Path) -> list[int]:
    """The steps that were wholly saved, in order; they may be damaged since."""
    folders = Path(folder).glob("*")
    return sorted(int(path.name) for path in folders if path.name.isdigit() and _is_sealed(path))


def _is_sealed(folder: Path) -> bool:
    return (folder / SUMS).exists()


def newest(folder: Path) -> SavedStep | None:
    """The newest step that is whole; None if none was ever saved. A damaged one is named on stderr.

    UserError: steps were saved, and all of them are damaged.
    """
    found, why = steps(folder), None
    for step in reversed(found):
        try:
            return read(folder, step)
        except Damaged as error:
            why = f"step {step}: {error}"
            print(f"{folder}, {why}; it is not used.", file=sys.stderr)
    if why is None:
        return None
    raise UserError(
        f"no saved step in {folder} is whole ({why}): delete that folder to start the run anew."
    )


def read(folder: Path, step: int) -> SavedStep:
    """One step, checked. Damaged: its files are not those that were written."""
    import orbax.checkpoint as ocp

    place = Path(folder).absolute() / str(step)
    _verify(place)
    quiet_orbax()
    handlers = {"state": ocp.StandardCheckpointHandler(), "note": ocp.JsonCheckpointHandler()}
    try:
        found = {
            name: ocp.Checkpointer(handler, multiprocessing_options=alone()).restore(place / name)
            for name, handler in handlers.items()
        }
    except Exception as error:  # many types; the checksums are right, so another version wrote it
        raise Damaged(f"it cannot be read ({reason(error)})") from error
    return SavedStep(step, dict(found["state"]), found["note"])


def forget(folder: Path, after: int = -1) -> None:
    """Delete every step behind `after`, and what is left of saves that did not end."""
    for path in Path(folder).glob("*"):
        if path.name.isdigit() and int(path.name) <= after and _is_sealed(path):
            continue
        shutil.rmtree(path, ignore_errors=True)


def keep_best(folder: Path) -> None:
    """Delete every step but the one with the highest score, and the folder if none has a score."""
    best = best_step(folder)
    for path in Path(folder).glob("*"):
        if path.name != str(best):
            shutil.rmtree(path, ignore_errors=True)
    if best is None:
        shutil.rmtree(folder, ignore_errors=True)


def best_step(folder: Path) -> int | None:
    """The saved step with the highest score; None if none has a score."""
    found = {step: _score(Path(folder) / str(step)) for step in steps(folder)}
    scores = {step: score for step, score in found.items() if score is not None}
    return max(scores, key=scores.__getitem__, default=None)


def _score(folder: Path) -> float | None:
    try:
        return json.loads((folder / "metrics" / "metrics").read_text())["score"]
    except (OSError, ValueError, KeyError):
        return None
