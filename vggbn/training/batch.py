"""A training set on the devices, or one batch of it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from vggbn.data import Dataset, colour_pca, input_moments
from vggbn.machine import mesh
from vggbn.models import Targets


class DeviceData(NamedTuple):
    """A training set on the device, or a batch: uint8 images [N, H, W, C], labels [N], statistics.

    sizes_N2: the (height, width) of images of many scales in their frames, else None. Of a set that
    is streamed, images and labels come with each batch: here they are None.
    """

    images_NHWC: Any
    labels_N: Any
    mean_C: Any
    std: Any
    pca_CC: Any
    sizes_N2: Any = None

    def take(self, indices_N) -> DeviceData:
        """The batch at these rows; None: it is a batch already."""
        if indices_N is None:
            return self
        sizes_N2 = None if self.sizes_N2 is None else self.sizes_N2[indices_N]
        return self._replace(
            images_NHWC=self.images_NHWC[indices_N],
            labels_N=self.labels_N[indices_N],
            sizes_N2=sizes_N2,
        )

    @property
    def targets(self) -> Targets:
        """What a net's loss compares its outputs with."""
        return Targets(labels_N=self.labels_N)


@lru_cache(maxsize=1)
def on_device(dataset: Dataset) -> DeviceData:
    """The training split on every device; the last data set stays there for the next run."""
    images_NHWC, labels_N, sizes_N2 = dataset.train.resident
    mean_C, std = input_moments(dataset)
    data = DeviceData(
        images_NHWC=images_NHWC,
        labels_N=labels_N,
        mean_C=mean_C,
        std=std,
        pca_CC=colour_pca(dataset.train),
        sizes_N2=sizes_N2,
    )
    return mesh.replicate(data)
