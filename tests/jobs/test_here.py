"""--jobs 0: jobs in this process."""

import os
import sys

import pytest

from tests.runs.test_library_calls import MLP
from vggbn.errors import UserError
from vggbn.jobs import here
from vggbn.jobs.pool import Events, Job
from vggbn.machine import provenance
from vggbn.runs import many
from vggbn.runs.place import Place, Store
from vggbn.runs.run import train_run


def events(told):
    return Events(
        on_report=lambda job, value: told.append((job.name, "report", value)),
        on_result=lambda job, value: told.append((job.name, "result", value)),
        on_failure=lambda job, text: told.append((job.name, "failure", text.splitlines()[-1])),
    )


def test_jobs_are_done_here_in_their_order_and_one_that_fails_ends_no_other():
    def work(payload, report):
        report(os.getpid())
        return 6 // payload

    told = []
    jobs = [Job(str(n), None, n) for n in (1, 0, 3)]
    here.engine().run(jobs, work, events(told))
    assert [(name, what) for name, what, _ in told] == [
        ("1", "report"), ("1", "result"), ("0", "report"), ("0", "failure"), ("3", "report"),
        ("3", "result"),
    ]  # fmt: skip
    assert told[0][2] == os.getpid() and told[1][2] == 6
    assert told[3][2].startswith("ZeroDivisionError")


def test_a_mistake_of_the_user_s_ends_all():
    def work(payload, report):
        raise UserError("That is wrong.")

    with pytest.raises(UserError, match="wrong"):
        here.engine().run([Job("a", None, 1), Job("b", None, 2)], work, events([]))


def test_a_breakpoint_in_the_step_is_reached_in_this_process(tmp_path, monkeypatch):
    reached = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: reached.append(os.getpid()))
    written = []

    def train_and_stop(payload, report):
        breakpoint()
        return train_run(*payload, report)

    monkeypatch.setattr(many, "_train", train_and_stop)
    wanted = {"mlp seed 0": Place(MLP, 0, Store(tmp_path / "runs"))}
    engine = here.engine()
    setting = many.worker_setting(engine)
    many.train_many(wanted, engine, lambda name, record: written.append(record), setting=setting)
    assert reached == [os.getpid()]
    assert [provenance.machine(record["setting"]) for record in written] == [setting]
