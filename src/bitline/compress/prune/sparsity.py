"""How much of a network pruning has removed: weights, and crossbars."""

import math

from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.compress.prune.crossbar_block import fold_masks
from bitline.errors import ConversionError
from bitline.mapping.empty import empty_blocks
from bitline.mapping.lower import Matmul, weight_matrix
from bitline.mapping.place import Placement
from bitline.mapping.strategies import placed
from bitline.network.copy import copied
from bitline.network.trace import MAPPED, modules, trace


def weights_left(model: nn.Module) -> int:
    """Count the weights other than zero of all linear and convolution layers, factors of crossbars included."""
    return sum(int(layer.weight.count_nonzero()) for _, layer in modules(model) if isinstance(layer, MAPPED))


def weights(model: nn.Module) -> int:
    """Count the weights of all linear and convolution layers."""
    return sum(layer.weight.numel() for _, layer in modules(model) if isinstance(layer, MAPPED))


def sparsity(before: nn.Module, after: nn.Module) -> float:
    """Return the share of the weights that pruning removed.

    Args:
        before: the network as it was; all of its weights count.
        after: the network pruned; weights that it lacks and weights that are zero are removed.

    Raises:
        ConversionError: a network without weights.
    """
    whole = weights(before)
    if whole == 0:
        raise ConversionError(f"{type(before).__name__} has no linear or convolution layer")
    return 1 - weights_left(after) / whole


def placement(model: nn.Module, chip: Chip, example: Tensor) -> Placement:
    """Place a plain network, without the crossbars whose weights are all zero.

    Args:
        model: of plain modules, with or without factors of crossbars; it is not changed.
        chip: to place it on; how many crossbars it has does not matter.
        example: one batch.

    Raises:
        ConversionError: the network does not take the example.
    """
    plain = fold_masks(copied(model)).eval()
    layers = {name: layer for name, layer in modules(plain) if isinstance(layer, MAPPED)}
    matmuls = trace(plain, example.to(next(plain.parameters(), example).device), layers)
    placements = [
        placed(m, chip, absent=empty_blocks(weight_matrix(layers[m.name]).detach(), placed(m, chip))) for m in matmuls
    ]
    return Placement(chip, tuple(placements))


def crossbars(model: nn.Module, chip: Chip, example: Tensor) -> int:
    """Count the crossbars of a network that hold weights other than zero; see `placement`."""
    return placement(model, chip, example).crossbars


def layer_crossbars(weight: Tensor, groups: int, chip: Chip) -> int:
    """Count the crossbars that hold weights other than zero of one layer.

    Args:
        weight: of a linear or convolution layer, (outputs, inputs of a group, kernel...).
        groups: of the layer.
        chip: whose crossbars count.
    """
    cols, rows = weight.shape[0] // groups, math.prod(weight.shape[1:])
    layer = placed(Matmul("layer", "linear", rows, cols, groups), chip)
    matrix = weight.detach().reshape(groups, cols, rows).transpose(1, 2)
    absent = empty_blocks(matrix, layer)
    return placed(layer.matmul, chip, absent=absent).crossbars
