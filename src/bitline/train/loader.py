"""Batches cut from memory-mapped tensors: whole batches at a time, the same ones after a resume."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bitline import seeds
from bitline.data import DataSet
from bitline.train.augment import cutout, flip_and_crop

Batch = tuple[Tensor, Tensor]


class TrainBatches:
    """Shuffled, augmented, normalized training batches; what a batch holds depends on (seed, epoch, batch) alone.

    Lightning reads `state_dict` into its checkpoints, which makes a resume in the middle of an epoch exact. A last
    incomplete batch is left out, and what `limit` leaves out; the shuffle leaves out other images in every epoch.

    Args:
        data: the data set.
        batch_size: images in a batch; no more than the training images.
        seed: of the shuffle and the augmentation.
        flip: mirror half of the images.
        pad: largest shift of an image, px.
        hole: side of the square that is cut out of each image, px; 0 for none.
        limit: images of an epoch, no fewer than `batch_size`; None: all.
    """

    def __init__(
        self,
        data: DataSet,
        *,
        batch_size: int,
        seed: int,
        flip: bool,
        pad: int,
        hole: int = 0,
        limit: int | None = None,
    ) -> None:
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.flip = flip
        self.pad = pad
        self.hole = hole
        self.limit = min(limit or len(data.train_images), len(data.train_images))
        self.epoch = 0
        self.position = 0
        self.sampler = self  # Lightning calls sampler.set_epoch at the start of each epoch

    def __len__(self) -> int:
        return self.limit // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        # a generator: it reads the epoch and position at the first batch, after Lightning has set them
        order = torch.randperm(len(self.data.train_images), generator=self._generator(self.epoch))
        while self.position < len(self):
            index = self.position
            self.position += 1
            yield self.batch(order, index)

    def batch(self, order: Tensor, index: int) -> Batch:
        """Return one batch.

        Args:
            order: of the training images in this epoch, int64.
            index: of the batch in the epoch.

        Returns:
            Images, float32, channels_last, and labels, int64.
        """
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        generator = self._generator(self.epoch, index)
        images = flip_and_crop(self.data.train_images[chosen], flip=self.flip, pad=self.pad, generator=generator)
        images = self.data.normalize(images)
        if self.hole:
            images = cutout(images, size=self.hole, generator=generator)
        return images, self.data.train_labels[chosen]

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch from its first batch, unless it is the one a checkpoint left off in."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.position = 0

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the next batch."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the epoch and batch of a checkpoint."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def _generator(self, *parts: int) -> torch.Generator:
        return torch.Generator().manual_seed(seeds.of_step(self.seed, *parts))


class TestBatches:
    """Normalized test batches in fixed order.

    Args:
        data: the data set.
        batch_size: images in a batch; the last may have fewer.
        limit: only the first so many images; None: all.
    """

    __test__ = False  # not a pytest class

    def __init__(self, data: DataSet, *, batch_size: int, limit: int | None = None) -> None:
        self.data = data
        self.batch_size = batch_size
        self.limit = min(limit or len(data.test_images), len(data.test_images))

    def __len__(self) -> int:
        return -(-self.limit // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for images, labels in self.data.batches("test", batch_size=self.batch_size, limit=self.limit):
            yield images.contiguous(memory_format=torch.channels_last), labels
