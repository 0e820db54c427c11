"""Fine-grained pruning inside of crossbars, to compare with: single rows or columns go, and a table says which.

Rows (or columns) left in a crossbar are pushed together, so inputs (outputs) of neighbouring crossbars no longer line
up; a sparsity table tells the periphery where each belongs. Pruning whole crossbars or whole kernels needs none.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.compress.prune.dependencies import plain_copy
from bitline.compress.prune.sparsity import placement
from bitline.errors import ConversionError, nearest
from bitline.mapping.layer import LayerPlacement
from bitline.mapping.lower import Lowerable, weight_matrix
from bitline.network.trace import MAPPED, modules

Segment = Literal["row", "column"]
SEGMENTS: tuple[Segment, ...] = get_args(Segment)


@dataclass(frozen=True, eq=False)
class FineGrained:
    """What fine-grained pruning leaves.

    Args:
        masks: layer name -> 1 where a weight stays, 0 where not, of the shape of the layer's weight.
        table_bits: size of all sparsity tables, one bit for each row (column) of each crossbar: whether it is left.
        crossbars: that hold what is left once pushed together.
        sparsity: share of the network's weights that go.
    """

    masks: dict[str, Tensor]
    table_bits: int
    crossbars: int
    sparsity: float


@torch.no_grad()
def fine_grained(model: nn.Module, example: Tensor, chip: Chip, ratio: float, kind: Segment = "row") -> FineGrained:
    """Choose the rows or columns of crossbars with the least weights, over the whole network.

    A row of a crossbar is one input's weights to the outputs of a column tile; a column is one output's weights from
    the inputs of a crossbar. They rank by the root of their mean square weight; one for each column tile (row tile)
    stays.

    Args:
        model: of plain modules; it is not changed.
        example: one batch.
        chip: whose crossbars count.
        ratio: share of all rows (columns) of crossbars that goes, in [0, 1].
        kind: ``"row"`` or ``"column"``.

    Raises:
        ConversionError: another ratio or kind, or a network that does not take the example.
    """
    if kind not in SEGMENTS:
        raise ConversionError(f"kind is {kind!r}; allowed: {', '.join(SEGMENTS)}{nearest(kind, SEGMENTS)}")
    if not 0 <= ratio <= 1:
        raise ConversionError(f"ratio is {ratio}; allowed: 0 to 1")
    plain = plain_copy(model)
    layers: dict[str, Lowerable] = {n: m for n, m in modules(plain) if isinstance(m, MAPPED)}
    placed = {each.matmul.name: each for each in placement(plain, chip, example).layers}
    scores = {name: _scores(weight_matrix(layers[name]), each, kind) for name, each in placed.items()}
    flat = torch.cat([score.flatten() for score in scores.values()])
    goes = torch.zeros(len(flat), dtype=torch.bool)
    goes[flat.argsort(stable=True)[: int(ratio * len(flat) + 1e-9)]] = True
    masks: dict[str, Tensor] = {}
    crossbars = removed = 0
    parts = goes.split([score.numel() for score in scores.values()])
    for (name, score), part in zip(scores.items(), parts, strict=True):
        stays = ~part.view(score.shape)
        stays.scatter_(2, score.argmax(2, keepdim=True), value=True)
        each, weight = placed[name], layers[name].weight
        size = chip.crossbar.row_tiles * chip.crossbar.active_rows if kind == "row" else chip.weight_columns
        crossbars += sum(math.ceil(left / size) for left in stays.sum(2).flatten().tolist())
        matrix = _spread(stays, each, kind)
        removed += matrix.numel() - int(matrix.count_nonzero())
        masks[name] = matrix.transpose(1, 2).reshape(weight.shape).to(weight)
    total = sum(mask.numel() for mask in masks.values())
    return FineGrained(masks, len(flat), crossbars, removed / total)


def _bounds(placement: LayerPlacement, kind: Segment) -> tuple[int, ...]:
    """Where crossbars begin across the segments: column tiles for rows, row tiles for columns."""
    if kind == "row":
        return placement.col_bounds
    return (*placement.row_bounds[: -1 : placement.tiles_per_crossbar], placement.row_bounds[-1])


def _scores(matrix: Tensor, placement: LayerPlacement, kind: Segment) -> Tensor:
    """Root mean square of each segment, (groups, crossbars across, segments)."""
    squares = matrix.detach().double().square().cpu()
    squares = squares if kind == "row" else squares.transpose(1, 2)
    return torch.stack([squares[..., a:b].mean(2) for a, b in pairwise(_bounds(placement, kind))], 1).sqrt()


def _spread(stays: Tensor, placement: LayerPlacement, kind: Segment) -> Tensor:
    """Repeat one value a segment for each of its weights, (groups, rows, cols)."""
    bounds = _bounds(placement, kind)
    widths = torch.tensor([b - a for a, b in pairwise(bounds)])
    matrix = stays.transpose(1, 2).repeat_interleave(widths, 2)
    return matrix if kind == "row" else matrix.transpose(1, 2)
