"""Networks changed so that crossbars take them better."""

from bitline.compress.assignment import Assignment, assign
from bitline.compress.crossbar_block import CrossbarBlocks
from bitline.compress.fine_grained import FineGrained, fine_grained
from bitline.compress.folded import fold_norms
from bitline.compress.kernel_group import KernelGroups
from bitline.compress.regroup import regroup
from bitline.compress.repack import repack
from bitline.compress.result import LayerReport, Left, Report, Rewritten, Shrunk
from bitline.compress.separable import separate
from bitline.compress.sparsity import crossbars, sparsity
from bitline.compress.walk import Sampling
from bitline.compress.zeroed import Zeroed

__all__ = [
    "Assignment",
    "CrossbarBlocks",
    "FineGrained",
    "KernelGroups",
    "LayerReport",
    "Left",
    "Report",
    "Rewritten",
    "Sampling",
    "Shrunk",
    "Zeroed",
    "assign",
    "crossbars",
    "fine_grained",
    "fold_norms",
    "regroup",
    "repack",
    "separate",
    "sparsity",
]
