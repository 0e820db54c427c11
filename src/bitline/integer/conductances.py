"""What is written into every crossbar of a network: levels, and the conductances that a chip's cells take."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import torch
from torch import Tensor, nn

from bitline import seeds
from bitline.chip.variants import with_cells
from bitline.files import write_tensors
from bitline.mapping.lower import Lowerable
from bitline.nn.cells import IDEAL
from bitline.nn.layer import CrossbarLayer
from bitline.nn.on import crossbar_layers
from bitline.physics.levels import siemens
from bitline.programming.cells import ProgrammedCells, program_cells

_FORMAT = "bitline crossbars 2"


@dataclass(frozen=True)
class Block:
    """The cells of one row tile and one column tile of a group.

    Args:
        layer: name of the layer.
        group: of what shares bitlines: of the layer, or several of its groups where its mapping wires these together.
        row_tile: number of the row tile.
        column_tile: number of the column tile.
        crossbar: number of the crossbar among those below each other that hold the row tiles.
        levels: that cells are to take, uint8, (rows, columns). The cells of a weight are neighbours: the positive side,
            then the negative one if there is one, each with its slices, least significant first. A reference column
            comes last.
        conductances: that they take, S, float32, the same shape.
        kernels: number within the group of the kernel in each weight column, (weight columns,) int64: their own order,
            but where the chip remaps.
        flipped: whether a weight column holds its kernel with the other sign, (weight columns,) bool.
    """

    layer: str
    group: int
    row_tile: int
    column_tile: int
    crossbar: int
    levels: Tensor
    conductances: Tensor
    kernels: Tensor
    flipped: Tensor


def blocks(layer: CrossbarLayer, seed: int = IDEAL) -> Iterator[Block]:
    """Yield the blocks of a layer that are built.

    Args:
        layer: on crossbars.
        seed: of the programmed chip; -1 for the targets.
    """
    if not layer.converts:
        return
    placement, chip = layer.placement, layer.chip
    merged, absent = placement.merged, placement.absent
    cell = (with_cells(chip) if seed == IDEAL else chip).cell
    cells = program_cells(layer.integer_weights().cpu(), placement, cell, seed)
    both = cells.asked, cells.reached
    kernels, flipped = _on_chip(cells, merged.matmul.groups, merged.matmul.cols)
    for group in range(merged.matmul.groups):
        for row in range(merged.row_tiles):
            for column in range(merged.col_tiles):
                if (group, row, column) in absent:
                    continue
                rows = slice(*merged.row_bounds[row : row + 2])
                columns = list(range(*merged.col_bounds[column : column + 2]))
                mine = (kernels[group, columns], flipped[group, columns])
                if chip.reference_columns:
                    columns.append(merged.matmul.cols + column)
                levels, reached = (_cells(t[group, :, :, rows][..., columns]) for t in both)
                conductances = siemens(reached.double(), chip.cell).float()
                yield Block(
                    layer.matmul.name,
                    group,
                    row,
                    column,
                    row // merged.tiles_per_crossbar,
                    levels.to(torch.uint8),
                    conductances,
                    *mine,
                )


def _on_chip(cells: ProgrammedCells, groups: int, cols: int) -> tuple[Tensor, Tensor]:
    """Kernel in each column of a chip, and whether it is held with the other sign, both (groups, cols)."""
    order = torch.arange(cols).repeat(groups, 1) if cells.order is None else cells.order
    kernels = order.argsort(1)
    flipped = torch.zeros(groups, cols, dtype=torch.bool) if cells.turned is None else cells.turned
    return kernels, flipped.gather(1, kernels)


def _cells(levels: Tensor) -> Tensor:
    """Lay out (sides, slices, rows, weight columns) as (rows, columns)."""
    return levels.permute(2, 3, 0, 1).flatten(1).contiguous()


def write(model: nn.Module, folder: Path, seed: int | None = None) -> dict[str, Any]:
    """Write every crossbar of a converted network, a safetensors file for each layer.

    Args:
        model: from `to_crossbar`.
        folder: made if need be.
        seed: of the programmed chip; the targets where absent.

    Returns:
        What was written, as plain data: the chip, the seed, and for each block its layer, group, row tile, column tile,
        crossbar, rows, columns, file, and the SHA-256 of its levels, conductances, kernels and signs together.

    Raises:
        ExportError: the folder cannot be written.
    """
    if seed is not None:
        seeds.check(seed)
    layers = crossbar_layers(model)
    listed: list[dict[str, Any]] = []
    for name, layer in layers.items():
        tensors: dict[str, Tensor] = {}
        for block in blocks(layer, IDEAL if seed is None else seed):
            key = f"{block.group}.{block.row_tile}.{block.column_tile}"
            parts = {
                "levels": block.levels,
                "conductances": block.conductances,
                "kernels": block.kernels,
                "flipped": block.flipped,
            }
            tensors |= {f"{key}.{part}": tensor.contiguous() for part, tensor in parts.items()}
            listed.append({**_described(block), "layer": name, "file": _file(name), "key": key})
        if tensors:
            write_tensors(folder / _file(name), tensors | _numbers(layer), _about(name, layer, seed))
    chip = next(iter(layers.values())).chip
    digital = [name for name, layer in layers.items() if not layer.converts]
    return {"chip": chip.model_dump(mode="json"), "seed": seed, "digital": digital, "crossbars": listed}


def _about(name: str, layer: CrossbarLayer, seed: int | None) -> dict[str, str]:
    """What else is to be known of a layer's cells, by the keys of a safetensors header; JSON but for the name."""
    inputs = {
        key.removeprefix("input_"): value.item() if bool(value.isfinite()) else None
        for key, value in layer.ranges.named_buffers()
        if key.startswith("input_")
    }
    told = {
        "seed": seed,
        "chip": layer.chip.model_dump(mode="json"),
        "product": {key: getattr(layer.matmul, key) for key in ("kind", "rows", "cols", "groups")},
        "strategy": layer.strategy,
        "input": inputs,
    }
    return {"format": _FORMAT, "layer": name, **{key: json.dumps(value) for key, value in told.items()}}


def _numbers(layer: CrossbarLayer) -> dict[str, Tensor]:
    """What makes real numbers of what a layer's cells answer: scales of its weights, bias, ranges of its ADCs."""
    groups, cols = layer.matmul.groups, layer.matmul.cols
    scale = layer.cells.weights(cast("Lowerable", layer)).scale(layer.chip.weights).double()
    numbers = {"weight_scale": scale[:, 0].expand(groups, cols)}
    if layer.bias is not None:
        numbers["bias"] = layer.bias.detach()
    if layer.chip.adc.keeps_ranges:
        numbers |= {"adc_lsb": layer.ranges.lsb, "adc_offset": layer.ranges.offset}
    return {key: value.detach().cpu().contiguous().clone() for key, value in numbers.items()}


def _file(layer: str) -> str:
    """Name of the file of a layer, in the folder whatever the layer is called."""
    return f"{quote(layer, safe=' ') if set(layer) & set('/%') or os.sep in layer else layer}.safetensors"


def _described(block: Block) -> dict[str, Any]:
    content = b"".join(t.numpy().tobytes() for t in (block.levels, block.conductances, block.kernels, block.flipped))
    numbers = {key: value for key, value in asdict(block).items() if isinstance(value, int)}
    rows, columns = block.levels.shape
    return {**numbers, "rows": rows, "columns": columns, "sha256": hashlib.sha256(content).hexdigest()}
