"""The record that every data source ends in: two memory-mapped image tensors, labels and statistics."""

import math
import textwrap
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
        train_images: (images, channels, side, side), uint8, or floats in [0, 1]; may be memory-mapped: nothing here
            writes to it.
        train_labels: int64, (images,), each below the number of classes.
        test_images: as train_images, of the same type and size.
        test_labels: as train_labels.
        classes: one name per label.
        mean: of the training images per channel, where 1 is white.
        std: as mean.

    Raises:
        DataError: something is of another kind; it is named.
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

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            self._check(split)
        if (
            self.train_images.shape[1:] != self.test_images.shape[1:]
            or self.train_images.dtype != self.test_images.dtype
        ):
            kinds = (f"{tuple(t.shape[1:])} {t.dtype}" for t in (self.train_images, self.test_images))
            raise DataError(f"{self.name}: training images are {', test images '.join(kinds)}; expected the same")
        for key in ("mean", "std"):
            values = getattr(self, key)
            good = len(values) == self.channels and all(math.isfinite(v) and (v > 0 or key == "mean") for v in values)
            if not good:
                above = " above 0" if key == "std" else ""
                raise DataError(f"{self.name}: {key} is {values}; expected {self.channels} numbers{above}")

    def _check(self, split: Split) -> None:
        """Refuse images and labels of a split that are none."""
        images, labels = self.split(split)
        where = f"{self.name}: {split}_images"
        if images.ndim != 4 or images.shape[2] != images.shape[3] or not images.numel():
            raise DataError(f"{where} have shape {tuple(images.shape)}; expected (images, channels, side, side)")
        if images.dtype != torch.uint8:
            if not images.is_floating_point():
                raise DataError(f"{where} are {images.dtype}; allowed: torch.uint8, or floats in [0, 1]")
            low, high = (float(each) for each in images.aminmax())
            if not (low >= 0 and high <= 1):
                raise DataError(
                    f"{where} are floats from {low:.4g} to {high:.4g}; allowed: 0 to 1, since `mean` and `std` "
                    "normalize them (bitline.evaluate takes batches of any numbers)"
                )
        where = f"{self.name}: {split}_labels"
        if labels.dtype != torch.int64 or tuple(labels.shape) != (len(images),):
            raise DataError(
                f"{where} are {labels.dtype} of shape {tuple(labels.shape)}; expected torch.int64, ({len(images)},)"
            )
        low, high = (int(each) for each in labels.aminmax())
        if low < 0 or high >= len(self.classes):
            raise DataError(f"{where} are from {low} to {high}; allowed: 0 to {len(self.classes) - 1}")

    def __repr__(self) -> str:
        listed = ", ".join(self.classes[:10]) + (f" and {self.num_classes - 10} more" if self.num_classes > 10 else "")
        kind = f"{self.channels} x {self.image_size} x {self.image_size}, {str(self.train_images.dtype)[6:]}"
        mean, std = (" ".join(f"{value:.3f}" for value in values) for values in (self.mean, self.std))
        lines = (
            f"{self.title}: {len(self.train_images):,} training and {len(self.test_images):,} test images, {kind}",
            f"{self.num_classes} classes: {listed}",
            f"normalized by mean {mean}, std {std}",
        )
        return "\n".join(textwrap.shorten(line, 80, placeholder=" ...") for line in lines)

    @property
    def channels(self) -> int:
        """Channels of an image."""
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
        """Return the images (NCHW) and labels (int64) of one split."""
        return (self.train_images, self.train_labels) if split == "train" else (self.test_images, self.test_labels)

    def normalize(self, images: Tensor) -> Tensor:
        """Scale images to zero mean and unit deviation over the training set, per channel.

        Args:
            images: uint8, or floats in [0, 1], (batch, channels, height, width); they are not changed.

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
        images: uint8, or floats in [0, 1], (batch, channels, height, width); they are not changed.
        mean: per channel, in [0, 1].
        std: as mean.

    Returns:
        float32 of the same shape and memory format, on the same device.
    """
    white = 1 if images.is_floating_point() else 255
    scale = [1 / (white * s) for s in std]
    shift = [-m / s for m, s in zip(mean, std, strict=True)]
    weight, bias = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (scale, shift))
    return images.to(torch.float32, copy=True).mul_(weight).add_(bias)


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
