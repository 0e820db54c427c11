"""The record that every data source ends in: two memory-mapped image tensors, labels and statistics."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bitline.errors import DataError

Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class DataSet:
    """Training and test images of one size, with labels, class names and the statistics of the training images.

    Args:
        name: what `load` was asked for.
        title: how to call the data beside a result, for example ``"CIFAR-10 (JPEG q75)"``.
        train_images: uint8, (images, channels, height, width); may be memory-mapped, do not write to it.
        train_labels: int64, (images,).
        test_images: as train_images.
        test_labels: as train_labels.
        classes: one name per label.
        mean: of the training images per channel, in [0, 1].
        std: as mean.
    """

    name: str
    title: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """Channels of an image: 1 or 3."""
        return self.train_images.shape[1]

    @property
    def image_size(self) -> int:
        """Height and width of an image, px; images that are not square are refused when loaded."""
        return self.train_images.shape[2]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def split(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return the images (uint8, NCHW) and labels (int64) of one split."""
        return (self.train_images, self.train_labels) if split == "train" else (self.test_images, self.test_labels)

    def normalize(self, images: Tensor) -> Tensor:
        """Scale images to zero mean and unit deviation over the training set, per channel.

        Args:
            images: uint8 in [0, 255], (batch, channels, height, width).

        Returns:
            float32 of the same shape and memory format, on the same device.
        """
        return normalize(images, self.mean, self.std)

    def normalized_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> "DataSet":
        """Return the same images, normalized by other statistics: those that a network was trained with.

        Args:
            mean: per channel, in [0, 1].
            std: as mean.
        """
        return replace(self, mean=mean, std=std)

    def batches(
        self, split: Split = "test", *, batch_size: int = 256, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalized images and labels in their fixed order, without augmentation.

        Args:
            split: ``"train"`` or ``"test"``.
            batch_size: images in a batch; the last may have fewer.
            limit: only the first so many images.

        Yields:
            Images, float32, (batch, channels, height, width), and labels, int64, (batch,).

        Raises:
            DataError: batch_size or limit below one, or more images asked for than there are.
        """
        images, labels = self.split(split)
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; allowed: 1 or more")
        if limit is not None and not 1 <= limit <= len(images):
            raise DataError(f"limit is {limit}; allowed: 1 to {len(images)}, the {split} images of {self.title}")
        stop = len(images) if limit is None else limit
        return (
            (
                self.normalize(images[start : min(start + batch_size, stop)]),
                labels[start : min(start + batch_size, stop)],
            )
            for start in range(0, stop, batch_size)
        )


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Scale images to zero mean and unit deviation per channel.

    Args:
        images: uint8 in [0, 255], (batch, channels, height, width).
        mean: per channel, in [0, 1].
        std: as mean.

    Returns:
        float32 of the same shape and memory format, on the same device.
    """
    scale = [1 / (255 * s) for s in std]
    shift = [-m / s for m, s in zip(mean, std, strict=True)]
    weight, bias = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (scale, shift))
    return images.float().mul_(weight).add_(bias)


def statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel.

    Integer histograms make the result exact and independent of chunks and threads.

    Args:
        images: uint8, (images, channels, height, width).

    Returns:
        Mean and standard deviation of value / 255, each one number per channel; a constant channel gets 1.
    """
    levels = np.arange(256) / 255
    means: list[float] = []
    deviations: list[float] = []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), 4096):
            counts += np.bincount(images[start : start + 4096, channel].ravel(), minlength=256)
        mean = float(counts @ levels / counts.sum())
        variance = float(counts @ (levels - mean) ** 2 / counts.sum())
        means.append(mean)
        deviations.append(variance**0.5 or 1.0)
    return tuple(means), tuple(deviations)
