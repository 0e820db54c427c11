"""Straight lines and ranks: what a handful of points can be asked."""

import math
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
    log_x, log_y = [math.log(value) for value in x], [math.log(value) for value in y]
    mean_x, mean_y = sum(log_x) / len(x), sum(log_y) / len(y)
    spread = sum((value - mean_x) ** 2 for value in log_x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(log_x, log_y, strict=True)) / spread


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's correlation, equal values sharing their ranks; None for fewer than four points or no variation."""
    if len(x) < 4:
        return None
    a, b = _ranks(x), _ranks(y)
    mean = (len(x) + 1) / 2
    powers = [sum((value - mean) ** 2 for value in ranks) for ranks in (a, b)]
    if min(powers) == 0:
        return None
    both = sum((one - mean) * (other - mean) for one, other in zip(a, b, strict=True))
    return both / math.sqrt(powers[0] * powers[1])


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


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
