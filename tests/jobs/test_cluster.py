"""Jobs of a cluster: the contract of the pool, on this machine and by imitated SLURM commands."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.bn_ablation import EXPERIMENT
from tests.conftest import ROOT
from tests.jobs import fake_slurm, pool_jobs
from tests.jobs.test_pool import Log, gone, job
from tests.support.result_lines import line
from vggbn.commands.experiment import run
from vggbn.errors import UserError
from vggbn.jobs import cluster, pool
from vggbn.jobs.pool import Events, Job
from vggbn.runs import many as train_many
from vggbn.runs import run as runs
from vggbn.runs.place import Place
from vggbn.training.recipe import Recipe

pytest.importorskip("submitit")

TINY = Recipe(
    data="digits", image_size=8, split="fixed", model="mlp", norm="batch", activation="sigmoid",
    fc=8, steps=12, lr=0.1, evaluations=2, population_batches=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    """One thread a job, and no waiting for slow file systems."""
    import submitit

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setattr(cluster, "POLL", 0.05)
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0)
    monkeypatch.setattr(submitit.Job, "__del__", lambda self: None, raising=False)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of the imitated SLURM, whose commands are found first; no job outlives a test."""
    import submitit

    folder = tmp_path / "slurm"
    monkeypatch.setenv("PATH", f"{fake_slurm.install(folder)}:{os.environ['PATH']}")
    # submitit asks sacct again after 2 s and more.
    monkeypatch.setattr(submitit.SlurmJob.watcher, "_delay_s", 0)
    monkeypatch.setattr(
        submitit.SlurmJob.watcher, "update_if_long_enough",
        lambda mode: submitit.SlurmJob.watcher.update() if mode != "cache" else None,
    )  # fmt: skip
    submitit.SlurmJob.watcher.clear()
    submitit.SlurmJob.watcher._registered.clear()
    yield folder
    for path in folder.glob("*.pid"):
        if not path.with_suffix(".exit").exists():
            fake_slurm.scancel(folder, path.stem)


@pytest.fixture(params=["local", "slurm"])
def engine(request, tmp_path):
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    return cluster.engine(request.param, [], tmp_path / "cluster", 2)


@pytest.fixture
def on_slurm(slurm, tmp_path):
    return cluster.engine("slurm", [], tmp_path / "cluster", 2)


def do(engine, *jobs):
    log = Log()
    engine.run(list(jobs), pool_jobs.work, log.events())
    return log


def arrays(folder: Path) -> list[int]:
    """The number of jobs of each call of sbatch."""
    calls = (folder / "calls").read_text().split("\0")[:-1]
    return [int(c.split("--array=0-")[1].split("%")[0]) + 1 if "--array" in c else 1 for c in calls]


def wait_for(condition, seconds=600):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def moved(pids):
    """As SLURM does it: by a signal to all processes of the job."""
    for pid in pids:
        os.kill(pid, signal.SIGUSR2)


class Killed(Exception):
    """As a signal that kills the submitting process: nobody cancels its jobs."""


# --- the contract of the pool --------------------------------------------------------------------


def test_results_failures_and_reports_arrive(engine):
    log = do(
        engine,
        job("talk", 0, "talk", [{"step": 1}, 2.5]),
        job("bad", 0, "fail", "no such number"),
        job("facts", 0, "facts", "x"),
    )
    assert log.of("result").keys() == {"talk", "facts"}
    assert log.of("result")["facts"]["argument"] == "x"
    assert log.of("result")["facts"]["pid"] != os.getpid()
    assert [(kind, value) for kind, name, value in log if name == "talk"] == [
        ("report", {"step": 1}),
        ("report", 2.5),
        ("result", "said"),
    ]
    assert "ValueError: no such number" in log.of("failure")["bad"]


def test_nothing_is_left_of_jobs_that_are_done_but_their_logs(engine, tmp_path):
    do(engine, job("talk", 0, "talk", [1]))
    left = {path.suffix for path in (tmp_path / "cluster").iterdir()}
    assert left - {".sh"} == {".out", ".err"}


def test_a_job_has_the_environment_of_a_worker(engine, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    names = ["NPROC", "OMP_NUM_THREADS", "XLA_FLAGS"]
    log = do(
        engine, job("env", 0, "environment", names), job("mods", 0, "imported", ["numpy", "jax"])
    )
    assert log.of("result")["env"] == {
        "NPROC": "1",
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_gpu_deterministic_ops=true --xla_cpu_multi_thread_eigen=false",
    }


def test_a_job_waits_for_those_it_comes_after(engine):
    child = Job("child", 0, ("facts", None), frozenset({"parent"}))
    log = do(engine, child, job("parent", 0, "facts"))
    assert [name for _, name, _ in log] == ["parent", "child"]


@pytest.mark.parametrize(("times", "kind"), [(1, "result"), (9, "failure")])
def test_a_job_that_is_killed_is_done_again_once(engine, tmp_path, times, kind):
    log = do(engine, job("dies", 0, "die", [str(tmp_path / "died"), times]))
    assert [what for what, *_ in log] == [kind]
    assert (tmp_path / "died").stat().st_size == 2
    assert kind == "result" or "died 2 times" in log.of("failure")["dies"]


@pytest.mark.parametrize(("times", "kind"), [(1, "result"), (9, "failure")])
def test_so_is_one_that_is_killed_with_all_its_processes(engine, tmp_path, times, kind):
    log = do(engine, job("dies", 0, "die_whole", [str(tmp_path / "died"), times]))
    assert [what for what, *_ in log] == [kind]
    assert (tmp_path / "died").stat().st_size == 2
    assert kind == "result" or "left no answer 2 times" in log.of("failure")["dies"]


def test_a_mistake_of_the_users_ends_it_all(engine, capsys):
    with pytest.raises(UserError, match="no such data set"):
        do(engine, job("sleeper", 0, "sleep", 600), job("no", 0, "refuse", "no such data set."))
    # A sleeper that was waited for would be over, and not cancelled.
    assert "jobs that are cancelled: 1." in capsys.readouterr().err


@pytest.mark.parametrize("background", [False, True])
def test_ctrl_c_cancels_what_was_submitted(engine, capsys, monkeypatch, background):
    """background: started by a shell with &, which has Ctrl-C ignored; nobody is to be killed."""
    pids, before = [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cluster, "PATIENCE", 10_000)

    def interrupted(_, pid):
        pids.append(pid)
        raise KeyboardInterrupt

    events = Events(interrupted, lambda *_: None, lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN if background else signal.default_int_handler)
        try:
            engine.run([job("sleeper", 0, "sleep", 10_000)], pool_jobs.work, events)
        finally:
            signal.signal(signal.SIGINT, before)
    wait_for(lambda: gone(pids[0]))
    assert "jobs that are cancelled: 1." in capsys.readouterr().err


def test_a_job_that_is_deaf_to_its_cancelling_is_killed_and_reaped(tmp_path, monkeypatch):
    """As one whose command was started in the background, where a shell has Ctrl-C ignored."""
    import submitit

    code = "import signal, time; signal.signal(2, signal.SIG_IGN); print('deaf'); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE)
    with process.stdout:
        process.stdout.readline()
    theirs = submitit.LocalJob(tmp_path, str(process.pid), process=process)
    monkeypatch.setattr(cluster, "PATIENCE", 0.1)
    cluster._cancel([cluster._Flight(job("deaf", 0, "sleep"), theirs, tmp_path / "s")], wait=True)
    assert process.returncode == -signal.SIGKILL


def test_a_job_that_is_moved_elsewhere_goes_on_there(engine, tmp_path):
    """submitit's signal for preemption, and for the end of a job's time, puts it in the queue."""
    results = []
    events = Events(
        lambda _, pids: moved(pids),
        lambda _, value: results.append(value),
        lambda _, text: pytest.fail(text),
    )
    engine.run([job("moved", 0, "resume", [str(tmp_path / "been"), 1])], pool_jobs.work, events)
    assert results == ["went on"]
    assert (tmp_path / "been.saved").exists()
    assert len(list((tmp_path / "cluster").glob("*_log.out"))) == 1, "it is the same job"


def test_sigterm_is_no_failure_however_often_it_comes(engine, tmp_path):
    """As where SLURM wants the node for another job: the job is submitted again, and again."""
    results = []
    events = Events(
        lambda _, pids: [os.kill(pid, signal.SIGTERM) for pid in pids],
        lambda _, value: results.append(value),
        lambda _, text: pytest.fail(text),
    )
    engine.run([job("moved", 0, "resume", [str(tmp_path / "been"), 2])], pool_jobs.work, events)
    assert results == ["went on"]
    assert len(list((tmp_path / "cluster").glob("*_log.out"))) == 3


def test_a_report_that_is_being_written_has_to_wait(tmp_path):
    flight = cluster._Flight(job("any", 0, "facts"), None, tmp_path / "stem")
    assert flight.news() == []
    path = tmp_path / "stem.reports"
    path.write_text('{"step": 1}\n{"st')
    assert flight.news() == [{"step": 1}]
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert flight.news() == [{"step": 2}]
    assert flight.news() == []


# --- SLURM ---------------------------------------------------------------------------------------


def test_what_is_ready_is_one_array_and_children_another(on_slurm, slurm):
    parents = [job(f"parent {i}", 0, "facts") for i in range(3)]
    children = [
        Job(f"child {i}", 0, ("facts", i), frozenset(p.name for p in parents)) for i in (0, 1)
    ]
    log = do(on_slurm, *children, *parents)
    assert len(log.of("result")) == 5
    assert arrays(slurm) == [3, 2]
    assert "--array=0-2%2" in (slurm / "calls").read_text(), "--jobs 2: two at a time"


def test_settings_reach_sbatch(slurm, tmp_path):
    given = "partition=gpu gpus_per_node=1 time=90 mem=16GB setup=true".split()
    engine = cluster.engine("slurm", given, tmp_path / "cluster", None)
    assert engine.workers == cluster.AT_ONCE
    do(engine, job("facts", 0, "facts"))
    text = (slurm / "calls").read_text()
    for option in ("partition=gpu", "gpus-per-node=1", "time=90", "mem=16GB", "job-name=vggbn"):
        assert f"#SBATCH --{option}\n" in text
    assert "# setup\ntrue\n" in text


@pytest.mark.parametrize("held", [True, False])
def test_jobs_of_a_killed_command_are_waited_for_and_not_submitted_again(
    on_slurm, slurm, tmp_path, held
):
    """Whether they still wait in the queue or run."""
    jobs = [job(f"slow {i}", 0, "resume", [str(tmp_path / f"been {i}"), 1]) for i in (0, 1)]
    (slurm / "hold").touch()

    def kill(*_):
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(cluster._Flight, "news", kill)
        on_slurm.run(jobs, pool_jobs.work, Log().events())
    if not held:
        (slurm / "hold").unlink()
        wait_for(lambda: (tmp_path / "been 1").exists() and (tmp_path / "been 0").exists())
    log = Log()
    heard = log.events()

    again = cluster.engine("slurm", [], tmp_path / "cluster", 2)
    if held:
        (slurm / "hold").unlink()
    again.run(jobs, pool_jobs.work, heard._replace(on_report=lambda _, pids: moved(pids)))
    assert log.of("result") == {"slow 0": "went on", "slow 1": "went on"}
    assert arrays(slurm) == [2]


def test_what_slurm_refuses_is_a_sentence(slurm, tmp_path):
    engine = cluster.engine("slurm", ["partition=nowhere"], tmp_path / "cluster", None)
    with pytest.raises(UserError, match=r"SLURM refuses.*invalid partition.*--cluster-set"):
        do(engine, job("facts", 0, "facts"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--cluster slrm", "unknown cluster 'slrm'. Did you mean 'slurm'"),
        ("--cluster slurm", "finds no srun"),
        ("--cluster local --cluster-set partition=gpu", "unknown cluster setting 'partition'"),
        ("--cluster local --cluster-set timeout_min", "takes name=value"),
        ("--cluster local --cluster-set timeout_min=1:00", "whole number of minutes, not '1:00'"),
        ("--cluster-set time=60", "for --cluster slurm or local only"),
        ("--cluster local --jobs 0", "--jobs 0 is this process"),
    ],
)
def test_a_mistake_gets_a_sentence(flags, words, tmp_path):
    with pytest.raises(UserError) as refused:
        run(EXPERIMENT, ["--out", str(tmp_path), *flags.split()])
    assert words in str(refused.value)


@pytest.mark.parametrize("setting", ["partitoin=gpu", "nodes=2", "additional_parameters=x"])
def test_slurm_settings_that_are_not_there(slurm, tmp_path, setting):
    with pytest.raises(UserError, match=r"unknown cluster setting.*Valid: account,.*partition"):
        cluster.engine("slurm", [setting], tmp_path / "cluster", None)


def test_without_submitit_the_command_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="EXTRAS=slurm"):
        cluster.engine("local", [], tmp_path, None)


# --- runs ----------------------------------------------------------------------------------------

RECIPES = {"a": TINY, "b": TINY.but(lr=0.02)}


def wanted(place):
    store = runs.Store(Path(place) / "runs")
    return {f"{name} seed 0": Place(recipe, 0, store) for name, recipe in RECIPES.items()}


def train(engine, place, setting=None, log=None):
    records = {}
    write = records.__setitem__
    failures = train_many.train_many(wanted(place), engine, write, setting=setting, log=log)
    assert failures == 0
    return records


def local_engine(place):
    return cluster.engine("local", [], Path(place) / "cluster", 2)


class Deadly:
    """A log at whose first word the process is killed."""

    def report(self, run, record):
        os.kill(os.getpid(), signal.SIGKILL)


KILLED = """
import sys
from tests.jobs import test_cluster as t
from vggbn.runs.loggers import Logs
t.train(t.local_engine(sys.argv[1]), sys.argv[1], log=Logs({"deadly": t.Deadly()}))
"""


def test_the_setting_of_a_cluster_is_asked_of_a_job_there():
    def run_jobs(jobs, work, events):
        (asked,) = jobs
        events.on_result(asked, {"device": "of the node"})

    engine = pool.Engine(run_jobs, 1, here=False)
    assert train_many.worker_setting(engine) == {"device": "of the node"}


def test_runs_of_another_kind_of_node_are_told_of(tmp_path, capsys):
    """They cannot be paired with the others, and would be run again and again."""
    here = {"device": "cpu: a"}

    def run_jobs(jobs, work, events):
        for each, device in zip(jobs, ("cpu: a", "cpu: b"), strict=True):
            events.on_result(each, line(setting={"device": device}))

    train(pool.Engine(run_jobs, 2, here=False), tmp_path, here)
    said = capsys.readouterr().err
    assert "1 of these runs" in said and "--cluster-set constraint=" in said
    train(pool.Engine(run_jobs, 2, here=False), tmp_path)
    assert capsys.readouterr().err == ""


def without_times(record):
    """What two runs of one recipe share on one machine, bit for bit."""
    return {k: v for k, v in record.items() if k not in ("finished", "seconds")}


def test_runs_equal_those_of_the_pool_and_outlive_their_command(tmp_path):
    """The next command finds them all, and submits nothing."""
    there, here = tmp_path / "there", tmp_path / "here"
    command = [sys.executable, "-c", KILLED, str(there)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    folders = [store.folder(*run) for *run, store in wanted(there).values()]
    wait_for(lambda: all((folder / "run.json").exists() for folder in folders))
    setting = train_many.worker_setting(local_engine(there))
    assert setting == train_many.worker_setting(pool.local(1))
    idle = pool.Engine(lambda jobs, *_: [pytest.fail(name) for name, *_ in jobs], 1, here=False)
    found, trained = train(idle, there, setting), train(pool.local(1), here)
    assert found.keys() == trained.keys() == wanted(here).keys()
    for name in trained:
        assert without_times(found[name]) == without_times(trained[name])
    assert found["a seed 0"]["final"] != found["b seed 0"]["final"]
