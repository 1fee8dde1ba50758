"""Near-duplicate images: one picture saved twice, in another size, quality or brightness."""

import numpy as np

from vggbn.data.split import Split
from vggbn.errors import UserError

_SIDE = 16
_LEAST = 0.99
_CHUNK = 256
_MOST = 100_000  # all pairs are compared: minutes here, hours beyond


def near_duplicates(split: Split) -> np.ndarray:
    """A group number for each image, int [N]; near-duplicates share theirs.

    Two images are near-duplicates when they are identical or their 16 x 16 colour thumbnails
    correlate by 0.99 or more; groups are the connected components. Raises UserError for more than
    100,000 images.

    Measured on 3,781 photos of clothes: copies saved again at JPEG quality 60, at half the size
    or 20 % brighter correlate by more than 0.99, the closest two different photos by 0.972. A
    16 x 16 difference hash overlapped: up to 38 bits differ for copies, 18 for different photos.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(split)
    if n > _MOST:
        raise UserError(
            f"{n:,} images are too many to search for near-duplicates (at most {_MOST:,}): "
            'give the folder train/, validation/ and test/, and use split="fixed".'
        )
    images = [split.image(row) for row in range(n)]
    pairs_P2 = np.concatenate([_identical_pairs(images), _similar_pairs(images)])
    graph = coo_array((np.ones(len(pairs_P2), np.int8), tuple(pairs_P2.T)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def _identical_pairs(images: list[np.ndarray]) -> np.ndarray:
    """(row, first row with the same pixels) of every image, int [N, 2]: finds the copies of an
    image of one flat colour, whose correlation is undefined."""
    first = {}
    same = [first.setdefault((x.shape, x.tobytes()), row) for row, x in enumerate(images)]
    return np.column_stack([np.arange(len(same)), same])


def _similar_pairs(images: list[np.ndarray]) -> np.ndarray:
    """Rows whose thumbnails correlate, int [P, 2]."""
    thumbnails_ND = np.stack([_thumbnail(x_HWC) for x_HWC in images])
    pairs = []
    for start in range(0, len(images), _CHUNK):
        correlations = thumbnails_ND[start : start + _CHUNK] @ thumbnails_ND[start:].T
        pairs.append(np.argwhere(correlations >= _LEAST) + start)
    return np.concatenate(pairs)


def _thumbnail(x_HWC: np.ndarray) -> np.ndarray:
    """float32 [16 * 16 * C] of mean 0 and length 1, or all 0 for a flat colour."""
    from PIL import Image

    image = Image.fromarray(x_HWC[..., 0] if x_HWC.shape[2] == 1 else x_HWC)
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    thumbnail_D = np.asarray(small, np.float32).ravel()
    thumbnail_D = thumbnail_D - thumbnail_D.mean()
    length = np.linalg.norm(thumbnail_D)
    return thumbnail_D / length if length > 0 else thumbnail_D
