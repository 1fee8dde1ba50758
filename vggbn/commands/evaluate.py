"""Score a trained net and write its predictions.

    python -m vggbn evaluate RUN DATA [--split test] [--best]

RUN is a folder that holds run.json, such as out/runs/<id>/seed0. DATA is named as in an experiment.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from vggbn import files
from vggbn.data import AnySplit, Dataset, load
from vggbn.errors import Parser, UserError, exit_with, unknown
from vggbn.evaluate import choice_N, outputs, scores
from vggbn.machine import compiling
from vggbn.runs import run as runs
from vggbn.runs.keeper import best
from vggbn.training.loop import single_view
from vggbn.training.recipe import Recipe
from vggbn.training.step import init_state
from vggbn.training.task import static_of

SPLITS = ("train", "validation", "test")
NONE = "(none)"  # the column of images for which the net has chosen no class


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 a mistake of the user's."""
    compiling.tune_process()
    exit_with(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m vggbn evaluate", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a trained run")
    parser.add_argument(
        "data", metavar="DATA", help="mnist5k, digits, canvas, a TFDS name, folder:PATH"
    )
    parser.add_argument("--split", default="test", help="train, validation or test (default)")
    parser.add_argument(
        "--best", action="store_true", help="the best step on validation, not the last"
    )
    parser.add_argument("--data-dir", help="folder of prepared TFDS sets")
    parser.add_argument(
        "--csv", type=Path, default=Path("predictions.csv"), help="where predictions are written"
    )
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.split not in SPLITS:
        raise unknown("split", args.split, SPLITS)
    run = runs.load_run(args.run)
    recipe = Recipe.from_dict(run.record["recipe"])
    dataset = load(
        args.data,
        image_size=recipe.source_side or recipe.image_size,
        fit=recipe.fit,
        split=recipe.split,
        seed=run.record["seed"],
        pixels=recipe.pixels,
        train_size=recipe.train_size if args.split == "train" else 0,
        loading=recipe.loading,
        data_dir=args.data_dir,
    )
    _refuse_other_shape(run, dataset)
    split = single_view(recipe, getattr(dataset, args.split))
    trained = run.trained
    if args.best:
        like = init_state(recipe, static_of(recipe, dataset), run.record["seed"])
        step, state = best(args.run, like)
        trained = trained._replace(variables=state.variables)
        print(f"the weights of step {step}, the best on validation")
    logits_NK, p_NK = outputs(trained, split)
    print(f"{len(split)} images of {dataset.note}, {args.split} split")
    print(report(logits_NK, split, dataset.classes))
    write_predictions(args.csv, logits_NK, p_NK, split, dataset.classes)
    print(f"predictions: {args.csv}")


def _refuse_other_shape(run: runs.Run, dataset: Dataset) -> None:
    """The run's net must fit the data: same channels and as many classes."""
    classes, channels = len(dataset.classes), dataset.train.channels
    if run.record["data"]["classes"] != classes or len(run.trained.mean_C) != channels:
        raise UserError(
            f"the run was trained on {run.record['data']['name']} with "
            f"{run.record['data']['classes']} classes and {len(run.trained.mean_C)} channel(s); "
            f"{dataset.name} has {classes} and {channels}: evaluate it on data like its own."
        )


def confusion(logits_NK: np.ndarray, split: AnySplit) -> np.ndarray:
    """counts [true class, predicted class], int [K, K + 1]: the last column is no prediction."""
    K = logits_NK.shape[1]
    counts = np.zeros((K, K + 1), int)
    np.add.at(counts, (split.labels_N, choice_N(logits_NK)), 1)  # NO_CLASS is the last column
    return counts


def report(logits_NK: np.ndarray, split: AnySplit, classes: tuple[str, ...]) -> str:
    """Top-1, top-5 of more than five classes, balanced accuracy, confusion matrix.

    Balanced: the mean recall over the classes that are present. By `rank_N`, as in a run's record.
    No prediction is a column where there are such images.
    """
    found = scores(logits_NK, split.labels_N, len(classes))
    counts = confusion(logits_NK, split)
    names = (*classes, NONE) if counts[:, -1].any() else classes
    width = max(6, *map(len, classes)) + 1
    top_5 = f"top-5              {100 * found['top5']:6.2f} %"
    rows = [
        f"top-1              {100 * found['accuracy']:6.2f} %",
        *([top_5] if len(classes) > 5 else ()),
        f"balanced accuracy  {100 * found['balanced']:6.2f} %",
        "",
        "true \\ predicted".ljust(width + 6) + "".join(f"{name:>{width}s}" for name in names),
    ]
    for name, row in zip(classes, counts[:, : len(names)], strict=True):
        rows.append(name.ljust(width + 6) + "".join(f"{count:{width}d}" for count in row))
    if NONE in names:
        rows.append(f"{NONE}: no prediction, for the best classes tie or a score is not finite")
    return "\n".join(rows)


def write_predictions(path: Path, logits_NK, p_NK, split: AnySplit, classes) -> None:
    """CSV: index, true class, predicted class (empty: none), then the probability of each class."""
    names = [*classes, ""]  # NO_CLASS is the last
    with files.whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "true", "predicted", *classes])
        rows = zip(split.labels_N, choice_N(logits_NK), p_NK, strict=True)
        for i, (label, choice, p_K) in enumerate(rows):
            writer.writerow([i, names[label], names[choice], *(f"{p:.6g}" for p in p_K)])
