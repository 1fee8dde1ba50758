"""A run that survives: its steps are saved as it goes, and it goes on from the newest whole one.

Saved is every `save_every` seconds; then also at each new best validation accuracy; and when
SIGTERM comes. A run that ends sooner saves no step. The state and the learning curve are all there
is to save: batches and what is drawn follow from the step.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vggbn.errors import Preempted, UserError
from vggbn.identity.equalities import same_numbers
from vggbn.machine import mesh, preempt
from vggbn.runs import saved_steps
from vggbn.runs.place import Place
from vggbn.training.loop import Reached
from vggbn.training.recipe import Recipe, diff

BEAT = 1.0  # seconds between two reports of the step


@contextmanager
def lock_run(place: Place) -> Iterator[None]:
    """Within, no other process on this file system trains this run: a second one waits.

    The lock goes with the process, however that ends.
    """
    if mesh.process() != 0:
        yield
        return
    import fcntl

    folder = place.store.cache / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{place.recipe.id}-seed{place.seed}", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            print(f"{folder} cannot be locked ({error.strerror}).", file=sys.stderr)
        yield


@contextmanager
def keep_run(place: Place, setting: dict, on_report: Callable) -> Iterator[Keeper]:
    """A Keeper of this run, which is made in this setting."""
    with ExitStack() as held:
        keeper = Keeper(place, setting, on_report, held)
        held.callback(keeper.close)
        yield keeper


class Keeper:
    """Saves a run's steps and finds them again. held: ends with the run."""

    def __init__(self, place: Place, setting: dict, on_report, held: ExitStack):
        recipe, seed, store = place
        self.folder = place.folder / "steps"
        self.identity = {"recipe": asdict(recipe), "seed": seed, "setting": setting}
        self.id, self.on_report, self.held = recipe.id, on_report, held
        self.save_every, self.earlier = store.save_every, []
        self.writer = saved_steps.Writer(self.folder)
        self.saved_at = self.beat_at = time.monotonic()
        self.beat_from = (0, 0.0)
        self.best, self.saved = -np.inf, -1

    # --- finding ---

    def resume(self, start: Reached) -> Reached:
        """Where the newest whole step stood, in every process, or `start` where there is none.

        From now on SIGTERM only ends the run at the next step. UserError: all are damaged, or are
        another recipe's.
        """
        self.asked = self.held.enter_context(preempt.note_sigterm())
        step = mesh.agree_on(self._newest)
        if step is None:
            return start
        note = step.note
        self.earlier = [*note["earlier"], {"step": step.step, "setting": note["setting"]}]
        self.saved = step.step
        self.best = max((r["val_accuracy"] for r in note["history"]), default=-np.inf)
        print(f"going on from step {step.step} in {self.folder}", file=sys.stderr)
        return Reached(_tree(step.arrays, start.state), note["history"], tuple(note["before"]))

    def _newest(self) -> saved_steps.SavedStep | None:
        step = saved_steps.newest(self.folder)
        if step is not None:
            refuse_other(step, self.identity, self.folder)
            code = step.note["setting"]["code"]
            if not same_numbers(code, self.identity["setting"]["code"], self.id):
                aside = self.folder.with_name(f"steps-{code}")
                print(
                    f"{self.folder} was saved by other code than today's: moved to {aside.name}, "
                    "and the run starts anew.",
                    file=sys.stderr,
                )
                shutil.rmtree(aside, ignore_errors=True)
                self.folder.rename(aside)
                return None
        saved_steps.forget(self.folder, after=-1 if step is None else step.step)
        return step

    # --- saving ---

    def save_due(self, step: int, at: Reached) -> None:
        """To be called after every step: saves what is due. Preempted: SIGTERM came."""
        now = time.monotonic()
        evaluated = bool(at.history) and at.history[-1]["step"] == step
        if self.asked(step):
            self._save(step, at, evaluated)
            self.writer.wait()
            raise Preempted(f"Stopped by SIGTERM, saved at step {step}.")
        best = evaluated and at.history[-1]["val_accuracy"] > self.best
        if evaluated:
            self.best = max(self.best, at.history[-1]["val_accuracy"])
        if now - self.saved_at >= self.save_every or (best and self.saved >= 0):
            self._save(step, at, evaluated)
        self._beat(step, now, at)

    def _save(self, step: int, at: Reached, evaluated: bool) -> None:
        self.saved, self.saved_at = step, time.monotonic()
        if mesh.process() != 0:
            return
        note = self.identity | {
            "history": list(at.history),  # the run adds to its own while a thread writes this
            "before": list(at.before),
            "earlier": self.earlier,
        }
        score = at.history[-1]["val_accuracy"] if evaluated else None
        self.writer.save(step, _arrays(at.state), note, score)

    def _beat(self, step: int, now: float, at: Reached) -> None:
        """Tell how far the run is: the mean loss of the steps since it was told last."""
        if now - self.beat_at < BEAT:
            return
        before, loss = self.beat_from
        total = float(at.state.loss_sum)
        if before and step > before:
            self.on_report({"step": step, "train_loss": (total - loss) / (step - before)})
        self.beat_at, self.beat_from = now, (step, total)

    # --- the end ---

    def interruptions(self) -> dict:
        """What a record says of a run that was stopped: where it went on, and what ran before."""
        return {"resumed": self.earlier} if self.earlier else {}

    def finish(self) -> None:
        """The run is saved as a whole: of its steps the best stays."""
        if mesh.process() == 0:
            self.writer.wait()
            saved_steps.keep_best(self.folder)

    def close(self) -> None:
        """End the thread that writes."""
        self.writer.close()


def best(folder: Path, like: Any) -> tuple[int, Any]:
    """(step, state) of the best validation accuracy among the saved steps of the run in `folder`.

    like: a state of its recipe. UserError: it saved none, or that one is damaged.
    """
    steps = Path(folder) / "steps"
    step = saved_steps.best_step(steps)
    if step is None:
        raise UserError(
            f"no best step in {steps}: a run keeps one if it takes longer than --save-every."
        )
    try:
        return step, _tree(saved_steps.read(steps, step).arrays, like)
    except saved_steps.Damaged as error:
        raise UserError(f"step {step} in {steps} is damaged ({error}): leave out --best.") from None


def refuse_other(step: saved_steps.SavedStep, identity: dict, folder: Path) -> None:
    """UserError, if the step was saved by another recipe or seed: it names what differs."""
    saved = Recipe.from_dict(step.note["recipe"])
    wanted = Recipe.from_dict(identity["recipe"])
    edits = {name: (getattr(saved, name), value) for name, value in diff(saved, wanted).items()}
    if step.note["seed"] != identity["seed"]:
        edits["seed"] = (step.note["seed"], identity["seed"])
    if edits:
        text = ", ".join(f"{name} {old!r}, not {new!r}" for name, (old, new) in edits.items())
        raise UserError(
            f"{folder} holds steps of another run ({text}): move it away or give another --out."
        )


def _arrays(state) -> dict[str, np.ndarray]:
    """{path: array} of a state, copied to this process's memory."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    return {jax.tree_util.keystr(path): np.array(leaf) for path, leaf in leaves}


def _tree(arrays: dict[str, np.ndarray], like):
    """The state that `_arrays` was given; like: one of its structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path) for path, _ in leaves]
    return jax.tree.unflatten(structure, [jax.numpy.asarray(arrays[name]) for name in names])
