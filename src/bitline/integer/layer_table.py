"""Files in which other simulators take a network, as the shapes of its layers.

Layers: the comma-separated table of DNN+NeuroSim (Peng et al., IEDM 2019; its files NetWork_*.csv): a row a layer,
without a header. Workload: the Einsums of AccelForge in one file, and a problem of Timeloop (Parashar et al., ISPASS
2019; version 0.4 of its input) for each layer.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from bitline.chip.description import Chip
from bitline.files import write_text
from bitline.integer.shapes import LayerShape, shapes
from bitline.integer.workload import einsums, problem
from bitline.network.inputs import Inputs

COLUMNS = (
    "map length",
    "map width",
    "map channels",
    "kernel length",
    "kernel width",
    "kernels",
    "followed by pooling",
    "stride",
)
TABLE, WORKLOAD = "layers.csv", "workload.yaml"


def rows(layers: Sequence[LayerShape]) -> Iterator[tuple[LayerShape, tuple[int, ...]]]:
    """Yield the rows of a table with the layer of each.

    The table knows neither groups, which become a row each, nor dilation and strides that differ: such a layer is told
    as the product that it is.
    """
    for layer in layers:
        if layer.dilation != (1, 1):
            layer = layer.as_product("the table knows no dilation")
        elif layer.stride[0] != layer.stride[1]:
            layer = layer.as_product("the table knows one stride")
        numbers = (*layer.size, layer.channels, *layer.kernel, layer.outputs, int(layer.pooled), layer.stride[0])
        yield from [(layer, numbers)] * layer.groups


def neurosim_positions(row: Sequence[int]) -> int:
    """Input vectors that DNN+NeuroSim counts for a row: it knows no padding, and divides in whole numbers."""
    length, width, _, down, across, _, _, stride = row
    return (length - down + 1) // stride * (width - across + 1) // stride


def write_layers(model: nn.Module, example: Inputs, folder: Path) -> dict[str, Any]:
    """Write the table of a converted network.

    Args:
        model: from `to_crossbar` with an example.
        example: one batch.
        folder: made if need be.

    Returns:
        What was written, as plain data: for each row its layer, the input vectors of an image, those that NeuroSim
        counts, and why it is not told as a convolution.

    Raises:
        ExportError: the file cannot be written.
    """
    table = list(rows(shapes(model, example)))
    write_text(folder / TABLE, "".join(",".join(map(str, numbers)) + "\n" for _, numbers in table))
    listed = [
        {
            "layer": layer.name,
            "positions": layer.positions[0] * layer.positions[1],
            "neurosim_positions": neurosim_positions(numbers),
            "told_as_product": layer.why,
        }
        for layer, numbers in table
    ]
    return {"file": TABLE, "columns": list(COLUMNS), "rows": listed}


def write_workload(model: nn.Module, example: Inputs, chip: Chip, folder: Path) -> dict[str, Any]:
    """Write the workload of a converted network.

    Args:
        model: from `to_crossbar` with an example.
        example: one batch.
        chip: whose inputs and weights have bits.
        folder: made if need be.

    Returns:
        What was written, as plain data: for each layer its file of Timeloop, its multiplications, and why it is not
        told as a convolution.

    Raises:
        ExportError: a file cannot be written.
    """
    layers = shapes(model, example)
    write_text(folder / WORKLOAD, einsums(layers, chip.inputs.bits, chip.weights.bits))
    listed: list[dict[str, Any]] = []
    for number, layer in enumerate(layers):
        file = f"timeloop_{number:03d}.yaml"
        write_text(folder / file, problem(layer))
        listed.append({"layer": layer.name, "file": file, "macs": layer.macs, "told_as_product": layer.why})
    return {"file": WORKLOAD, "layers": listed}
