"""How many images of a data set a network gets right."""

from collections.abc import Callable

import torch
from torch import nn

from bitline.data import DataSet

Tick = Callable[[int], None]
"""called with the number of images just done"""


@torch.no_grad()
def accuracy(
    model: nn.Module, data: DataSet, *, images: int | None = None, batch_size: int = 64, tick: Tick | None = None
) -> float:
    """Return the percentage of test images whose largest output is their label.

    Args:
        model: gives one output per class; it is put in eval mode.
        data: its test split is walked in its fixed order.
        images: only the first so many.
        batch_size: images at once; it has no influence on the result.
        tick: told of progress.
    """
    model.eval()
    device = next(model.parameters()).device
    right = total = 0
    for x, labels in data.batches("test", batch_size=batch_size, limit=images):
        right += int((model(x.to(device)).argmax(1).cpu() == labels).sum())
        total += len(labels)
        if tick is not None:
            tick(len(labels))
    return 100 * right / total
