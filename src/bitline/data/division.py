"""In what order images come, and which are set apart for testing."""

import hashlib
import logging
from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np

from bitline.errors import DataError

log = logging.getLogger(__name__)


def check_share(share: float | None) -> None:
    """Refuse what is no share of the images.

    Raises:
        DataError: it is none.
    """
    if share is not None and not 0 < share < 1:
        raise DataError(f"split is {share}; allowed: between 0 and 1, for example 0.2")


def for_testing(names: Sequence[str], labels: np.ndarray, share: float) -> np.ndarray:
    """Choose images for testing: the same share of each class, and at least one for testing and one for training.

    Which they are depends on their names alone: not on their order, nor on when they were written.

    Args:
        names: of the images, all different.
        labels: their classes, (images,).
        share: of the images of a class, between 0 and 1.

    Returns:
        Which images are for testing, (images,) bool.

    Raises:
        DataError: no class has two images.
    """
    chosen = np.zeros(len(names), bool)
    draws = [hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest() for name in names]
    alone = 0
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label), key=lambda number: draws[number])
        alone += len(members) == 1
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        chosen[members[:count]] = True
    if not chosen.any():
        raise DataError(f"every class has one image; split {share:g} needs two or more")
    if alone:
        log.warning("%d classes have one image, which is for training", alone)
    return chosen


def spread(labels: Sequence[Hashable]) -> list[int]:
    """Order images that come class by class so that the first ones of them are of all classes, as many as there are.

    Args:
        labels: their classes.

    Returns:
        Their numbers; of one class in the order in which they came. Images that do not come class by class stay so.
    """
    runs = 1 + sum(a != b for a, b in pairwise(labels))
    members: dict[Hashable, list[int]] = {}
    for number, label in enumerate(labels):
        members.setdefault(label, []).append(number)
    if runs > len(members):
        return list(range(len(labels)))
    places = [((i + 0.5) / len(each), number) for each in members.values() for i, number in enumerate(each)]
    return [number for _, number in sorted(places)]
