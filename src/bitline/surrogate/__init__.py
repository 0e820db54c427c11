"""A stand-in for conversions and cells: one plain product, and noise of the mean and variance that they add."""

from bitline.surrogate.answer import answering, attach, detach
from bitline.surrogate.measure import measure
from bitline.surrogate.statistics import LEAST_SNR, MOST_OVERFLOWS, Statistics, Surrogate

__all__ = ["LEAST_SNR", "MOST_OVERFLOWS", "Statistics", "Surrogate", "answering", "attach", "detach", "measure"]
