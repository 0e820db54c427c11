"""What a network is asked on a chip, how well it answers, and what it is calibrated on."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, overload

import torch
from torch import Tensor

from bitline.data import DataSet
from bitline.errors import DataError
from bitline.evaluation import record
from bitline.evaluation.metrics import Metric, accuracy
from bitline.evaluation.settings import Settings
from bitline.network.inputs import Inputs, count, described, inputs_of, joined, leaves, mapped

log = logging.getLogger(__name__)

CALIBRATION_BATCH = 64
"""samples at once; a constant, since which partial sums are counted depends on it"""
HELD_BYTES = 2**30
"""of batches that are held in memory; more are walked again for every chip"""

Batch = tuple[Inputs, Any]
"""inputs and targets"""


@dataclass(frozen=True)
class Task:
    """What a network is asked.

    Args:
        batches: (inputs, targets), the same at every walk.
        calibration: inputs that set the ranges.
        metric: how well it answers.
        data: what the samples are.
        calibrated_on: what the calibration inputs are, in words.
    """

    batches: Iterable[Batch]
    calibration: Sequence[Inputs]
    metric: Metric
    data: record.Data
    calibrated_on: str

    def first(self, most: int) -> Inputs:
        """Return the inputs of the first samples, at most so many."""
        return _first((inputs for inputs, _ in self.batches), most)


def of_data(data: DataSet, settings: Settings) -> Task:
    """Return the classification of images: accuracy on test images, ranges from training images.

    Args:
        data: the images.
        settings: how many of them.

    Raises:
        DataError: more images asked for than there are.
    """
    settings.check(data)
    images = settings.images or len(data.test_images)
    calibration = CalibrationImages(data, settings)
    return Task(
        TestImages(data, settings.batch_size, images),
        calibration,
        accuracy(),
        record.Data(name=data.title, split="test", count=images),
        f"{calibration.images} training images",
    )


@dataclass(frozen=True)
class TestImages:
    """Test images of a data set in batches, normalized anew at every walk."""

    data: DataSet
    batch_size: int
    images: int

    def __iter__(self) -> Iterator[Batch]:
        return self.data.batches("test", batch_size=self.batch_size, limit=self.images)

    def __reduce__(self) -> tuple[Any, ...]:  # another process gets no other image
        images, labels = (x[: self.images].clone() for x in self.data.split("test"))
        some = {"train_images": images[:1], "train_labels": labels[:1], "test_images": images, "test_labels": labels}
        return TestImages, (replace(self.data, **some), self.batch_size, self.images)


class CalibrationImages(Sequence[Inputs]):
    """First training images of a data set in batches, normalized anew at every use.

    Args:
        data: with the images.
        settings: how many.
    """

    def __init__(self, data: DataSet, settings: Settings) -> None:
        self.data, self.settings = data, settings
        self.images = min(settings.calibration_images, len(data.train_images))

    def __len__(self) -> int:
        return -(-self.images // CALIBRATION_BATCH)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        start = range(0, self.images, CALIBRATION_BATCH)[index]
        return self.data.normalize(self.data.train_images[start : min(start + CALIBRATION_BATCH, self.images)])

    def remark(self) -> None:
        """Say that there are fewer than asked for, where there are."""
        if self.images < self.settings.calibration_images:
            log.info("all %d training images set the ranges, not %d", self.images, self.settings.calibration_images)

    def __reduce__(self) -> tuple[Any, ...]:  # another process gets no other image
        images, labels = (x[: self.images].clone() for x in self.data.split("train"))
        some = {"train_images": images, "train_labels": labels, "test_images": images[:1], "test_labels": labels[:1]}
        return CalibrationImages, (replace(self.data, **some), self.settings)


def of_batches(
    batches: Iterable[Any], calibration: Iterable[Any] | None, metric: Metric, *, name: str, calibration_images: int
) -> Task:
    """Return what batches ask.

    Args:
        batches: (inputs, targets), walked several times: a data loader, a list, or a torch `Dataset` of samples.
        calibration: inputs, or (inputs, targets), of which the first set the ranges; None: those of `batches`.
        metric: how well the network answers.
        name: of the data.
        calibration_images: most samples to calibrate on.

    Raises:
        DataError: batches that can be walked once only, are none, or are no (inputs, targets).
        ConversionError: inputs are no tensors.
    """
    walked = _Batches(_loader(batches, "batches"))
    if not walked.count:
        raise DataError("batches gives no data")
    given = _loader(batches if calibration is None else calibration, "calibration")
    inputs = _some((inputs_of(batch) for batch in given), calibration_images)
    many = sum(map(count, inputs))
    if not many:
        raise DataError("calibration gives no data")
    if calibration is None:
        log.info("ranges are set on the first %d samples that are evaluated: no calibration batches were given", many)
    told = f"the first {many} samples evaluated" if calibration is None else f"{many} samples of their own"
    return Task(walked, inputs, metric, record.Data(name=name, split="", count=walked.count), told)


class _Batches:
    """Batches of anything, held in memory where they are small; else walked again, the same every time.

    Attributes:
        count: of the samples.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.count, size = 0, 0
        self._held: list[Batch] | None = []
        self._source: Iterable[Any] | None = batches
        for batch in batches:
            inputs, targets = _pair(batch)
            self.count += count(inputs)
            size += sum(x.nbytes for x in (*leaves(inputs), *_tensors(targets)))
            if size > HELD_BYTES:
                self._held = None
            if self._held is not None:
                self._held.append((mapped(inputs, torch.clone), _cloned(targets)))  # loaders may use a tensor again
        if self._held is not None:
            self._source = None

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._held) if self._held is not None else map(_pair, self._source or ())


def _pair(batch: Any) -> Batch:
    if isinstance(batch, Tensor | str | Mapping) or not isinstance(batch, Sequence) or len(batch) < 2:
        raise DataError(
            f"a batch is a {type(batch).__name__}; expected (inputs, targets): inputs are a tensor, or a tuple or dict "
            "of tensors; of more than two parts the last is the targets"
        )
    parts = cast("Sequence[Any]", batch)
    inputs, targets = inputs_of(parts), parts[-1]
    size = len(targets) if isinstance(targets, Tensor | list) and not _scalar(targets) else count(inputs)
    if size != count(inputs):
        raise DataError(f"a batch has {count(inputs)} inputs ({described(inputs)}) and {size} targets")
    return inputs, targets


def _scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0


def _loader(given: Iterable[Any], what: str) -> Iterable[Any]:
    """Return batches that can be walked again; a data set of samples is cut in batches."""
    from torch.utils.data import DataLoader, Dataset, IterableDataset

    walkable = hasattr(given, "__iter__") or isinstance(given, Dataset)
    if isinstance(given, Tensor | str | Mapping) or not walkable:
        raise DataError(f"{what} is a {type(given).__name__}; expected a DataLoader, a Dataset, or a list of batches")
    if isinstance(given, Iterator):
        raise DataError(f"{what} can be walked once only; give a list or a data loader, not an iterator")
    if isinstance(given, Dataset) and not isinstance(given, IterableDataset):
        return DataLoader(given, batch_size=CALIBRATION_BATCH)
    return given


def _some(batches: Iterable[Inputs], most: int) -> list[Inputs]:
    """Take the first samples of batches."""
    taken: list[Inputs] = []
    left = most
    for inputs in batches:
        if left <= 0:
            break
        part = mapped(inputs, lambda x, n=left: x[:n].clone())
        taken.append(part)
        left -= count(part)
    return taken


def _first(batches: Iterator[Inputs], most: int) -> Inputs:
    taken = _some(batches, most)
    shapes = [[tuple(x.shape[1:]) for x in leaves(part)] for part in taken]
    alike = [part for part, shape in zip(taken, shapes, strict=True) if shape == shapes[0]]
    return joined(alike, torch.cat)


def _tensors(targets: Any) -> list[Tensor]:
    """List the tensors within targets of any kind."""
    if isinstance(targets, Tensor):
        return [targets]
    if isinstance(targets, Mapping):
        return [x for each in cast("Mapping[Any, Any]", targets).values() for x in _tensors(each)]
    if isinstance(targets, list | tuple):
        return [x for each in cast("list[Any]", targets) for x in _tensors(each)]
    return []


def _cloned(targets: Any) -> Any:
    if isinstance(targets, Tensor):
        return targets.clone()
    if isinstance(targets, Mapping):
        return {key: _cloned(each) for key, each in cast("Mapping[Any, Any]", targets).items()}
    if isinstance(targets, list | tuple):
        each = [_cloned(each) for each in cast("list[Any]", targets)]
        return tuple(each) if isinstance(targets, tuple) else each
    return targets
