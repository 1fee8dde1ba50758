"""Run what the published claims still need, in the order of what it would decide."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

from vggbn.errors import Parser, UserError, exit_with
from vggbn.evidence import bundle
from vggbn.evidence.agenda import SIZE, data_sets
from vggbn.evidence.merge import merge_lines
from vggbn.evidence.queue import MARGIN, Queue, add_all, overview, work_off
from vggbn.experiment.checkout import PUBLISHED, require_checkout
from vggbn.experiment.design import Experiment
from vggbn.experiment.find import experiment_names, find_experiment
from vggbn.experiment.plan import Plan, make_plan
from vggbn.jobs import pool, sharing
from vggbn.machine import compiling, environment
from vggbn.report.words import counted
from vggbn.runs.many import worker_setting
from vggbn.runs.place import Store

DATA = Path("data")  # where a bundle's data are put together


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Work, and exit: 0 done or out of time, 1 a run failed, 2 a mistake of the user's."""
    compiling.tune_process()
    exit_with(lambda: _run(argv), kept="Finished runs are kept")


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    began = time.monotonic()
    _refuse_mistakes(arguments)
    if arguments.merge is not None:
        return _merge(arguments)
    if arguments.unpack is not None:
        facts = bundle.read_facts(arguments.unpack)
        arguments.only = arguments.only or facts["experiments"]
        for why in bundle.unpack_data(facts, arguments.unpack, DATA):
            _say(why)
        arguments.data_dir = [str(DATA), *(arguments.data_dir or [])]
    until = None if arguments.hours is None else began + _seconds(arguments.hours)
    with sharing.mps() if arguments.mps else nullcontext():
        return _work(arguments, until)


def _work(arguments: argparse.Namespace, until: float | None) -> int:
    engine, at_once = _engine(arguments.jobs, until)
    runs = arguments.out / "runs"
    stores = [Store(runs, folder) for folder in arguments.data_dir or [None]]
    queue = Queue(stores, worker_setting(engine), at_once)
    add_all(queue, plans(arguments.only, arguments.results), _say)
    print(overview(queue), flush=True)
    if arguments.bundle is not None:
        return _bundle(arguments.bundle, queue)
    if arguments.list:
        return 0
    failures = work_off(queue, engine, until, _say)
    print(f"\n{overview(queue)}")
    print(f"Lines are in {arguments.results}; python -m vggbn publish draws the pages anew.")
    return 1 if failures else 0


def _bundle(folder: Path, queue: Queue) -> int:
    """Write what is missing as a bundle, and say how to use it."""
    wanted = {block.question.plan.folder for block in queue.blocks()}
    if not wanted:
        raise UserError("Nothing is missing, so there is nothing to put into a bundle.")
    sheets = {f: (s.plan, s.store.data_dir) for f, s in queue.sheets.items() if f in wanted}
    for path in bundle.write_bundle(folder, sheets):
        print(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")
    print(
        f"There: tar xzf {bundle.CODE} in a folder of its own, and in it\n"
        "  python -m vggbn evidence --from FOLDER_OF_THE_PARTS --hours 0.2\n"
        "Bring its results/ back, and here: python -m vggbn evidence --merge results"
    )
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    """Add the lines that come back."""
    for name, count in merge_lines(arguments.merge, arguments.results).items():
        print(f"{name}: {counted(count, 'line')} added")
    return 0


def _engine(jobs: int | None, until: float | None) -> tuple[pool.Engine, Callable[[], int]]:
    """What trains, and how many runs at a time: on an accelerator that is found out."""
    if not environment.accelerated():
        workers = jobs or pool.default_workers()
        return pool.local(workers, until=until), lambda: workers
    most = jobs or sharing.most_processes()
    shared = sharing.Sharing(most, sharing.gpu_memory, _batch, settled=jobs is not None)
    return sharing.engine(shared, until), lambda: shared.allowed


def _batch(job: pool.Job) -> int:
    """Images of a step of a run."""
    return job.payload.recipe.batch


def _say(text: str) -> None:
    print(text, flush=True)


def _seconds(hours: float) -> float:
    """Till runs are stopped: a little earlier, since they save what they have."""
    return 3600 * hours - min(MARGIN, 360 * hours)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m vggbn evidence",
        description=f"{__doc__} Safe to stop, and to kill: the same command goes on.",
    )
    add = parser.add_argument
    add("--hours", type=float, help="stop by then, and begin nothing that takes longer")
    jobs = "runs at once (default: one a core; on a GPU or TPU as many as get most done)"
    add("--jobs", type=int, help=jobs)
    add("--mps", action="store_true", help="run NVIDIA's multi-process service meanwhile")
    add("--only", nargs="+", metavar="EXPERIMENT", help="only the claims of these experiments")
    where = "folders of prepared TFDS sets, and of folders of images"
    add("--data-dir", nargs="+", metavar="DIR", help=where)
    add(
        "--out",
        type=Path,
        default=Path("out"),
        help="folder of trained runs (default: %(default)s)",
    )
    add(
        "--results",
        type=Path,
        default=PUBLISHED,
        help="where result lines lie (default: published)",
    )
    parts = "write code and data of what is missing in parts for a machine without network"
    add("--bundle", type=Path, metavar="DIR", help=parts)
    there = "in a bundle's code: the folder in which its parts lie"
    add("--from", dest="unpack", type=Path, metavar="DIR", help=there)
    back = "add the result lines below DIR, which were made elsewhere"
    add("--merge", type=Path, metavar="DIR", help=back)
    add("--list", action="store_true", help="only say what is missing, what it takes, what is next")
    return parser


def _refuse_mistakes(arguments: argparse.Namespace) -> None:
    """UserError for a number that makes no sense, or no checkout."""
    require_checkout("python -m vggbn evidence")
    if arguments.hours is not None and not arguments.hours > 0:
        raise UserError(f"--hours must be above 0, not {arguments.hours}.")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError(f"--jobs must be 1 or more, not {arguments.jobs}.")


def plans(only: Sequence[str] | None, results: Path) -> Iterator[Plan]:
    """Of every experiment with claims to be judged, on each of its data sets; UserError: a name
    in `only` is none, or none of its claims needs runs."""
    for name in only or experiment_names():
        experiment = find_experiment(name)
        if isinstance(experiment, Experiment) and SIZE in experiment.sizes:
            for data in data_sets(experiment):
                yield make_plan(experiment, SIZE, out=results, data=data)
        elif only:
            raise UserError(f"{name} has no claim that needs runs: leave it out of --only.")
