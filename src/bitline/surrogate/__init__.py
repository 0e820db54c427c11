"""A stand-in for conversions and cells: one plain product, and noise as it was seen on a few images."""

from bitline.surrogate.answer import answering, attach, detach
from bitline.surrogate.measure import measure
from bitline.surrogate.statistics import LEAST_SNR, MOST_CHANGED, MOST_OVERFLOWS, Noise, Statistics, Surrogate

__all__ = [
    "LEAST_SNR",
    "MOST_CHANGED",
    "MOST_OVERFLOWS",
    "Noise",
    "Statistics",
    "Surrogate",
    "answering",
    "attach",
    "detach",
    "measure",
]
