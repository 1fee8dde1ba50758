"""The one rule by which a net's scores are right or wrong: every accuracy and every choice of a
class follows from it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

NO_CLASS = -1


def rank_N(scores_NK: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """How many other classes are not strictly below the label's: int [N], 0 is right.

    scores_NK: logits or posteriors, float [N, K]; labels_N: int [N]. Right in top-k is a rank below
    k: fewer than k others are as good or better. A tie counts against the net, which has not
    decided: a constant net is never right. An image whose softmax is not finite ranks at K + 5,
    wrong in top-1 and in top-5: one with a NaN or a +inf, or whose own score is -inf. (A -inf of
    another class is its posterior 0.)

    Posteriors: no two are rounded to 1, so what a saturated net has decided is no tie. The classes
    behind it may all be rounded to 0, and tie: top-5 counts their images as wrong where five others
    are no lower. So a net by itself is scored on logits, which still tell these apart; averages of
    posteriors have none, and two saturated nets that contradict each other tie too.
    """
    own_N = scores_NK[np.arange(len(labels_N)), labels_N]
    lost_N = (np.isnan(scores_NK) | (scores_NK == np.inf)).any(axis=1) | (own_N == -np.inf)
    return np.where(lost_N, scores_NK.shape[1] + 5, finite_rank_N(scores_NK, labels_N))


def finite_rank_N(scores_NK, labels_N):
    """`rank_N` of images whose softmax is finite; NumPy's arrays or, under jit too, jax's."""
    xp = np if isinstance(scores_NK, np.ndarray) else jnp
    own_N1 = xp.take_along_axis(scores_NK, labels_N[:, None], axis=1)
    others_N = (~(scores_NK < own_N1)).sum(axis=1) - 1
    return xp.where(xp.isnan(own_N1[:, 0]), scores_NK.shape[1] + 5, others_N)


def choice_N(scores_NK: np.ndarray) -> np.ndarray:
    """The class that is strictly above all others, int [N]; NO_CLASS where none is, or the image's
    softmax is not finite. So an image is right just where its choice is its label."""
    best_N = scores_NK.argmax(axis=1)
    return np.where(rank_N(scores_NK, best_N) == 0, best_N, NO_CLASS)
