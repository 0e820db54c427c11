"""How well a network answers what it is asked."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from bitline.data import DataSet
from bitline.errors import ConversionError
from bitline.evaluation import record
from bitline.evaluation.metrics import accuracy as right_answers
from bitline.evaluation.task import Task, TestImages
from bitline.network.inputs import call, count, described, mapped

Tick = Callable[[int], None]
"""called with the number of samples just done"""


@torch.no_grad()
def score(model: nn.Module, task: Task, tick: Tick | None = None) -> float:
    """Return how well a network answers, by the metric of a task.

    Args:
        model: plain or on a chip; it is put in eval mode.
        task: what it is asked.
        tick: told of progress.

    Raises:
        ConversionError: the network does not take the inputs.
        DataError: the metric does not take the outputs and targets, or is not finite.
    """
    model.eval()
    device = next(model.parameters()).device

    def answers() -> Iterator[tuple[Any, Any]]:
        for inputs, targets in task.batches:
            try:
                outputs = call(model, mapped(inputs, lambda x: x.to(device)))
            except (RuntimeError, TypeError) as error:
                problem = (str(error).splitlines() or [type(error).__name__])[0]
                raise ConversionError(
                    f"{type(model).__name__} does not run on inputs of shape {described(inputs)}: {problem[:300]}"
                ) from error
            yield outputs, targets
            if tick is not None:
                tick(count(inputs))

    return task.metric(answers())


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
    some = TestImages(data, batch_size, images or len(data.test_images))
    what = record.Data(name=data.title, split="test", count=some.images)
    return score(model, Task(some, [], right_answers(), what, ""), tick)
