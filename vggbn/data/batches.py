"""Which examples make batch `step`: a pure function of the seed and the step."""

from functools import lru_cache

import numpy as np

from vggbn.data.permutation import permutation
from vggbn.errors import UserError

SHUFFLES = ("fixed", "fresh")
# First entry of the permutation keys: keeps the streams of different uses apart.
_EXAMPLES, _BATCHES = 1, 2


def batch_indices(seed: int, step: int, *, n: int, batch: int, shuffle: str) -> np.ndarray:
    """The rows of the training split that make the batch of `step` (counted from 0).

    An epoch is n // batch batches and the n % batch examples left over are dropped.

    shuffle="fixed": the examples are dealt into batches once, by the seed; each
        epoch visits the same batches in a new order. The tail is always the same
        examples: they are never trained on.
    shuffle="fresh": each epoch permutes all examples anew, and so drops others.

    Returns int32 [batch], read-only. seed and step are >= 0. Raises UserError when batch does
    not lie in 1..n or shuffle is unknown.
    """
    if shuffle not in SHUFFLES:
        raise UserError(f"shuffle={shuffle!r} is unknown: use one of {', '.join(SHUFFLES)}.")
    if not 1 <= batch <= n:
        raise UserError(
            f"A batch of {batch} does not fit a training split of {n} examples: "
            f"choose a batch between 1 and {n}."
        )
    epoch, position = divmod(int(step), n // batch)
    return _epoch_batches(int(seed), epoch, n, batch, shuffle)[position]


@lru_cache(maxsize=4)
def _epoch_batches(seed: int, epoch: int, n: int, batch: int, shuffle: str) -> np.ndarray:
    """All batches of one epoch, int32 [n // batch, batch]."""
    count = n // batch
    key = (_EXAMPLES, seed) if shuffle == "fixed" else (_EXAMPLES, seed, 1 + epoch)
    batches_BN = permutation(n, *key)[: count * batch].reshape(count, batch).astype(np.int32)
    if shuffle == "fixed":
        batches_BN = batches_BN[permutation(count, _BATCHES, seed, epoch)]
    batches_BN.flags.writeable = False  # shared through the cache
    return batches_BN
