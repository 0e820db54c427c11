"""Straight lines and ranks: what a handful of points can be asked."""

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence


def slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Fit y = c x^slope by least squares of logarithms.

    Args:
        x: positive.
        y: positive, as many.

    Returns:
        The exponent; None for fewer than three different x, or where a value has no logarithm.
    """
    if len(set(x)) < 3 or min([*x, *y]) <= 0:
        return None
    return statistics.linear_regression([math.log(value) for value in x], [math.log(value) for value in y]).slope


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's correlation, equal values sharing their ranks; None for fewer than four points or no variation."""
    if len(x) < 4 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return statistics.correlation(_ranks(x), _ranks(y))


def _ranks(values: Sequence[float]) -> list[float]:
    """Count from the least up; equal values share the mean of their ranks."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value) - 1) / 2 for value in values]


def standard_error(accuracy: float, images: int) -> float:
    """Standard error of an accuracy measured on so many images, points; of one image for 0 % and 100 %.

    Args:
        accuracy: percent.
        images: n; sqrt(p (1 - p) / n), with p kept half an image away from both ends.
    """
    p = min(max(accuracy / 100, 0.5 / images), 1 - 0.5 / images)
    return 100 * math.sqrt(p * (1 - p) / images)


def differ(a: float, b: float, images: int) -> bool:
    """Tell whether two accuracies differ by more than twice the standard error of their difference.

    Networks that see the same images differ by less than independent ones, so this errs on the side of doubt.
    """
    return abs(a - b) > 2 * math.hypot(standard_error(a, images), standard_error(b, images))
