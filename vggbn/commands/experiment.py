"""The command line of every experiment: plan, run what is missing, judge, report."""

from __future__ import annotations

import argparse
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from vggbn.claims import results
from vggbn.commands.gallery import write_gallery
from vggbn.data import batch_indices
from vggbn.errors import Parser, UserError, exit_with
from vggbn.experiment import rehearsal
from vggbn.experiment.announce import budget, describe_data
from vggbn.experiment.design import Experiment
from vggbn.experiment.exact import write_computed
from vggbn.experiment.missing import train_missing, view_missing
from vggbn.experiment.plan import Plan, make_plan, size_names, variant_edits
from vggbn.experiment.summary import build_report
from vggbn.experiment.sweep import run_sweep
from vggbn.forecast.dry_run import dry_run
from vggbn.identity.identity import changed
from vggbn.jobs import cluster, here, pool, team
from vggbn.machine import compiling, environment, mesh, provenance
from vggbn.report import Report, terminal, verdict_table, write_html
from vggbn.report.words import counted
from vggbn.runs import loggers
from vggbn.runs import run as runs
from vggbn.runs.many import worker_setting
from vggbn.training.recipe import Recipe, field_values, parse_edit


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a run failed, 2 a mistake of the user's."""
    args = sys.argv[1:] if argv is None else argv
    compiling.tune_process()
    exit_with(lambda: run(experiment, args), kept="Finished runs are kept")


def run(experiment: Experiment, argv: Sequence[str]) -> int:
    """What `main` does, as a function: returns the exit status, raises UserError."""
    args = _parser(experiment).parse_args(argv)
    plan = make_plan(
        experiment,
        args.size,
        out=args.out,
        data=args.data,
        edits=dict(parse_edit(text) for text in args.set),
        seeds=args.seeds,
        only=args.only,
    )
    if args.list:
        print(listing(plan))
        return 0
    if not args.save_every >= 0:
        raise UserError(f"--save-every must be 0 or more seconds, not {args.save_every}.")
    if args.input_workers < 0:
        raise UserError(f"--input-workers must be 0 or more, not {args.input_workers}.")
    store = runs.Store(args.out / "runs", args.data_dir, args.save_every, args.input_workers)
    if args.dry_run:
        print(dry_run(plan, store, args.devices))
        return 0
    if args.distributed is not None:
        return _together(args, plan, store)
    return _carry_out(args, plan, store, _engine(args))


def _together(args: argparse.Namespace, plan: Plan, store: runs.Store) -> int:
    """By all processes of a job: this one leads, if it is the first, or does as that one says."""
    if args.jobs is not None or args.cluster is not None:
        raise UserError("--distributed trains one run at a time: leave out --jobs and --cluster.")
    team.join(args.distributed)
    if mesh.process() != 0:
        team.follow()
        return 0
    lead = team.Team()
    try:
        return _carry_out(args, plan, store, lead.engine)
    finally:
        lead.dismiss()


def _carry_out(args: argparse.Namespace, plan: Plan, store: runs.Store, engine: pool.Engine) -> int:
    refuse_slow(plan, allowed=args.allow_slow or not engine.here)
    refuse_mistakes(plan, store)
    folder = plan.folder / "sweep" if args.sweep else plan.folder
    with loggers.open_logs(args.log, folder, plan.experiment.name) as log:
        return (run_sweep if args.sweep else run_plan)(plan, store, engine, log)


def _engine(args: argparse.Namespace) -> pool.Engine:
    """What does the jobs. UserError: --jobs below 0, a flag for other engines, or what
    `cluster.engine` refuses."""
    if args.jobs is not None and args.jobs < 0:
        raise UserError(f"--jobs must be 1 or more, or 0 for this process, not {args.jobs}.")
    if args.input_workers:
        raise UserError(
            "--input-workers is for --distributed only: elsewhere a run's process may start no "
            "others, and its threads decode. Leave it out."
        )
    if args.cluster is not None:
        if args.jobs == 0:
            raise UserError("--jobs 0 is this process: leave it or --cluster out.")
        return cluster.engine(args.cluster, args.cluster_set, args.out / "cluster", args.jobs)
    if args.cluster_set:
        raise UserError("--cluster-set is for --cluster slurm or local only: leave it out.")
    if args.jobs == 0:
        return here.engine()
    return pool.local(args.jobs or pool.default_workers())


def refuse_mistakes(plan: Plan, store: runs.Store) -> None:
    """UserError, before anything is trained: an --out, data or a batch that cannot be used, or a
    judge that would fail after all training."""
    rehearsal.refuse_mistakes(plan)
    out = store.runs.parent
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(bytes(2**20))
    except OSError as error:
        raise UserError(
            f"--out {out} cannot be written ({error.strerror}): name another folder."
        ) from None
    train = runs.load_data(plan.base, 0, store).train
    batch_indices(0, 0, n=len(train), batch=plan.base.batch, shuffle=plan.base.shuffle)


def refuse_slow(plan: Plan, *, allowed: bool) -> None:
    """UserError for a precision that costs time on the CPU that jax would use, and gains none."""
    recipes = [plan.base, *plan.variants.values()]
    if allowed or environment.accelerated() or all(r.precision == "float32" for r in recipes):
        return
    raise UserError(
        "precision=bfloat16 is slower than float32 on a CPU: leave it out, run it on a GPU or TPU, "
        "or force it with --allow-slow."
    )


def _parser(experiment: Experiment) -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"python -m experiments.{experiment.name}",
        description=f"{experiment.title}. {experiment.question}",
        epilog=(
            f"example: python -m experiments.{experiment.name} --size small --seeds 3 "
            "--set lr=0.02 --set batch=64"
        ),
        formatter_class=argparse.HelpFormatter,
        allow_abbrev=False,
    )
    _add_what(parser.add_argument_group("what is trained"), experiment)
    _add_where(parser.add_argument_group("where, and by whom"))
    _add_instead(parser.add_argument_group("instead of training"))
    return parser


def _add_what(group: argparse._ArgumentGroup, experiment: Experiment) -> None:
    add, sizes = group.add_argument, ", ".join(size_names(experiment))
    add("--size", default="small", help=f"one of {sizes} (default: %(default)s)")
    add(
        "--data",
        help="mnist5k, digits, canvas, a TFDS name or folder:PATH (default: the size's own)",
    )
    add("--seeds", type=int, help="number of seeds (default: the size's own)")
    add("--only", nargs="+", metavar="VARIANT", help="only these variants")
    add(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="edit a field of the baseline, once for each field; --list shows them",
    )
    add("--allow-slow", action="store_true", help="let precision=bfloat16 run on a CPU")
    add("--sweep", action="store_true", help="search the learning rates instead")


def _add_where(group: argparse._ArgumentGroup) -> None:
    add, kinds = group.add_argument, ", ".join(loggers.KINDS)
    out = "folder of results and trained runs (default: %(default)s)"
    add("--out", type=Path, default=Path("out"), help=out)
    add("--data-dir", help="folder of prepared TFDS sets")
    add(
        "--jobs",
        type=int,
        help="runs at once (default: one a core; one on a GPU or TPU); 0: in this process, for pdb",
    )
    add("--cluster", metavar="KIND", help="submit the runs as jobs: slurm, or local to try it")
    add("--cluster-set", nargs="+", default=[], metavar="NAME=VALUE", help="what a job asks for")
    add(
        "--distributed",
        nargs="?",
        const="auto",
        metavar="ADDRESS:PORT,PROCESSES,INDEX",
        help="one of several processes that share each batch; alone: found by jax",
    )
    every = "between saved steps (default: %(default)s)"
    add("--save-every", type=float, default=300, metavar="SECONDS", help=every)
    add("--input-workers", type=int, default=0, help="with --distributed: more that decode images")
    logs = f"of the curves, any of {kinds} (default: csv)"
    add("--log", nargs="*", default=["csv"], metavar="KIND", help=logs)


def _add_instead(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--list", action="store_true", help="print variants and claims")
    add("--dry-run", action="store_true", help="count and compile what would be trained")
    add("--devices", type=int, default=1, help="with --dry-run: how many share a batch")


def listing(plan: Plan) -> str:
    """The baseline, the variants as edits of it, and the claims."""
    rows = [
        f"{plan.experiment.title}, --size {plan.size_name}, {counted(len(plan.seeds), 'seed')}",
        "",
        "variants:",
    ]
    for name, edits in variant_edits(plan).items():
        text = ", ".join(f"{k} {old} → {new}" for k, (old, new) in edits.items())
        rows.append(f"  {name:22s} {text or '(the baseline)'}")
    rows += ["", "baseline:"]
    rows += [f"  {k:22s} {v}" for k, v in field_values(plan.base).items()]
    rows += ["", "claims:"]
    rules = [(claim.id, claim.sentence, claim.criterion) for claim in plan.experiment.exact]
    for claim in plan.experiment.claims:
        rule = claim.criterion or f"not tested: {claim.not_tested}"
        rules.append((claim.id, claim.sentence, rule))
    rows += [f"  {name:22s} {sentence}\n{'':25s}{rule}" for name, sentence, rule in rules]
    return "\n".join(rows)


def run_plan(plan: Plan, store: runs.Store, engine: pool.Engine, log: loggers.Logs) -> int:
    """Run the missing (variant, seed) pairs, then judge and report."""
    began = time.perf_counter()
    setting = worker_setting(engine)
    found = plan.found(setting)
    if found.left_out:
        print(explain_left_out(plan, found))
    every = found.missing(plan.seeds)
    missing = [(name, seed) for name, seed in every if name in plan.variants]
    done = len(plan.seeds) * len(plan.variants) - len(missing)
    workers = min(engine.workers, max(1, len(missing)))
    print_wrapped(budget(plan, [plan.variants[name] for name, _ in missing], done, workers))
    print_wrapped(describe_data(plan, runs.load_data(plan.base, 0, store)))
    failures = train_missing(plan, store, missing, engine, setting, log)
    views = [(name, seed) for name, seed in every if name in plan.views]
    failures += view_missing(plan, store, views, engine)
    computed = [claim.judged() for claim in plan.experiment.exact]
    report = build_report(plan, plan.found(setting), computed)
    if computed:
        write_computed(plan.computed_path, computed)
    write_html(plan.folder / "report.html", report)
    if plan.experiment.gallery:
        show_gallery(plan, store)
    print_found(report)
    print(f"\n{plan.folder / 'report.html'}   {plan.results_path}")
    minutes = (time.perf_counter() - began) / 60
    print(f"{counted(len(missing), 'run')} in {minutes:.1f} min")
    return 1 if failures else 0


def print_wrapped(text: str) -> None:
    """One paragraph, broken between words where a terminal ends."""
    columns = terminal.width() if sys.stdout.isatty() else len(text) + 1
    print(textwrap.fill(text, columns, subsequent_indent="  ", break_on_hyphens=False))


def print_found(report: Report) -> None:
    """The arms' accuracies, then the verdicts, as wide as the terminal."""
    columns = terminal.width()
    if arms := terminal.arms_table(report, columns):
        print(f"\n{arms}")
    if report.judgements:
        colour = terminal.has_colour()
        print(f"\n{verdict_table(report.judgements, columns, colour=colour)}")


NAMED = 12  # changed definitions that are told by name


def explain_left_out(plan: Plan, found: results.Results) -> str:
    """Why lines of the results do not count, and which definitions have changed since the newest
    that is of other code, as far as git knows."""
    text = f"{plan.results_path}: {found.why_left_out()}"
    trained = [line for line in found.of_other_code if line["variant"] in plan.variants]
    names = changed_since(plan.variants[trained[-1]["variant"]], trained[-1]) if trained else []
    if not names:
        return text
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    since = f"Changed since commit {trained[-1]['commit']}"
    return f"{text} {since}: {', '.join(names[:NAMED])}{more}."


def changed_since(recipe: Recipe, line: dict) -> list[str]:
    """The definitions that the recipe reaches, and whose text the line's commit had not."""
    source = provenance.source_at(line["commit"]) if line["commit"] else None
    try:
        return changed(runs.reach_of(recipe, source), runs.reach_of(recipe)) if source else []
    except (LookupError, ValueError, SyntaxError):  # of another shape than today's
        return []


def show_gallery(plan: Plan, store: runs.Store) -> None:
    """Write gallery.html beside the report, of the last arm's first seed."""
    recipe = list(plan.variants.values())[-1]
    path = plan.folder / "gallery.html"
    run = runs.load_run(store.folder(recipe, plan.seeds[0]))
    write_gallery(path, run, runs.load_data(recipe, plan.seeds[0], store))
    print(path)
