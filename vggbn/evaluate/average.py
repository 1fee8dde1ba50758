"""Posteriors of several views, scales, protocols and nets made one, and the scores of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vggbn.evaluate.rank import rank_N


def mean_posterior(posteriors: Sequence[np.ndarray]) -> np.ndarray:
    """The mean p_NK, float32, of several p_VNK or p_NK of the same images.

    First over the views of each, then over the entries, which weigh the same however many views
    they have: dense and multi-crop evaluation together are the mean of the two (VGG 3.2, 4.3).
    """
    means = []
    for p in posteriors:
        p = np.asarray(p, np.float64)
        means.append(p.mean(0) if p.ndim == 3 else p)
    shapes = {mean_NK.shape for mean_NK in means}
    if len(shapes) != 1 or means[0].ndim != 2:
        raise ValueError(
            f"posteriors [N, K] or [V, N, K] of the same images are averaged: {shapes}"
        )
    return np.mean(means, axis=0).astype(np.float32)


def scores(p_NK: np.ndarray, labels_N: np.ndarray, classes: int) -> dict:
    """{accuracy, top5, balanced, n, correct}; correct is [N] bool, balanced the mean recall.

    p_NK: posteriors or logits; what is right is what `rank_N` says, as in `evaluate`. The mean is
    over the classes that are present.
    """
    labels_N = np.asarray(labels_N)
    if p_NK.shape != (len(labels_N), classes):
        raise ValueError(f"p_NK is {p_NK.shape}, not {(len(labels_N), classes)}")
    ranks_N = rank_N(p_NK, labels_N)
    correct_N = ranks_N < 1
    present_K = np.bincount(labels_N, minlength=classes)
    right_K = np.bincount(labels_N[correct_N], minlength=classes)
    recall = right_K[present_K > 0] / present_K[present_K > 0]
    return {
        "accuracy": float(correct_N.mean()),
        "top5": float((ranks_N < 5).mean()),
        "balanced": float(recall.mean()),
        "n": len(labels_N),
        "correct": correct_N,
    }
