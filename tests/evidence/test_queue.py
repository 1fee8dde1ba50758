"""The queue at work: what fits, what is left, and what survives a kill."""

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.evidence.test_agenda import HERE, write
from tests.evidence.tiny import EXPERIMENT, claim, queue_of, tiny_plan
from tests.support.result_lines import line
from vggbn.claims import results
from vggbn.evidence import queue as queues
from vggbn.evidence.agenda import Block, questions
from vggbn.evidence.pace import Pace
from vggbn.evidence.queue import choose, overview, work_off
from vggbn.experiment.plan import make_plan
from vggbn.jobs import here, pool
from vggbn.machine import environment


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(environment, "accelerated", lambda: False)


# --- what fits ------------------------------------------------------------------------------------


def five(tmp_path, n=5):
    """Blocks of one plan, and one of another."""
    plan, other = tiny_plan(tmp_path), tiny_plan(tmp_path, data="mnist5k")
    mine = [Block(questions(plan)[0], seed, ("slow",), ()) for seed in range(n)]
    return [*mine, Block(questions(other)[0], 0, ("slow",), ())]


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(queues.time, "monotonic", lambda: 1000.0)


def test_a_round_is_of_one_plan(tmp_path, clock):
    every = five(tmp_path)
    assert choose(every, lambda block: [1.0], 1, None) == every[:5]
    assert choose(every[5:], lambda block: [1.0], 1, None) == every[5:]


def test_a_round_takes_what_fits_in_the_time_of_all_processes(tmp_path, clock):
    every = five(tmp_path)
    assert len(choose(every, lambda block: [10.0, 10.0], 2, 1035.0)) == 3
    assert choose(every, lambda block: [40.0], 2, 1035.0) == []  # a run, not two
    slow_first = lambda block: [50.0] if block.seed == 0 else [10.0]  # noqa: E731
    assert [b.seed for b in choose(every, slow_first, 1, 1025.0)] == [1, 2]
    assert choose(every, lambda block: [0.0], 2, 1000.0) == []


def test_what_nobody_has_timed_is_a_round_of_its_own(tmp_path, clock):
    every = five(tmp_path)
    assert choose(every, lambda block: None, 2, 1001.0) == every[:1]
    unknown_third = lambda block: None if block.seed == 2 else [1.0]  # noqa: E731
    assert choose(every, unknown_third, 2, math.inf) == every[:2]


# --- how long runs take ---------------------------------------------------------------------------


def timed(plan, name, seed, seconds, setting=HERE):
    recipe = plan.variants[name]
    own = {"steps": recipe.steps, "batch": recipe.batch}
    found = line(name, seed, id=recipe.id, setting=setting, seconds={"all": seconds}, recipe=own)
    results.append(plan.results_path, found)


def test_pace_is_that_of_the_lines_of_this_machine(tmp_path):
    plan = tiny_plan(tmp_path)
    question = questions(plan)[0]
    block = Block(question, 0, ("slow", "long"), ("twice",))
    assert Pace(plan, HERE).seconds(block) is None
    timed(plan, "slow", 0, 500.0, HERE | {"device": "another"})
    assert Pace(plan, HERE).seconds(block) is None
    for seed, seconds in enumerate((2.0, 4.0, 9.0)):
        timed(plan, "slow", seed, seconds, HERE | {"jaxlib": "another"})
    # long: 100 times the images.
    assert Pace(plan, HERE).seconds(block) == [4.0, 400.0, 0.0]


# --- at work --------------------------------------------------------------------------------------


def keys(path: Path) -> list[tuple]:
    return sorted((found["variant"], found["seed"]) for found in results.read(path))


def test_all_is_done_once_and_each_look_is_told(tmp_path):
    plan, said = tiny_plan(tmp_path / "results", seeds=2), []
    engine = here.engine()
    queue = queue_of(plan, tmp_path, engine)
    assert "not timed here yet" in overview(queue)
    assert work_off(queue, engine, None, said.append) == 0
    every = [(name, seed) for name in (*plan.variants, "twice") for seed in (0, 1)]
    assert keys(plan.results_path) == sorted(every)
    looked = [text for text in said if text.startswith("look at 2 seeds: T-")]
    assert {text.split(": ")[1].split()[0] for text in looked} == {"T-1", "T-2", "T-3", "T-4"}
    assert overview(queue).endswith("Nothing is missing.")
    assert work_off(queue_of(plan, tmp_path, engine), engine, None, said.append) == 0
    assert keys(plan.results_path) == sorted(every)


def test_a_run_that_fails_is_not_tried_again(tmp_path, monkeypatch):
    plan, tried = tiny_plan(tmp_path, seeds=2), []

    def fail(plan, store, missing, engine, setting):
        tried.append(missing)
        return len(missing)

    monkeypatch.setattr(queues, "train_missing", fail)
    monkeypatch.setattr(queues, "view_missing", lambda *_: 0)
    engine = here.engine()
    queue = queue_of(plan, tmp_path, engine)
    assert work_off(queue, engine, None, lambda text: None) == sum(map(len, tried)) > 0
    assert len(tried) < 20


def test_it_stops_when_the_time_is_over(tmp_path, monkeypatch):
    plan, said = tiny_plan(tmp_path, seeds=2), []

    def too_long(*_):
        raise pool.OutOfTime

    monkeypatch.setattr(queues, "train_missing", too_long)
    engine = here.engine()
    assert work_off(queue_of(plan, tmp_path, engine), engine, None, said.append) == 0
    assert said[-1].startswith("The time is over")


def test_what_the_gate_refuses_gets_no_more_seeds(tmp_path):
    plan = tiny_plan(tmp_path)
    write(plan, [(arm, seed) for arm in ("start", "plain", "fast") for seed in range(5)])
    queue = queue_of(plan, tmp_path, here.engine())
    third = next(q for q in queue.questions if q.claim.id == "T-3")
    queue.setting = HERE
    queue.update(plan)
    assert queue.done(third) == 5 and not queue.refusal(third)
    untrained = [json.loads(text) for text in plan.results_path.read_text().splitlines()]
    for found in untrained:
        found["history"] = [record | {"train_accuracy": 0.1} for record in found["history"]]
    plan.results_path.write_text("".join(json.dumps(found) + "\n" for found in untrained))
    queue.update(plan)
    assert "untrained" in queue.refusal(third)
    assert "more decide nothing: untrained" in overview(queue)
    assert third.name not in {block.question.name for block in queue.blocks()}


def test_what_another_claim_has_run_stands_behind_it(tmp_path):
    experiment = replace(EXPERIMENT, claims=(claim("T-1", "slow"), claim("T-0", "slow")))
    plan = make_plan(experiment, "full", out=tmp_path, data="digits")
    text = overview(queue_of(plan, tmp_path, here.engine())).splitlines()
    assert text[0].endswith(
        "T-0 of tiny on digits  0 of 7 seeds, next look at 5: not timed here yet"
    )
    assert text[1].endswith(
        "T-1 of tiny on digits  0 of 7 seeds, next look at 5: by the runs of other claims"
    )


def test_what_stays_as_it_was_is_judged_once(tmp_path, monkeypatch):
    judged = []
    judge = queues.judge
    monkeypatch.setattr(queues, "judge", lambda *a: judged.append(a) or judge(*a))
    plan = tiny_plan(tmp_path)
    write(plan, [(arm, seed) for arm in ("start", "plain", "fast") for seed in range(5)])
    queue = queue_of(plan, tmp_path, here.engine())
    overview(queue)
    overview(queue)
    assert len(judged) == 1
    queue.update(plan)
    assert len(judged) == 2


def test_a_kill_loses_no_line_and_doubles_none(tmp_path):
    """It is killed when it has written some lines, and begun again."""
    command = [sys.executable, "-m", "tests.evidence.tiny", str(tmp_path)]
    plan = tiny_plan(tmp_path / "results", seeds=2)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while len(results.read(plan.results_path)) < 2 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    every = sorted((name, seed) for name in (*plan.variants, "twice") for seed in (0, 1))
    before = keys(plan.results_path)
    assert 2 <= len(before) < len(every)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert keys(plan.results_path) == every
