"""How many jobs share an accelerator, found while they work; no accelerator is needed."""

import os
import stat
import time

import pytest

from vggbn.errors import UserError
from vggbn.jobs import pool, sharing
from vggbn.jobs.pool import Events, Job
from vggbn.jobs.sharing import TRIAL, Sharing


class Card:
    """An accelerator on which n jobs get speed(n) steps a second done, on a clock of its own."""

    def __init__(self, speed, most=16, memory=lambda: None, kinds=1):
        self.now, self.speed, self.busy, self.at = 0.0, speed, [], {}
        self.sharing = Sharing(most, memory, lambda job: 10, lambda: self.now)
        self.waiting = [Job(f"job {i}", i % kinds, None) for i in range(60)]

    def run(self, seconds=200.0, compiling=0.0):
        """Let it work; the most jobs that ever were busy at once, and all numbers in turn."""
        numbers, began = [], {}
        while self.now < seconds:
            if self.waiting and self.sharing.may_start(self.waiting[0], self.busy):
                self.busy.append(self.waiting.pop(0))
                began[self.busy[-1].name] = self.now
            self.now += 0.5
            for job in self.busy:
                if self.now - began[job.name] < compiling:
                    self.sharing.heard(job, {"started": True})
                    continue
                rate = self.speed(len(self.busy)) / len(self.busy)
                self.at[job.name] = self.at.get(job.name, 0.0) + 0.5 * rate
                self.sharing.heard(job, {"step": int(self.at[job.name])})
            numbers.append(len(self.busy))
        return numbers


@pytest.mark.parametrize(
    "speed, expected",
    [
        (lambda n: 1000.0 * min(n, 6), 8),  # 8 get half as much again as 4, 16 no more
        (lambda n: 1000.0, 1),
        (lambda n: 1000.0 * min(n, 2), 2),
        (lambda n: 1000.0 * n, 16),
    ],
)
def test_twice_as_many_while_they_get_more_done(speed, expected):
    card = Card(speed)
    card.run()
    assert card.sharing.settled and card.sharing.allowed == expected


def test_what_memory_holds_is_the_limit():
    card = Card(lambda n: 1000.0 * n, memory=lambda: (1000.0 * len(card.busy), 6000.0))
    card.run()
    assert card.sharing.allowed == 5  # nine tenths of 6,000


def test_one_compiles_first_and_the_others_wait():
    card = Card(lambda n: 1000.0 * n)
    numbers = card.run(seconds=60, compiling=30.0)
    assert set(numbers[: int(30 / 0.5) - 1]) == {1}
    assert max(numbers) > 1
    other = Sharing(4, lambda: None, lambda job: 1)
    other.allowed, first = 4, Job("a", "net", None)
    assert not other.may_start(Job("b", "net", None), [first])
    assert other.may_start(Job("c", "another", None), [first])
    other.heard(first, {"step": 1})
    assert other.may_start(Job("b", "net", None), [first])


def test_a_trial_begins_anew_when_a_job_ends():
    shared = Sharing(2, lambda: None, lambda job: 1, clock := iter(range(1000)).__next__)
    job = Job("a", 0, None)
    shared.heard(job, {"step": 0})
    for step in range(int(TRIAL) - 2):
        shared.heard(job, {"step": step})
    shared.ended(job)
    shared.heard(job, {"step": 0})
    shared.heard(job, {"step": 5})
    assert shared.allowed == 1 and not shared.settled
    assert clock() > TRIAL


def test_the_pool_asks_and_tells(monkeypatch):
    given, told = {}, []

    def run_jobs(jobs, work, events, **limits):
        given.update(limits)
        events.on_report(jobs[0], {"step": 3})
        events.on_result(jobs[0], "done")

    monkeypatch.setattr(sharing, "run_jobs", run_jobs)
    shared = Sharing(3, lambda: None, lambda job: 1, settled=True)
    engine = sharing.engine(shared, until=5.0)
    note = lambda job, value: told.append((job.name, value))  # noqa: E731
    engine.run([Job("a", 0, None)], len, Events(note, note, note))
    assert told == [("a", {"step": 3}), ("a", "done")]
    assert (given["workers"], given["until"]) == (3, 5.0)
    assert given["may_start"](Job("b", 0, None), [Job("c", 0, None), Job("d", 0, None)])
    assert not given["may_start"](Job("b", 1, None), [Job("c", 1, None)])
    assert not given["may_start"](Job("b", 0, None), [Job(name, 2, None) for name in "cde"])


# --- NVIDIA's tools, played by scripts ------------------------------------------------------------


def tool(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_memory_is_what_the_driver_says(tools):
    assert sharing.gpu_memory() is None
    tool(tools, "nvidia-smi", "echo '1234, 81559'")
    assert sharing.gpu_memory() == (1234.0, 81559.0)
    tool(tools, "nvidia-smi", "echo '[N/A], [N/A]'")
    assert sharing.gpu_memory() is None


def test_the_daemon_runs_within_and_is_ended(tools):
    log = tools / "log"
    tool(
        tools,
        sharing.MPS,
        f'echo "$1 $CUDA_MPS_PIPE_DIRECTORY" >> {log}; [ -n "$1" ] || cat >> {log}',
    )
    with pytest.raises(RuntimeError, match="inside"), sharing.mps():
        folder = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
        assert log.read_text() == f"-d {folder}\n"
        raise RuntimeError("inside")
    assert log.read_text() == f"-d {folder}\n {folder}\nquit\n"
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ and not os.path.exists(folder)


def test_without_the_daemon_one_sentence_says_so(tools):
    with pytest.raises(UserError, match="comes with NVIDIA's driver"), sharing.mps():
        pass
    tool(tools, sharing.MPS, "echo 'no GPU' >&2; exit 1")
    with pytest.raises(UserError, match=r"does not start \(no GPU\)"), sharing.mps():
        pass


def test_time_ends_the_pool():
    with pytest.raises(pool.OutOfTime):
        pool._ready([], until=time.monotonic() - 1)
