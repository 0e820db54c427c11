"""How well a network answers: one number from its outputs and the targets.

A `Metric` is either of the whole, as any function ``f(outputs, targets)`` is: it sees all outputs and all targets at
once; or it adds up: it gives one value for each sample of a batch, and is finished with the sums over all samples.
Either way the number depends neither on the batches nor on their order, but for the last bits of sums of floats.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from bitline.errors import DataError, nearest
from bitline.evaluation.figures import Better
from bitline.evaluation.figures import Metric as MetricRecord

Answer = Callable[[Any, Any], Any]
"""of outputs and targets"""
Finish = Callable[[Tensor, int], float]
"""of the sums over all samples, float64, and how many samples there are"""


@dataclass(frozen=True)
class Metric:
    """A number that says how well a network answers.

        Metric(lambda outputs, targets: (outputs - targets).abs().median(), better="lower", name="median error")

    Args:
        of: called with outputs and targets. Without `finish` it is called once, with those of all batches put together
            on the CPU, and gives a number. With `finish` it is called for each batch, and gives a tensor of values,
            samples along the first axis.
        better: ``"higher"`` or ``"lower"``.
        name: for reports; default: that of the function.
        unit: for reports.
        finish: makes the number of the sums of the values over all samples, float64, and the number of samples. For
            outputs too large to be kept.
    """

    of: Answer
    better: Better
    name: str = ""
    unit: str = ""
    finish: Finish | None = None

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower"):
            raise DataError(f"better is {self.better!r}; allowed: 'higher', 'lower'")
        if not self.name:
            name = getattr(self.of, "__name__", type(self.of).__name__)
            object.__setattr__(self, "name", "metric" if name == "<lambda>" else name)

    @property
    def record(self) -> MetricRecord:
        """What an evaluation says of it."""
        return MetricRecord(name=self.name, unit=self.unit, better=self.better)

    def __call__(self, answers: Iterable[tuple[Any, Any]]) -> float:
        """Return the number.

        Args:
            answers: outputs and targets, batch after batch.

        Raises:
            DataError: the metric does not take them, or gives no finite number.
        """
        try:
            pairs = ((_on_cpu(outputs), _on_cpu(targets)) for outputs, targets in answers)
            value: Any = self._added(pairs, self.finish) if self.finish else self._of_the_whole(pairs)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"metric {self.name} fails: {first[:300]}") from error
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        try:
            number = float(value)
        except (TypeError, ValueError):
            kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise DataError(f"metric {self.name} gives {kind}; expected one number for all samples") from None
        if not math.isfinite(number):
            raise DataError(f"metric {self.name} is {number}; expected a finite number")
        return number

    def _of_the_whole(self, answers: Iterable[tuple[Any, Any]]) -> Any:
        outputs, targets = zip(*answers, strict=True)
        return self.of(_together(outputs), _together(targets))

    def _added(self, answers: Iterable[tuple[Any, Any]], finish: Finish) -> float:
        sums, samples = torch.zeros((), dtype=torch.float64), 0
        for outputs, targets in answers:
            values = self.of(outputs, targets)
            sums = sums + values.double().sum(0)
            samples += len(values)
        return finish(sums, samples)


def metric_of(given: "str | Answer | Metric") -> Metric:
    """Return a metric: by name, as it is, or of a function that says which way is better.

    Args:
        given: a name of `METRICS`, a `Metric`, or a callable with an attribute ``higher_is_better``, as metrics of
            torchmetrics have.

    Raises:
        DataError: an unknown name, or a function of which nobody knows whether higher is better.
    """
    if isinstance(given, Metric):
        return given
    if isinstance(given, str):
        if given not in METRICS:
            raise DataError(
                f"metric is {given!r}; allowed: {', '.join(METRICS)}, a bitline.Metric{nearest(given.lower(), METRICS)}"
            )
        return METRICS[given]()
    higher = getattr(given, "higher_is_better", None)
    if not isinstance(higher, bool):
        name = getattr(given, "__name__", type(given).__name__)
        raise DataError(
            f"metric {name}: whether higher or lower is better is not known; "
            f"give bitline.Metric({name}, better='higher') or 'lower'"
        )
    return Metric(given, "higher" if higher else "lower")


def accuracy(axis: int | None = None, ignore: int = -100) -> Metric:
    """Share of targets that are the class of the highest output, %.

    Args:
        axis: of the classes in the outputs; default: the axis that the targets lack.
        ignore: a target that does not count.
    """
    return top(1, axis, ignore)


def top(k: int, axis: int | None = None, ignore: int = -100) -> Metric:
    """Share of targets among the `k` highest outputs, %; see `accuracy`."""

    def right(outputs: Tensor, targets: Tensor) -> Tensor:
        logits, counted = _classes_last(outputs, targets, axis), targets != ignore
        if not 1 <= k <= logits.shape[-1]:
            raise ValueError(f"the {k} highest of {logits.shape[-1]} outputs")
        found = logits.argmax(-1, keepdim=True) if k == 1 else logits.topk(k, -1).indices
        hit = (found == targets.unsqueeze(-1)).any(-1)
        return torch.stack([x.reshape(len(x), -1).sum(1) for x in (hit & counted, counted)], 1)

    name = "accuracy" if k == 1 else f"top-{k} accuracy"
    return Metric(right, "higher", name, "%", lambda sums, _: 100 * float(sums[0]) / float(sums[1]))


def mean_squared_error() -> Metric:
    """Mean of the squared differences of outputs and targets."""
    return _error("mean squared error", torch.square, lambda mean: mean)


def root_mean_squared_error() -> Metric:
    """Root of the mean squared error."""
    return _error("RMSE", torch.square, math.sqrt)


def mean_absolute_error() -> Metric:
    """Mean of the absolute differences of outputs and targets."""
    return _error("mean absolute error", torch.abs, lambda mean: mean)


def mean_iou(axis: int | None = None, ignore: int = -100) -> Metric:
    """Intersection over union of predicted and true positions, mean over the classes that occur in either, %.

    Args:
        axis: of the classes in the outputs; default: the axis that the targets lack.
        ignore: a target that does not count.
    """

    def areas(outputs: Tensor, targets: Tensor) -> Tensor:
        logits = _classes_last(outputs, targets, axis)
        numbers = torch.arange(logits.shape[-1], device=logits.device)
        counted = (targets != ignore).unsqueeze(-1)
        found = (logits.argmax(-1).unsqueeze(-1) == numbers) & counted
        true = (targets.unsqueeze(-1) == numbers) & counted
        both, either = ((x.reshape(len(x), -1, len(numbers))).sum(1) for x in (found & true, found | true))
        return torch.stack([both, either], -1)

    def finish(sums: Tensor, _: int) -> float:
        both, either = sums.unbind(-1)
        return 100 * float((both[either > 0] / either[either > 0]).mean())

    return Metric(areas, "higher", "mean IoU", "%", finish)


def cross_entropy(axis: int | None = None, ignore: int = -100) -> Metric:
    """Mean of minus the logarithm of the probability that a softmax of the outputs gives to the targets, nats."""
    return Metric(_nats(axis, ignore), "lower", "cross-entropy", "nats", lambda sums, _: float(sums[0] / sums[1]))


def perplexity(axis: int | None = None, ignore: int = -100) -> Metric:
    """Exponential of the cross-entropy."""
    return Metric(_nats(axis, ignore), "lower", "perplexity", "", lambda sums, _: math.exp(float(sums[0] / sums[1])))


METRICS: Mapping[str, Callable[[], Metric]] = {
    "accuracy": accuracy,
    "top5": lambda: top(5),
    "mse": mean_squared_error,
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "miou": mean_iou,
    "cross_entropy": cross_entropy,
    "perplexity": perplexity,
}
"""that have a name"""


def _error(name: str, of: Callable[[Tensor], Tensor], finish: Callable[[float], float]) -> Metric:
    def values(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.squeeze(-1).shape != targets.squeeze(-1).shape:
            raise ValueError(f"outputs of shape {tuple(outputs.shape)}, targets of shape {tuple(targets.shape)}")
        wrong = of(outputs.double().reshape(targets.shape) - targets.double()).reshape(len(targets), -1)
        return torch.stack([wrong.sum(1), torch.full_like(wrong[:, 0], wrong.shape[1])], 1)

    return Metric(values, "lower", name, "", lambda sums, _: finish(float(sums[0] / sums[1])))


def _nats(axis: int | None, ignore: int) -> Callable[[Tensor, Tensor], Tensor]:
    def values(outputs: Tensor, targets: Tensor) -> Tensor:
        logits = _classes_last(outputs, targets, axis).double()
        counted = (targets != ignore).reshape(len(targets), -1)
        flat = logits.reshape(-1, logits.shape[-1])
        each = functional.cross_entropy(flat, targets.flatten(), ignore_index=ignore, reduction="none")
        return torch.stack([each.reshape(counted.shape).sum(1), counted.sum(1).double()], 1)

    return values


def _classes_last(outputs: Tensor, targets: Tensor, axis: int | None) -> Tensor:
    """Return outputs with the axis of classes last; it is the one that targets do not have."""
    shape = tuple(outputs.shape)
    fitting = [a for a in range(1, len(shape)) if shape[:a] + shape[a + 1 :] == tuple(targets.shape)]
    if axis is not None:
        fitting = [a for a in fitting if a == axis % len(shape)]
    if len(fitting) != 1:
        which = "no axis is the classes'" if not fitting else f"axes {fitting} may be the classes'; give axis="
        raise ValueError(f"outputs of shape {shape}, targets of shape {tuple(targets.shape)}: {which}")
    if targets.is_floating_point():
        raise ValueError(f"targets are {targets.dtype}; expected class numbers")
    return outputs.movedim(fitting[0], -1)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(each) for key, each in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        each = [_on_cpu(each) for each in cast("list[Any]", value)]
        return tuple(each) if isinstance(value, tuple) else each
    return value


def _together(batches: tuple[Any, ...]) -> Any:
    """Join what batches gave: tensors along the first axis, mappings and tuples of tensors part by part.

    Lists hold what belongs to each sample; they follow each other.
    """
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.cat(batches)
    if isinstance(first, Mapping):
        return {key: _together(tuple(batch[key] for batch in batches)) for key in cast("Mapping[Any, Any]", first)}
    if isinstance(first, tuple) and all(isinstance(part, Tensor) for part in cast("tuple[Any, ...]", first)):
        return tuple(map(_together, zip(*batches, strict=True)))
    return [each for batch in batches for each in batch]
