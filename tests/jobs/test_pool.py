"""The pool of worker processes: what runs where, what survives, what is said of the rest."""

import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

import pytest

from tests.jobs import pool_jobs
from tests.machine import cache_jobs
from vggbn.errors import UserError
from vggbn.jobs import pool
from vggbn.jobs.pool import Events, Job, run_jobs
from vggbn.machine import environment, provenance
from vggbn.runs import many as train_many

PRECISION = "JAX_DEFAULT_MATMUL_PRECISION"


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    """One thread a worker, wherever the tests run; and no worker outlives its test."""
    monkeypatch.setattr(environment, "accelerated", lambda: False)
    yield
    assert multiprocessing.active_children() == []


class Log(list):
    """What the parent was told: (event, job name, value), in order."""

    def events(self):
        return Events(
            *(lambda job, value, kind=kind: self.append((kind, job.name, value))
              for kind in ("report", "result", "failure"))
        )  # fmt: skip

    def of(self, kind):
        return {name: value for event, name, value in self if event == kind}


def run(jobs, workers=1):
    """jobs: (name, kind, function of pool_jobs, its argument)."""
    log = Log()
    run_jobs([job(*given) for given in jobs], pool_jobs.work, log.events(), workers=workers)
    return log


def job(name, kind, function, argument=None):
    return Job(name, kind, (function, argument))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_every_job_is_done_in_some_worker_and_none_here():
    log = run([(f"job {i}", "kind", "facts", i) for i in range(6)], workers=2)
    results = log.of("result")
    assert [results[f"job {i}"]["argument"] for i in range(6)] == list(range(6))
    pids = {result["pid"] for result in results.values()}
    assert 1 <= len(pids) <= 2 and os.getpid() not in pids
    assert all(map(gone, pids)), "workers stop when the work is done"


def test_no_jobs_no_workers():
    assert run([], workers=2) == []


def test_a_worker_has_one_thread_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    before = dict(os.environ)
    log = run([("env", 0, "environment", ["NPROC", "XLA_FLAGS", "OMP_NUM_THREADS"])])
    assert log.of("result")["env"] == {
        "NPROC": "1",
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_gpu_deterministic_ops=true --xla_cpu_multi_thread_eigen=false",
    }
    assert dict(os.environ) == before


@pytest.fixture(scope="module")
def of_a_worker():
    """What a worker that starts jax finds: of its threads (see cache_jobs), and its setting."""
    log, functions = Log(), {"busy": cache_jobs.busy_threads, "setting": train_many._setting}
    jobs = [Job(name, 0, function) for name, function in functions.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "accelerated", lambda: False)
        run_jobs(jobs, cache_jobs.call, log.events(), workers=1)
    return log.of("result")


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's /proc")
def test_one_thread_of_a_worker_does_all_the_arithmetic(of_a_worker):
    busiest, *others = of_a_worker["busy"]
    assert busiest > 20, "too little work to tell"
    assert max(others) < busiest / 5


def test_a_worker_with_an_accelerator_multiplies_in_float32(monkeypatch):
    """And has every thread and all of the memory."""
    monkeypatch.setattr(environment, "accelerated", lambda: True)
    names = ["NPROC", "TF_CPP_MIN_LOG_LEVEL", "XLA_PYTHON_CLIENT_PREALLOCATE", PRECISION]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    log = run([("env", 0, "environment", names)])
    assert log.of("result")["env"] == dict.fromkeys(names) | {PRECISION: "highest"}


def test_workers_that_share_an_accelerator_leave_it_memory_and_heed_the_user(monkeypatch):
    monkeypatch.setattr(environment, "accelerated", lambda: True)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    monkeypatch.setenv(PRECISION, "tensorfloat32")
    names = ["XLA_PYTHON_CLIENT_PREALLOCATE", PRECISION]
    log = run([("env", 0, "environment", names)], workers=2)
    assert list(log.of("result")["env"].values()) == ["false", "tensorfloat32"]


@pytest.mark.parametrize(("own", "expected"), [(None, "3"), ("0", "0")])
def test_xla_logs_in_a_worker_only_what_the_user_asks_for(monkeypatch, own, expected):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if own is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", own)
    assert environment.worker_settings(False)["TF_CPP_MIN_LOG_LEVEL"] == expected


def test_the_setting_of_a_worker_is_known_without_starting_one(of_a_worker, monkeypatch):
    monkeypatch.setattr(provenance, "device", pytest.fail)
    engine = pool.Engine(pytest.fail, 1, here=True, threads=1)
    assert train_many.worker_setting(engine) == of_a_worker["setting"]
    assert of_a_worker["setting"]["threads"] == 1


def test_reports_arrive_before_the_result():
    assert run([("talk", 0, "talk", [1, 2])]) == [
        ("report", "talk", 1),
        ("report", "talk", 2),
        ("result", "talk", "said"),
    ]


def test_one_worker_finishes_a_kind_before_the_next():
    kinds = "ABABB"
    log = run([(f"{i}{kind}", kind, "facts", None) for i, kind in enumerate(kinds)])
    assert "".join(name[-1] for _, name, _ in log) == "BBBAA", "the most common kind goes first"


def idle(*kinds):
    return SimpleNamespace(kinds=set(kinds), job=None)


def test_a_job_waits_for_those_it_comes_after():
    crew = [idle(), idle("A")]
    child = job("child", "A", "facts")._replace(after=frozenset(["parent", "gone"]))
    pending = [child, job("parent", "A", "facts")]
    parent = pool._next_job(pending, crew[0], crew)
    assert parent.name == "parent"
    crew[0].job = parent
    assert pool._next_job(pending, crew[1], crew) is None and pending == [child]
    crew[0].job = None
    assert pool._next_job(pending, crew[1], crew) is child


@pytest.mark.parametrize("function", ["facts", "boom"])
def test_a_child_runs_when_its_parent_is_over_even_if_that_failed(function):
    log = Log()
    child = job("child", 0, "facts")._replace(after=frozenset(["parent"]))
    run_jobs([child, job("parent", 1, function)], pool_jobs.work, log.events(), workers=2)
    assert [name for event, name, _ in log if event != "report"] == ["parent", "child"]


def test_two_workers_take_different_kinds_while_they_can():
    crew = [idle() for _ in range(2)]
    pending = [job(f"{i}{kind}", kind, "facts") for i, kind in enumerate("AAABBB")]
    taken = []
    for worker in crew * 3:
        taken.append(pool._next_job(pending, worker, crew))
        worker.kinds.add(taken[-1].kind)
    assert [t.kind for t in taken] == list("ABABAB")
    assert pending == []


def test_jobs_are_taken_nearly_in_turn():
    """A worker of kind A would finish all A of 20 seeds before it looks at the first B."""
    crew = [idle("A")]
    pending = [job(f"seed {seed} {kind}", kind, "facts") for seed in range(20) for kind in "AB"]
    order, taken = [job.name for job in pending], []
    while pending:
        taken.append(pool._next_job(pending, crew[0], crew).name)
    assert taken[:3] == ["seed 0 A", "seed 1 A", "seed 2 A"]
    assert sorted(taken) == sorted(order)
    late = [taken.index(name) - order.index(name) for name in order]
    assert 0 < max(late) <= 2 * pool.AHEAD


def test_a_kind_is_shared_when_nothing_else_is_left():
    crew = [idle("A"), idle()]
    pending = [job("last", "A", "facts")]
    assert pool._next_job(pending, crew[1], crew).name == "last"


def test_the_job_of_a_killed_worker_is_done_again(tmp_path):
    jobs = [("killed", 0, "die", (str(tmp_path / "once"), 1)), ("other", 0, "facts", None)]
    log = run(jobs)
    assert log.of("result").keys() == {"killed", "other"}
    assert log.of("result")["killed"] == 2, "it ran twice"
    assert log.of("failure") == {}


def test_a_job_that_kills_its_worker_twice_fails_and_the_others_go_on(tmp_path):
    jobs = [("killer", 0, "die", (str(tmp_path / "always"), 99)), ("other", 0, "facts", None)]
    log = run(jobs)
    assert log.of("result").keys() == {"other"}
    assert "died 2 times" in log.of("failure")["killer"]
    assert (tmp_path / "always").stat().st_size == 2


def test_an_exception_is_told_with_its_traceback_and_the_others_go_on():
    jobs = [("bad", 0, "fail", "no such number"), ("good", 0, "facts", None)]
    log = run(jobs)
    assert log.of("result").keys() == {"good"}
    text = log.of("failure")["bad"]
    assert text.startswith("Traceback") and "ValueError: no such number" in text


def test_a_mistake_of_the_users_ends_it_all_at_once():
    log = Log()
    jobs = [job("sleeper", 0, "sleep", 600), job("refused", 1, "refuse", "no such data set.")]
    with pytest.raises(UserError, match="no such data set"):
        run_jobs(jobs, pool_jobs.work, log.events(), workers=2)
    assert log.of("result") == {}, "the sleeper was not waited for"
    assert all(map(gone, log.of("report").values()))


def test_an_interrupt_in_the_parent_stops_the_workers():
    pids = []

    def interrupted(_, pid):
        pids.append(pid)
        raise KeyboardInterrupt

    events = Events(interrupted, lambda *_: None, lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job("sleeper", 0, "sleep", 600)], pool_jobs.work, events, workers=1)
    assert gone(pids[0])


def test_an_interrupt_that_python_drops_is_heeded_all_the_same():
    """As where it is raised in a callback of the garbage collector."""
    heard = []

    def dropped(_, value):
        heard.append(value)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            pass

    before = signal.getsignal(signal.SIGINT)
    events = Events(dropped, lambda *_: None, lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job("talk", 0, "talk", [1, 2, 3])], pool_jobs.work, events, workers=1)
    assert heard == [1]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_worker_does_not_hear_ctrl_c_even_while_it_imports(monkeypatch):
    monkeypatch.setenv("POOL_JOBS_INTERRUPT", "1")
    log = run([("calm", 0, "facts", None)])
    assert log.of("result")["calm"]["interrupts"] == signal.SIG_IGN
    assert log.of("failure") == {}


def test_a_result_that_cannot_travel_is_a_failure(tmp_path):
    log = run([("odd", 0, "unpicklable", None), ("good", 0, "facts", None)])
    assert log.of("failure").keys() == {"odd"}
    assert log.of("result").keys() == {"good"}


@pytest.mark.parametrize(
    ("platforms", "installed", "vendors", "expected"),
    [
        ("cpu", ["libtpu"], ["0x1ae0"], False),
        ("cuda,cpu", [], [], True),
        ("", [], ["0x1ae0"], False),
        ("", ["libtpu"], ["0x8086", "0x1ae0"], True),
        ("", ["libtpu"], ["0x8086"], False),  # it is there to compile for TPUs elsewhere
        ("", ["jax_plugins"], [], True),
    ],
)
def test_an_accelerator_is_seen_without_starting_jax(
    monkeypatch, tmp_path, platforms, installed, vendors, expected
):
    monkeypatch.undo()
    for i, vendor in enumerate(vendors):
        device = tmp_path / f"0000:00:{i:02}.0"
        device.mkdir()
        (device / "vendor").write_text(f"{vendor}\n")
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(environment, "find_spec", lambda name: name in installed)
    monkeypatch.setattr(environment, "PCI", tmp_path)
    assert environment.accelerated() is expected
    assert pool.default_workers() == (1 if expected else os.cpu_count())
