"""Depthwise-separable convolution for convolution, for crossbars that hold depthwise kernels well.

C. Wu et al., HPEC 2021, doi:10.1109/HPEC49654.2021.9622798, the hardware half. Only its abstract is public: the
factorization and the mappings of the depthwise part (`bitline.mapping.place`) are our reconstruction.
"""

from collections.abc import Collection, Sequence

from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.compress import RewriteResult, separate
from bitline.recipes.records.separable import Separable


def restructure(
    model: nn.Module, batches: Sequence[Tensor], chip: Chip, config: Separable, *, leave: Collection[str] = ()
) -> RewriteResult:
    """Split every convolution that needs partial sums, but for those to leave, into a pointwise and a depthwise one."""
    return separate(
        model, batches, rows=chip.crossbar.active_rows, multiplier=config.multiplier, refit=config.refit, leave=leave
    )
