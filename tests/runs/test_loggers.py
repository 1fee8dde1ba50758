"""Logs of learning curves: what is written, what a killed or a failing writer leaves."""

import csv
import struct
import sys
import types
from dataclasses import asdict

import pytest

from experiments.bn_ablation import EXPERIMENT
from tests.support.result_lines import line
from vggbn.commands.experiment import run
from vggbn.errors import UserError
from vggbn.jobs import pool
from vggbn.runs import loggers
from vggbn.runs import many as train_many
from vggbn.runs.loggers import COLUMNS, Csv, Logged, Logs, TensorBoard, WandB, open_logs
from vggbn.runs.place import Place
from vggbn.training.recipe import Recipe

RECIPE = Recipe(model="mlp", fc=8)
RUN, OTHER = Logged("bn+lr_x5 seed 3", RECIPE, 3), Logged("base seed 0", RECIPE.but(lr=0.5), 0)


def point(step, accuracy=0.5, **more):
    return {
        "step": step,
        "lr": 0.125,
        "train_loss": 1.5,
        "train_accuracy": 0.25,
        "val_loss": 0.75,
        "val_accuracy": accuracy,
    } | more


def record(*points, test=0.875):
    return line(test=test) | {"history": list(points)}


def rows(folder):
    with open(folder / "curves.csv", newline="") as file:
        return list(csv.DictReader(file))


# --- which ---------------------------------------------------------------------------------------


def test_an_unknown_log_is_refused_by_name(tmp_path):
    with (
        pytest.raises(UserError, match=r"unknown log 'tensorbord'.*Valid: csv, tensorboard, wandb"),
        open_logs(["csv", "tensorbord"], tmp_path, "exp"),
    ):
        pass


@pytest.mark.parametrize(("kind", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_is_refused_before_anything_is_trained(
    kind, package, tmp_path, monkeypatch
):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None if name == package else True)
    monkeypatch.setattr(pool, "run_jobs", pytest.fail)
    argv = ["--size", "smoke", "--data", "digits", "--out", str(tmp_path), "--log", kind]
    with pytest.raises(UserError, match=rf"{package}: make install EXTRAS={kind}, or pip install"):
        run(EXPERIMENT, argv)


def test_no_log_writes_nothing(tmp_path):
    with open_logs([], tmp_path, "exp") as log:
        log.report(RUN, point(10))
        log.finished(RUN, record(point(10)))
    assert list(tmp_path.iterdir()) == []


def test_a_log_named_twice_is_kept_once(tmp_path):
    with open_logs(["csv", "csv"], tmp_path, "exp") as log:
        log.report(RUN, point(10))
    assert len(rows(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "arm"),
    [("bn seed 0", "bn"), ("no BN, rate 0.01, seed 12", "no BN, rate 0.01"), ("seed 1", "seed 1")],
)
def test_the_arm_is_the_name_without_its_seed(name, arm):
    assert Logged(name, RECIPE, 0).arm == arm


# --- all of them ---------------------------------------------------------------------------------


class Heard(list):
    def report(self, run, record):
        self.append(("report", run.name, record["step"]))

    def finished(self, run, record):
        self.append(("finished", run.name))

    def failed(self, run, text):
        self.append(("failed", run.name, text))

    def close(self):
        self.append(("close",))


class Failing(Heard):
    def report(self, run, record):
        super().report(run, record)
        raise OSError(28, "No space left on device")


def test_heartbeats_are_not_logged():
    heard = Heard()
    log = Logs({"it": heard})
    log.report(RUN, {"step": 5, "train_loss": 1.0})
    log.report(RUN, point(10))
    assert heard == [("report", RUN.name, 10)]


def test_a_found_run_is_logged_from_its_record_and_a_trained_one_is_not_again():
    heard = Heard()
    log = Logs({"it": heard})
    log.finished(RUN, record(point(10), point(20)))
    log.report(OTHER, point(10))
    log.finished(OTHER, record(point(10)))
    assert heard == [
        ("report", RUN.name, 10),
        ("report", RUN.name, 20),
        ("finished", RUN.name),
        ("report", OTHER.name, 10),
        ("finished", OTHER.name),
    ]


def test_a_log_that_fails_is_told_of_once_and_the_others_go_on(capsys):
    heard, failing = Heard(), Failing()
    log = Logs({"bad": failing, "good": heard})
    log.report(RUN, point(10))
    log.report(RUN, point(20))
    log.close()
    assert [what for what, *_ in heard] == ["report", "report", "close"]
    assert failing == [("report", RUN.name, 10)]
    said = capsys.readouterr().err.strip()
    assert said == (
        "The bad log has stopped (OSError: [Errno 28] No space left on device); "
        "the runs go on without it."
    )


def test_a_full_disk_stops_the_csv_and_no_run(tmp_path, monkeypatch, capsys):
    """The pool's events go through: the record is written although the log has failed."""

    def full(path, line):
        assert path.name == "curves.csv"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vggbn.files.append", full)

    def run_jobs(jobs, work, events):
        events.on_report(jobs[0], {"step": 5, "train_loss": 2.0})
        events.on_report(jobs[0], point(10))
        events.on_report(jobs[0], point(20))
        events.on_result(jobs[0], record(point(10), point(20)))

    engine = pool.Engine(run_jobs, 1, here=True)
    written = []
    store = types.SimpleNamespace(cache=tmp_path / "cache")
    with open_logs(["csv"], tmp_path, "exp") as log:
        wanted = {RUN.name: Place(RECIPE, 3, store)}
        write = lambda name, _: written.append(name)  # noqa: E731
        failures = train_many.train_many(wanted, engine, write, log=log)
    assert (failures, written) == (0, [RUN.name])
    assert capsys.readouterr().err.count("No space left") == 1


def test_what_the_pool_tells_reaches_the_log_with_recipe_and_seed(tmp_path):
    def run_jobs(jobs, work, events):
        for job in jobs:
            events.on_report(job, point(10))
        events.on_failure(jobs[0], "Traceback")
        events.on_result(jobs[1], record(point(10)))

    engine = pool.Engine(run_jobs, 1, here=True)
    told = []

    class Keep(Heard):
        def report(self, run, record):
            told.append(run)

    log, store = Logs({"it": (heard := Keep())}), types.SimpleNamespace(cache=tmp_path)
    wanted = {run.name: Place(run.recipe, run.seed, store) for run in (RUN, OTHER)}
    assert train_many.train_many(wanted, engine, lambda *_: None, log=log) == 1
    assert told == [RUN, OTHER]
    assert heard == [("failed", RUN.name, "Traceback"), ("finished", OTHER.name)]


# --- csv -----------------------------------------------------------------------------------------


def test_a_row_an_evaluation(tmp_path):
    log = Csv(tmp_path / "new", "exp")
    log.report(RUN, point(10, 1 / 3))
    first = rows(tmp_path / "new")  # at once: a run may be killed at any time
    log.report(OTHER, point(20, watched=[1, 2]))
    log.close()
    assert len(first) == 1
    (row, other) = rows(tmp_path / "new")
    assert tuple(row) == COLUMNS
    assert (row["run"], row["id"], row["seed"], row["step"]) == (RUN.name, RECIPE.id, "3", "10")
    assert float(row["val_accuracy"]) == 1 / 3
    values = {name: float(row[name]) for name in ("lr", "train_loss", "train_accuracy", "val_loss")}
    assert values == {"lr": 0.125, "train_loss": 1.5, "train_accuracy": 0.25, "val_loss": 0.75}
    assert row["time"].endswith("Z") and len(row["time"]) == 20
    assert other["id"] == OTHER.recipe.id and None not in other


def test_a_second_process_appends_under_one_header(tmp_path):
    for step in (10, 20):
        log = Csv(tmp_path, "exp")
        log.report(RUN, point(step))
        log.close()
    assert [row["step"] for row in rows(tmp_path)] == ["10", "20"]
    assert (tmp_path / "curves.csv").read_text().count("val_accuracy") == 1


@pytest.mark.parametrize("torn", [1, 7, 30])
def test_the_torn_row_of_a_killed_process_is_cut_off(tmp_path, torn):
    log = Csv(tmp_path, "exp")
    log.report(RUN, point(10))
    log.report(RUN, point(20))
    log.close()
    path = tmp_path / "curves.csv"
    path.write_bytes(path.read_bytes()[:-torn])
    log = Csv(tmp_path, "exp")
    log.report(RUN, point(30))
    log.close()
    assert [row["step"] for row in rows(tmp_path)] == ["10", "30"]


def test_a_torn_header_is_written_anew(tmp_path):
    (tmp_path / "curves.csv").write_text("run,id,se")
    log = Csv(tmp_path, "exp")
    log.report(RUN, point(10))
    log.close()
    assert tuple(rows(tmp_path)[0]) == COLUMNS


# --- tensorboard ---------------------------------------------------------------------------------


def crc32c(data: bytes) -> int:
    """Castagnoli's, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(raw: bytes):
    """TFRecord framing: length, its checksum, data, its checksum."""
    while raw:
        (length,) = struct.unpack("<Q", raw[:8])
        assert struct.unpack("<I", raw[8:12]) == (masked(raw[:8]),)
        data, end = raw[12 : 12 + length], 16 + length
        assert struct.unpack("<I", raw[12 + length : end]) == (masked(data),)
        yield data
        raw = raw[end:]


def events(folder):
    """All events below the folder, file by file in the order of their names."""
    from tensorboardX.proto.event_pb2 import Event

    return [
        Event.FromString(data)
        for path in sorted(folder.glob("events.out.tfevents.*"))
        for data in records(path.read_bytes())
    ]


def scalars(folder):
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
    ]


def test_the_checksum_is_castagnolis():
    assert crc32c(b"123456789") == 0xE3069283


def test_events_are_read_back_without_tensorflow(tmp_path):
    log = TensorBoard(tmp_path, "exp")
    log.report(RUN, point(10, 0.5))
    folder = tmp_path / "tensorboard" / "bn+lr_x5" / "seed3"
    assert len(scalars(folder)) == 5, "on disk at once"
    log.report(OTHER, point(10))
    log.report(RUN, point(20, 0.75, lr=0.0625))
    log.finished(RUN, record(point(10), point(20), test=0.875))
    log.close()
    assert "tensorflow" not in sys.modules
    assert scalars(folder) == [
        (10, "lr", 0.125),
        (10, "train/loss", 1.5),
        (10, "train/accuracy", 0.25),
        (10, "val/loss", 0.75),
        (10, "val/accuracy", 0.5),
        (20, "lr", 0.0625),
        (20, "train/loss", 1.5),
        (20, "train/accuracy", 0.25),
        (20, "val/loss", 0.75),
        (20, "val/accuracy", 0.75),
        (20, "test/accuracy", 0.875),
    ]
    assert events(folder)[0].file_version == "brain.Event:2"
    assert len(scalars(tmp_path / "tensorboard" / "base" / "seed0")) == 5


def test_a_run_that_goes_on_later_takes_back_what_came_after_its_start(tmp_path):
    """By the session's start, at which TensorBoard drops later points of older files."""
    for step in (10, 20):
        log = TensorBoard(tmp_path, "exp")
        log.report(RUN, point(step))
        log.close()
    folder = tmp_path / "tensorboard" / "bn+lr_x5" / "seed3"
    from tensorboardX.proto.event_pb2 import SessionLog

    starts = [e.step for e in events(folder) if e.session_log.status == SessionLog.START]
    assert starts == [10, 20]
    assert len(list(folder.iterdir())) == 2


def test_an_arm_with_a_slash_is_one_folder(tmp_path):
    log = TensorBoard(tmp_path, "exp")
    log.report(Logged("lr 1/4 seed 0", RECIPE, 0), point(10))
    log.close()
    assert (tmp_path / "tensorboard" / "lr 1_4" / "seed0").is_dir()


# --- wandb ---------------------------------------------------------------------------------------


class StubRun:
    def __init__(self, **given):
        self.given, self.logged, self.summary, self.exit, self.metrics = given, [], {}, None, []

    def define_metric(self, *names, **how):
        self.metrics.append((names, how))

    def log(self, values):
        assert self.exit is None, "finished already"
        self.logged.append(values)

    def finish(self, exit_code):
        self.exit = exit_code


@pytest.fixture
def wandb(monkeypatch):
    stub = types.ModuleType("wandb")
    stub.Error = type("Error", (Exception,), {})
    stub.runs, stub.logins = [], 0
    stub.init = lambda **given: stub.runs.append(StubRun(**given)) or stub.runs[-1]

    def login():
        stub.logins += 1

    stub.login = login
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.setattr(loggers, "find_spec", lambda name: True)
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return stub


def test_a_wandb_run_for_each_run(wandb, tmp_path):
    log = WandB(tmp_path / "new", "bn_ablation")
    assert (wandb.logins, wandb.runs) == (1, [])
    log.report(RUN, point(10, 0.5))
    log.report(OTHER, point(10))
    log.report(RUN, point(20, 0.75))
    log.finished(RUN, record(point(20), test=0.875))
    log.failed(OTHER, "Traceback")
    log.close()
    first, second = wandb.runs
    given = first.given
    assert given["id"] == f"{RECIPE.id}-seed3" and given["resume"] == "allow"
    assert given["group"] == "bn_ablation" and given["name"] == RUN.name
    assert given["project"] == "vggbn" and given["config"] == asdict(RECIPE) | {"seed": 3}
    assert given["reinit"] == "create_new", "several runs are logged at once"
    assert given["dir"] == tmp_path / "new" and given["dir"].is_dir()
    assert first.metrics == [(("*",), {"step_metric": "step"})]
    assert [values["step"] for values in first.logged] == [10, 20]
    assert first.logged[1] == {
        "step": 20,
        "lr": 0.125,
        "train/loss": 1.5,
        "train/accuracy": 0.25,
        "val/loss": 0.75,
        "val/accuracy": 0.75,
    }
    assert first.summary == {"test/accuracy": 0.875, "status": "ok"}
    assert (first.exit, second.exit) == (0, 1)
    assert len(second.logged) == 1


def test_a_run_that_is_stopped_is_closed_as_such_and_goes_on_under_its_id(wandb, tmp_path):
    for step in (10, 20):
        log = WandB(tmp_path, "exp")
        log.report(RUN, point(step))
        log.close()
    first, second = wandb.runs
    assert first.exit == second.exit == 1
    assert first.given["id"] == second.given["id"]


def test_offline_needs_no_login(wandb, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    WandB(tmp_path, "exp")
    assert wandb.logins == 0


def test_a_login_that_fails_is_a_sentence(wandb, tmp_path):
    def login():
        raise wandb.Error("No API key configured.")

    wandb.login = login
    with pytest.raises(UserError, match=r"cannot log in \(No API key.*WANDB_MODE=offline"):
        WandB(tmp_path, "exp")
