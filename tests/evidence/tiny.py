"""A tiny experiment with three questions, for the queue: an MLP of 8×8 digits, twenty steps."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from vggbn.evidence.queue import Queue, work_off
from vggbn.experiment.design import Claim, Experiment, Size, Verdict
from vggbn.experiment.judges import verdict_interval
from vggbn.experiment.plan import Plan, make_plan
from vggbn.experiment.views import view
from vggbn.jobs import pool
from vggbn.machine import compiling
from vggbn.runs.many import worker_setting
from vggbn.runs.place import Store
from vggbn.training.recipe import Recipe

BASE = Recipe(
    model="mlp", fc=8, data="digits", image_size=8, batch=32, steps=20, evaluations=2,
    split="fixed", dropout=0.0,
)  # fmt: skip


def gain(arm: str):
    """The judge that asks for `arm` and for plain."""

    def judge(results) -> Verdict:
        seeds = results.seeds("plain", arm)
        ours, base = results.final(arm), results.final("plain")
        return Verdict("inconclusive", verdict_interval([ours[s] - base[s] for s in seeds]), "")

    return judge


def claim(name: str, arm: str, **more) -> Claim:
    return Claim(id=name, sentence="s", criterion="c", judge=gain(arm), **more)


EXPERIMENT = Experiment(
    name="tiny",
    title="Tiny",
    question="?",
    base=BASE,
    variants=lambda base, size: {
        "start": base,
        "plain": base.but(lr=0.02),
        "fast": base.but(lr=0.2),
        "slow": base.but(lr=0.001),
        "long": base.but(steps=2000),
    },
    sizes={"full": Size(seeds=7)},
    claims=(
        claim("T-1", "slow"),
        claim("T-2", "long", is_primary=True),
        claim("T-3", "fast", is_primary=True),
        claim("T-4", "twice", primary="mnist5k"),
        Claim(id="T-5", sentence="s", not_tested="nobody can"),
    ),
    views=lambda variants: {"twice": view("slow", 8, by=("by_batch",), mirrored=False)},
    any_images={},
)


def tiny_plan(out: Path, *, data: str = "digits", seeds: int = 7) -> Plan:
    experiment = replace(EXPERIMENT, sizes={"full": Size(seeds=seeds)})
    return make_plan(experiment, "full", out=out, data=data)


def queue_of(plan: Plan, folder: Path, engine: pool.Engine) -> Queue:
    queue = Queue([Store(folder / "runs")], worker_setting(engine), lambda: engine.workers)
    queue.add(plan)
    return queue


if __name__ == "__main__":  # what is killed, and begun again
    compiling.tune_process()
    place = Path(sys.argv[1])
    processes = pool.local(1)
    work = queue_of(tiny_plan(place / "results", seeds=2), place, processes)
    sys.exit(work_off(work, processes, None, print))
