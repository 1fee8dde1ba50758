"""Train, validation and test: stratified by class, whole groups together, always the same.

The examples of a set are dealt into ten stratified tenths, once. Fold k tests
tenths 2k and 2k + 1 and validates on the next: 70 % / 10 % / 20 %, and five
folds test every example exactly once.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from vggbn.data.lazy import AnySplit
from vggbn.data.permutation import permutation
from vggbn.errors import UserError

SPLITS = ("fixed", "folds")
FOLDS = 5
PARTS = ("train", "validation", "test")
_TENTHS = 10
_KEY = 3  # of the one permutation that deals the examples
_FEW_KEY = 5  # of the one that chooses a few of them


def tenths(labels_N: np.ndarray, groups_N: np.ndarray | None = None) -> np.ndarray:
    """Deal examples into tenths of equal size and equal share of every class.

    groups_N: int [N]; the examples of one group go to the same tenth (None: each is its own).
    Returns int [N], values 0..9. A group counts as the class of its first example.
    """
    groups_N = np.arange(len(labels_N)) if groups_N is None else groups_N
    _, first_G, group_N, size_G = np.unique(
        groups_N, return_index=True, return_inverse=True, return_counts=True
    )
    label_G = labels_N[first_G]
    # Class by class, large groups first: the small ones then even out the sizes.
    order_G = np.lexsort((permutation(len(first_G), _KEY), -size_G, label_G))
    return _deal(label_G, size_G, order_G)[group_N]


def _deal(label_G: np.ndarray, size_G: np.ndarray, order_G: np.ndarray) -> np.ndarray:
    """Each group to the tenth with the fewest of its class, then the fewest of all."""
    tenth_G = np.zeros(len(label_G), np.int64)
    total = [0] * _TENTHS
    in_class = defaultdict(lambda: [0] * _TENTHS)
    for group, label, size in zip(
        order_G.tolist(), label_G[order_G].tolist(), size_G[order_G].tolist(), strict=True
    ):
        counts = in_class[label]
        tenth = min(range(_TENTHS), key=lambda t: (counts[t], total[t], t))
        counts[tenth] += size
        total[tenth] += size
        tenth_G[group] = tenth
    return tenth_G


def carve(
    parts: Mapping[str, AnySplit], *, fold: int, groups_N: np.ndarray | None = None
) -> tuple[AnySplit, AnySplit, AnySplit]:
    """(train, validation, test), taking what `parts` lacks out of its 'train'.

    A missing test is tenths 2k and 2k + 1 of train (k = fold % 5), a missing
    validation the tenth after them; with a test of its own, validation is tenth fold % 10.
    groups_N: near-duplicates of train, as in `tenths`.
    """
    tenth_N = tenths(parts["train"].labels_N, groups_N)
    taken = _taken(parts, fold)
    found = dict(parts)
    for part, wanted in taken.items():
        found[part] = parts["train"].take(np.isin(tenth_N, wanted))
    used = [tenth for wanted in taken.values() for tenth in wanted]
    train = parts["train"].take(~np.isin(tenth_N, used)) if used else parts["train"]
    return train, found["validation"], found["test"]


def _taken(parts: Mapping[str, AnySplit], fold: int) -> dict[str, list[int]]:
    """Which tenths of train become the parts that are missing."""
    taken = {}
    after = fold
    if "test" not in parts:
        first = 2 * (fold % FOLDS)
        taken["test"] = [first, first + 1]
        after = first + 2
    if "validation" not in parts:
        taken["validation"] = [after % _TENTHS]
    return taken


def stratified(split: AnySplit, n: int) -> AnySplit:
    """n examples with every class's share, always the same ones; more are a superset of fewer.

    Raises UserError when there are not so many, or a class would have none.
    """
    labels_N = split.labels_N
    order_N = permutation(len(split), _FEW_KEY)
    counts_K = np.bincount(labels_N)
    rank_K, place_N = np.zeros_like(counts_K), np.empty(len(split))
    for row in order_N.tolist():
        label = labels_N[row]
        place_N[row] = (rank_K[label] + 0.5) / counts_K[label]  # of 1, along its class
        rank_K[label] += 1
    few = split.take(np.sort(order_N[np.argsort(place_N[order_N], kind="stable")[:n]]))
    if n > len(split) or len(np.unique(few.labels_N)) < np.count_nonzero(counts_K):
        raise UserError(
            f"train_size={n} does not fit {len(split):,} training images: choose a number up to "
            "that, with one of each class at least."
        )
    return few
