"""Networks changed so that crossbars take them better."""

from bitline.compress.assignment import Assignment, assign
from bitline.compress.folded import fold_norms
from bitline.compress.regroup import regroup
from bitline.compress.result import LayerReport, Left, Report, Rewritten
from bitline.compress.separable import separate
from bitline.compress.walk import Sampling

__all__ = [
    "Assignment",
    "LayerReport",
    "Left",
    "Report",
    "Rewritten",
    "Sampling",
    "assign",
    "fold_norms",
    "regroup",
    "separate",
]
