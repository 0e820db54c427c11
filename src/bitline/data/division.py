"""Set a share of the images apart for testing."""

import hashlib
import logging
from collections.abc import Sequence

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
