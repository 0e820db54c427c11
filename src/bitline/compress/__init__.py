"""Networks changed so that crossbars take them better."""

from bitline.compress.batch_norm import fold_norms
from bitline.compress.prune.crossbar_block import CrossbarBlocks
from bitline.compress.prune.fine_grained import FineGrained, fine_grained
from bitline.compress.prune.kernel_group import KernelGroups
from bitline.compress.prune.repack import repack
from bitline.compress.prune.sparsity import crossbars, sparsity
from bitline.compress.prune.zero_count import ZeroCount
from bitline.compress.reconstruct.assignment import Assignment, assign
from bitline.compress.reconstruct.layer_by_layer import Sampling
from bitline.compress.reconstruct.regroup import regroup
from bitline.compress.reconstruct.separable import separate
from bitline.compress.result import LayerReport, Report, RewriteResult, ShrunkLayer, UnchangedLayer

__all__ = [
    "Assignment",
    "CrossbarBlocks",
    "FineGrained",
    "KernelGroups",
    "LayerReport",
    "Report",
    "RewriteResult",
    "Sampling",
    "ShrunkLayer",
    "UnchangedLayer",
    "ZeroCount",
    "assign",
    "crossbars",
    "fine_grained",
    "fold_norms",
    "regroup",
    "repack",
    "separate",
    "sparsity",
]
