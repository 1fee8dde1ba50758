"""Show what a net of many scales sees, as one page.

    python -m vggbn gallery RUN [--out gallery.html]

For a few test images: the dense score map over the whole image, the places of the 25 crops, and
what scale jitter makes of a training image. RUN is a folder that holds run.json.
"""

from __future__ import annotations

import argparse
import base64
import io
from html import escape
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vggbn import data, files
from vggbn.data.pixels.augment import standardise
from vggbn.data.pixels.jitter import random_scale_crop
from vggbn.data.pixels.scale import grid_corners, rescale
from vggbn.data.stream import training_batches
from vggbn.errors import Parser, UserError, exit_with
from vggbn.evaluate import Trained, choice_N
from vggbn.machine import compiling
from vggbn.models import build
from vggbn.runs import run as runs
from vggbn.training.recipe import Recipe
from vggbn.training.task import static_of

SHOWN = 256  # pixels of a picture's smaller side on the page
JITTERED = 8  # crops of one training image
STYLE = """body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
figure{display:inline-block;margin:0 1rem 1rem 0;vertical-align:top}
figcaption{font-size:.85rem;max-width:22rem} img{image-rendering:auto;max-width:100%}"""


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 a mistake of the user's."""
    compiling.tune_process()
    exit_with(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m vggbn gallery", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a trained run")
    parser.add_argument("--data-dir", help="folder of prepared sets and image folders")
    parser.add_argument("--images", type=int, default=4, help="how many test images")
    parser.add_argument("--out", type=Path, default=Path("gallery.html"), help="the page")
    return parser


def _run(args: argparse.Namespace) -> None:
    run = runs.load_run(args.run)
    recipe = Recipe.from_dict(run.record["recipe"])
    store = runs.Store(args.run.parents[1], args.data_dir)
    dataset = runs.load_data(recipe, run.record["seed"], store)
    write_gallery(args.out, run, dataset, images=args.images)
    print(args.out)


def write_gallery(path: Path, run: runs.Run, dataset: data.Dataset, *, images: int = 4) -> None:
    """Write the page, whole or not at all. UserError: the net is not of many scales."""
    recipe = Recipe.from_dict(run.record["recipe"])
    if recipe.fit != "whole" or build(run.trained.net).score_map is None:
        raise UserError(
            "a gallery is of a net that is trained on images of many scales: choose a run of "
            "vgg_scale_jitter or vgg_dense_eval."
        )
    rows = np.linspace(0, len(dataset.test) - 1, images).astype(int)
    parts = [_test_image(run, recipe, dataset, row) for row in rows]
    parts.append(_jitter(recipe, dataset))
    title = f"{recipe.model} on {dataset.note}"
    text = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    files.write(path, text)


def _test_image(run: runs.Run, recipe: Recipe, dataset: data.Dataset, row: int) -> str:
    x_HWC = rescale(dataset.test.image(row), recipe.test_side)
    map_hwK = score_map(run.trained, x_HWC)
    label, found = int(dataset.test.labels_N[row]), choice_N(map_hwK.mean((0, 1))[None])[0]
    names = [*dataset.classes, "no class"]  # NO_CLASS is the last
    cells = f"{map_hwK.shape[0]}×{map_hwK.shape[1]} cells"
    return (
        f"<section><h2>Test image {row}: {escape(names[label])}, taken for "
        f"{escape(names[found])}</h2>"
        + _figure(x_HWC, f"at Q = {recipe.test_side}: {x_HWC.shape[0]}×{x_HWC.shape[1]} pixels")
        + _figure(
            _overlaid(x_HWC, map_hwK[..., label]),
            f"posterior of {names[label]} in the dense score map, {cells}: red is 1, blue is 0",
        )
        + _figure(
            _framed(x_HWC, recipe.image_size),
            f"the 25 crops of {recipe.image_size} pixels, the middle one red",
        )
        + "</section>"
    )


def score_map(trained: Trained, x_HWC) -> np.ndarray:
    """Posteriors [h, w, classes] of the cells of the net's map over a whole image."""
    model = build(trained.net)

    @compiling.jit
    def posteriors(variables, images_NHWC):
        x_NHWC = standardise(images_NHWC, jnp.asarray(trained.mean_C), trained.std)
        return jax.nn.softmax(model.score_map(variables, x_NHWC))  # pyright: ignore

    return np.asarray(posteriors(trained.variables, x_HWC[None])[0])


def _jitter(recipe: Recipe, dataset: data.Dataset) -> str:
    figures = [_figure(crop, "") for crop in _crops(recipe, dataset)]
    scales = f"S = {recipe.scale_min} … {recipe.scale_max}, crops of {recipe.image_size} pixels"
    return (
        f"<section><h2>What training feeds of one image: {scales}</h2>{''.join(figures)}</section>"
    )


def _crops(recipe: Recipe, dataset: data.Dataset) -> np.ndarray:
    """What a step makes of the first training image: uint8 [JITTERED, crop, crop, C]."""
    split = dataset.train.take(np.zeros(JITTERED, int))
    scales, crop = (recipe.scale_min, recipe.scale_max), recipe.image_size
    if isinstance(split, data.LazySplit):
        how = {"seed": 0, "batch": JITTERED, "shuffle": recipe.shuffle, "first": 0, "stop": 1}
        with training_batches(split, **how, crop=crop, scales=scales) as batches:
            return next(batches)[0]
    key, window = jax.random.key(0, impl="rbg"), static_of(recipe, dataset).window
    jitter = compiling.jit(random_scale_crop, static_argnames=("crop", "window"))  # as in a step
    crops_NHWC = jitter(key, split.images_NHWC, split.sizes_N2, *scales, crop=crop, window=window)
    return np.asarray(crops_NHWC).astype(np.uint8)


def _overlaid(x_HWC: np.ndarray, p_hw: np.ndarray) -> np.ndarray:
    """The image in grey under the map, which is stretched over it: cell by cell, not smoothed."""
    from PIL import Image

    height, width = x_HWC.shape[:2]
    stretched = Image.fromarray((255 * p_hw).astype(np.uint8)).resize((width, height), 0)
    p_HW1 = np.asarray(stretched, np.float32)[..., None] / 255
    colour = p_HW1 * np.array([255, 0, 0]) + (1 - p_HW1) * np.array([0, 0, 255])
    grey = x_HWC.mean(-1, keepdims=True)
    return (0.6 * grey + 0.4 * colour).astype(np.uint8)


def _framed(x_HWC: np.ndarray, crop: int) -> np.ndarray:
    """The image with the outlines of its crops."""
    from PIL import Image, ImageDraw

    height, width, channels = x_HWC.shape
    image = Image.fromarray(np.repeat(x_HWC, 3 // channels, 2))
    scale = _scale(image.size)
    image = image.resize((width * scale, height * scale), 0)
    corners = grid_corners(height, width, crop)
    for i in [*(i for i in range(len(corners)) if i != 12), 12]:
        top, left = (scale * place for place in corners[i])
        box = (left, top, left + scale * crop - 1, top + scale * crop - 1)
        ImageDraw.Draw(image).rectangle(box, outline="red" if i == 12 else "white", width=2)
    return np.asarray(image)


def _scale(size: tuple[int, int]) -> int:
    return max(1, round(SHOWN / min(size)))


def _figure(x_HWC: np.ndarray, caption: str) -> str:
    from PIL import Image

    image = Image.fromarray(np.repeat(x_HWC, 3 // x_HWC.shape[2], 2))
    scale = _scale(image.size)
    image = image.resize((image.width * scale, image.height * scale), 0)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    source = base64.b64encode(buffer.getvalue()).decode()
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    size = f'width="{image.width}" height="{image.height}"'
    picture = f'<img {size} alt="{escape(caption)}" src="data:image/png;base64,{source}">'
    return f"<figure>{picture}{text}</figure>"
