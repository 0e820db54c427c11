"""Whether a network is fed as it was when it was trained: what its float accuracy on a few images says."""

import logging
import math
from typing import Any

import torch
from torch import Tensor, nn

from bitline import manifest
from bitline.data import DataSet
from bitline.data.dataset import Split, normalize
from bitline.errors import DataError
from bitline.files import RECORD, WEIGHTS
from bitline.models.record import ModelRecord

log = logging.getLogger(__name__)

NORMALIZATION_IMAGES, RECORDED_IMAGES = 256, 500
"""training and test images, evenly from all, that are looked at"""
ERRORS = 4
"""standard errors beyond which a difference is none of chance"""
LEAST = 0.05
"""share of the images that a better normalization must get right beside, to be spoken of"""
SLACK = 0.005
"""accuracy that another machine's arithmetic may change"""

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def check_normalization(network: nn.Module, data: DataSet, *, said: bool) -> None:
    """Compare the normalization of the images with the usual other ones, by accuracy on some training images.

    Args:
        network: in evaluation mode.
        data: normalized as it is to be.
        said: the user said so; then a better one is a warning.

    Raises:
        DataError: nobody said so, and another one is better by more than chance.
    """
    images, labels = _some(data, "train", NORMALIZATION_IMAGES)
    chosen = (data.mean, data.std)
    right = _right(network, images, labels, chosen)
    count, channels = len(labels), data.channels
    others: dict[str, Normalization] = {
        "--no-normalize (images in [0, 1])": ((0.0,) * channels, (1.0,) * channels),
        "--mean 0.5 --std 0.5 (images in [-1, 1])": ((0.5,) * channels, (0.5,) * channels),
    }
    if channels == 3:
        mean, std = (",".join(map(str, numbers)) for numbers in _IMAGENET)
        others[f"--mean {mean} --std {std} (ImageNet's)"] = _IMAGENET
    found = {name: _right(network, images, labels, other) for name, other in others.items() if other != chosen}
    best = max(found, key=lambda name: int(found[name].sum()))
    gain, apart = int(found[best].sum()) - int(right.sum()), int((found[best] != right).sum())
    by_chance = count / data.num_classes + ERRORS * math.sqrt(count / data.num_classes)
    if gain > max(LEAST * count, ERRORS * math.sqrt(apart)) and int(found[best].sum()) >= by_chance:
        here, there = (100 * int(each.sum()) / count for each in (right, found[best]))
        text = (
            f"the network gets {here:.1f} % of {count} training images right when they are normalized by mean "
            f"{_text(data.mean)} and std {_text(data.std)}, and {there:.1f} % with {best}"
        )
        if not said:
            keep = f"--mean {_text(data.mean, ',')} --std {_text(data.std, ',')}"
            raise DataError(f"{text}: say which it was trained with ({keep} keeps the data's own)")
        log.warning("%s", text)
    elif int(right.sum()) < by_chance:
        log.warning(
            "the network gets %.1f %% of %d training images right, which is no more than chance: other weights, "
            "classes in another order, or images fed in another way than in its training",
            100 * int(right.sum()) / count,
            count,
        )  # fmt: skip


def check_recorded(
    network: nn.Module, data: DataSet, record: ModelRecord, metrics: dict[str, Any], where: Any, *, other: str = ""
) -> None:
    """Compare the float accuracy of a run with the one that it recorded, on test images of the same data.

    Args:
        network: of the run, in evaluation mode.
        data: as it is fed now.
        record: of the run.
        metrics: of the run.
        where: the run directory.
        other: what was asked for instead of the run's own, for example ``--data photos``; then a difference is a
            warning.

    Raises:
        DataError: it is lower by more than chance.
    """
    recorded, total = metrics.get("test_accuracy"), metrics.get("test_images")
    if metrics.get("data") != data.title or not isinstance(recorded, float) or not isinstance(total, int):
        return
    images, labels = _some(data, "test", RECORDED_IMAGES)
    count = len(labels)
    measured = int(_right(network, images, labels, (data.mean, data.std)).sum()) / count
    part = max(0.0, 1 - count / total) if total == len(data.test_labels) else 1.0
    error = math.sqrt(max(0.0, recorded * (1 - recorded)) / count * part)
    allowed = ERRORS * error + max(SLACK, 1 / count)
    if measured >= recorded - allowed:
        return
    edited = [name for name in manifest.edited(where) if name in (WEIGHTS, RECORD)]
    reasons = [other] if other else []
    reasons += [f"{name} was edited since" for name in edited]
    if total != len(data.test_labels):
        reasons.append(f"{len(data.test_labels)} test images instead of {total}")
    reasons.append(f"images from {record.data}" if not other else f"instead of {record.data}")
    text = (
        f"{where}: the float network gets {measured:.2%} of {count} test images of {data.title} right; the run "
        f"recorded {recorded:.2%} of {total}, and {allowed:.2%} are within chance. Other images, sizes, weights or "
        "libraries: " + "; ".join(reasons)
    )
    if not (other or edited):
        raise DataError(text)
    log.warning("%s", text)


def _some(data: DataSet, split: Split, most: int) -> tuple[Tensor, Tensor]:
    """Images evenly from a whole split, since folders lie in order of their classes."""
    images, labels = data.split(split)
    index = torch.linspace(0, len(labels) - 1, min(most, len(labels))).round().long().unique()
    return images[index], labels[index]


@torch.no_grad()
def _right(network: nn.Module, images: Tensor, labels: Tensor, by: Normalization) -> Tensor:
    """Which images the network tells right."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    parts = [network(normalize(part, *by).to(device)).argmax(1).cpu() for part in images.split(64)]
    return torch.cat(parts) == labels


def _text(numbers: tuple[float, ...], between: str = " ") -> str:
    return between.join(f"{number:.4g}" for number in numbers)
