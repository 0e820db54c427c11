"""Random flips, crops and cutouts of whole batches."""

import torch
from torch import Tensor


def flip_and_crop(images: Tensor, *, flip: bool, pad: int, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half and shift it by up to `pad` px each way.

    A shifted image is filled at its edge by reflection. Shift, reflection and flip are all index arithmetic, so one
    gather does the batch and its result lies in memory as channels_last.

    Args:
        images: (batch, channels, height, width).
        flip: mirror half of the images.
        pad: largest shift, px, below the height and the width.
        generator: the same state gives the same result.

    Returns:
        As images, channels_last.
    """
    batch, _, height, width = images.shape
    shift = torch.randint(-pad, pad + 1, (2, batch, 1), generator=generator)
    rows = _reflect(torch.arange(height) + shift[0], height)  # (batch, height)
    columns = _reflect(torch.arange(width) + shift[1], width)  # (batch, width)
    mirrored = torch.rand(batch, 1, generator=generator) < 0.5
    if flip:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    index = torch.arange(batch)[:, None, None]
    gathered = images[index, :, rows[:, :, None], columns[:, None, :]]  # (batch, height, width, channels)
    return gathered.permute(0, 3, 1, 2)


def cutout(images: Tensor, *, size: int, generator: torch.Generator) -> Tensor:
    """Set a square of each image to zero, the mean of normalized images; its centre is any pixel.

    T. DeVries and G. Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017,
    arXiv:1708.04552.

    Args:
        images: normalized, (batch, channels, height, width); changed in place.
        size: side of the square, px; part of it may lie outside the image.
        generator: the same state gives the same result.

    Returns:
        The images.
    """
    batch, _, height, width = images.shape
    top = torch.randint(0, height, (batch, 1), generator=generator) - size // 2
    left = torch.randint(0, width, (batch, 1), generator=generator) - size // 2
    rows = (torch.arange(height) >= top) & (torch.arange(height) < top + size)  # (batch, height)
    columns = (torch.arange(width) >= left) & (torch.arange(width) < left + size)  # (batch, width)
    return images.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Fold indices that lie outside back into [0, size) without repeating the edge."""
    return size - 1 - (size - 1 - index.abs()).abs()
