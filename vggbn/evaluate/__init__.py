"""Evaluation protocols: one protocol = one function on the same params and stats."""

from vggbn.evaluate.single import evaluate, predict

__all__ = ["evaluate", "predict"]
