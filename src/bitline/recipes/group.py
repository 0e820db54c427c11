"""Group convolution for convolution, so that no product is split over crossbars.

C. Wu et al., "Software-Hardware Co-Optimization on Partial-Sum Problem for PIM-based Neural Network Accelerator", HPEC
2021, doi:10.1109/HPEC49654.2021.9622798, the software half. Only its abstract is public: how groups are chosen, how
channels are assigned to them and how the weights start is our reconstruction.
"""

from collections.abc import Collection, Sequence

from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.compress import RewriteResult, regroup
from bitline.compress.reconstruct.choose import Dense, Limit, candidates
from bitline.recipes.records.group import Group


def check(model: nn.Module, chip: Chip, config: Group) -> None:
    """Refuse a network with a kernel of more rows than a group may have, before anything slow is done.

    Raises:
        ConversionError: names the layer and the rows allowed.
    """
    limit, layers = Limit(chip.crossbar.active_rows, config.row_tiles), dict(model.named_modules())
    for name in candidates(model, limit.inputs, ()).names:
        layer = layers[name]
        if isinstance(layer, Dense):
            limit.check(name, layer)


def restructure(
    model: nn.Module, batches: Sequence[Tensor], chip: Chip, config: Group, *, leave: Collection[str] = ()
) -> RewriteResult:
    """Give every convolution, but for those to leave, the fewest groups whose rows fit the wordlines driven at once."""
    return regroup(
        model,
        batches,
        rows=chip.crossbar.active_rows,
        row_tiles=config.row_tiles,
        assignment=config.assignment,
        refit=config.refit,
        mix=config.mix,
        linear=config.split_linear,
        leave=leave,
    )
