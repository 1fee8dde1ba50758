"""Evaluation protocols: one protocol = one function of a trained net."""

from vggbn.evaluate.activations import activations
from vggbn.evaluate.average import mean_posterior, scores
from vggbn.evaluate.by_batch import by_batch
from vggbn.evaluate.dense import dense
from vggbn.evaluate.multi_crop import centre, multi_crop
from vggbn.evaluate.rank import choice_N, rank_N
from vggbn.evaluate.single import evaluate, outputs, predict
from vggbn.evaluate.trained import Trained

__all__ = [
    "Trained",
    "activations",
    "by_batch",
    "centre",
    "choice_N",
    "dense",
    "evaluate",
    "mean_posterior",
    "multi_crop",
    "outputs",
    "predict",
    "rank_N",
    "scores",
]
