"""Whether every class has an image in every part."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vggbn.data.lazy import AnySplit
from vggbn.data.pixels.decode import Damaged

_NAMED = 5  # classes in one message


def require_classes(
    split: AnySplit, classes: Mapping[int, str], part: str, what: str, remedy: str, damaged: str
) -> str:
    """What a note says of the classes that have no image in the split; "" where each has one.

    classes: label -> name. part: train, validation or test. what: names the split in messages;
    remedy: what mends it. Raises Damaged unless damaged is "skip", which says it on stderr.
    """
    present = set(split.labels_N.tolist())
    missing = [name for label, name in classes.items() if label not in present]
    if not missing:
        return ""
    more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
    names = ", ".join(missing[:_NAMED]) + more
    Damaged(f"{what} has no image of class {names}", remedy).refuse_or_tell(damaged)
    return f", no image of class {names} in {part}"


def present(found: Iterable[AnySplit], names: Sequence[str]) -> dict[int, str]:
    """Label and name of the classes that have an image in one of the splits."""
    labels = np.unique(np.concatenate([split.labels_N for split in found]))
    return {int(label): names[int(label)] for label in labels}
