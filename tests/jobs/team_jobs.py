"""What test_team.py starts: `python -m tests.jobs.team_jobs FLAGS`, the command of an experiment;
and `python -m tests.jobs.team_jobs --together HOW`, two processes that do next to nothing together.

With `--log ask` the first process says the step of each evaluation and waits for a line, or for the
end of its input, and the other for it: whoever started them decides how far they come, however
quick the machine is.
"""

import sys

from vggbn.jobs import team
from vggbn.jobs.pool import Events, Job
from vggbn.machine import mesh

SAYS = "at step "


def ask(step: object) -> None:
    """Say it, and wait."""
    print(f"{SAYS}{step}", flush=True)
    sys.stdin.readline()


class Ask:
    """A log that asks at each evaluation."""

    def __init__(self, folder, group):
        pass

    def report(self, run, record):
        ask(record["step"])

    def finished(self, run, record):
        pass

    def failed(self, run, text):
        pass

    def close(self):
        pass


def meet(payload, report) -> None:
    """Work for both: the first process asks, and the other waits for what it says."""
    mesh.agree_on(lambda: ask(0))


def together(how: str) -> None:
    """Both meet, as a job of a team."""
    team.join(how)
    if mesh.process() != 0:
        team.follow()
        return
    lead = team.Team()
    lead.run_jobs([Job("meet", 0, None)], meet, Events(*3 * [print]))
    lead.dismiss()


def experiment(argv: list[str]) -> None:
    """The command line, without the page: it would take longer than the run."""
    from experiments.bn_ablation import EXPERIMENT
    from vggbn.commands import experiment as command
    from vggbn.runs import loggers

    loggers.KINDS["ask"] = Ask
    command.write_html = lambda path, report: None
    command.main(EXPERIMENT, argv)


if __name__ == "__main__":
    if sys.argv[1] == "--together":
        together(sys.argv[2])
    else:
        experiment(sys.argv[1:])
