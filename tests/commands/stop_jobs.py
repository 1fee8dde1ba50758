"""What test_command_line.py stops and kills: `python -m tests.commands.stop_jobs FLAGS`, the
command line of an experiment, without its page.

With WAITS in the environment, a run that begins when another is finished saves a step and waits to
be stopped, then makes one step more: how quick the machine is, changes nothing. Workers import this
module too.
"""

import os
import time

from experiments.bn_ablation import EXPERIMENT
from vggbn.commands import experiment
from vggbn.runs import keeper
from vggbn.training import loop

WAITS = "STOP_JOBS_WAIT"


class Waiting(keeper.Keeper):
    """A Keeper that waits so."""

    def save_due(self, step, at):
        super().save_due(step, at)
        if any(self.folder.parents[2].glob("*/seed*/run.json")):
            self.writer.wait()
            while not self.asked(step):
                time.sleep(0.01)


if __name__ in ("__main__", "__mp_main__"):  # the command or its worker, not the test
    loop.TOGETHER.clear()  # one step a program
    if WAITS in os.environ:
        keeper.Keeper = Waiting

if __name__ == "__main__":
    experiment.write_html = lambda path, report: None
    experiment.main(EXPERIMENT)
