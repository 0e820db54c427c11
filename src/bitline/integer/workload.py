"""Layers as text in YAML: Einsums of AccelForge, problems of Timeloop."""

import json
from collections.abc import Sequence

from bitline.integer.shapes import LayerShape

_RANKS = ("N", "G", "C", "M", "P", "Q", "R", "S")
"""images, groups, channels and kernels of a group, width and height of the result, width and height of a kernel"""


def _sizes(layer: LayerShape) -> dict[str, int]:
    high, wide = layer.positions
    down, across = layer.kernel
    return dict(zip(_RANKS, (1, layer.groups, layer.channels, layer.outputs, wide, high, across, down), strict=True))


def einsums(layers: Sequence[LayerShape], input_bits: int, weight_bits: int) -> str:
    """Write layers as the Einsums of a workload of AccelForge, each with tensors of its own: none is fused.

    Results have the bits of inputs, as the next layer reads them.
    """
    lines = [
        "# One Einsum a layer on crossbars, one image; what stays digital is not in it.",
        "workload:",
        "  rank_sizes:",
    ]
    for number, layer in enumerate(layers):
        lines += [f"    {rank}{number}: {size}" for rank, size in _sizes(layer).items()]
    lines.append("  einsums:")
    for i, layer in enumerate(layers):
        wide = f"{_times(layer.stride[1], f'p{i}')} + {_times(layer.dilation[1], f'r{i}')}"
        high = f"{_times(layer.stride[0], f'q{i}')} + {_times(layer.dilation[0], f's{i}')}"
        lines += [
            f"  - name: L{i}  # {json.dumps(layer.name)}",
            "    tensor_accesses:",
            f"    - name: I{i}",
            f"      projection: {{N{i}: n{i}, G{i}: g{i}, C{i}: c{i}, W{i}: {wide}, H{i}: {high}}}",
            f"      bits_per_value: {input_bits}",
            f"    - name: F{i}",
            f"      projection: [g{i}, c{i}, m{i}, r{i}, s{i}]",
            f"      bits_per_value: {weight_bits}",
            f"    - name: O{i}",
            f"      projection: [n{i}, g{i}, m{i}, p{i}, q{i}]",
            f"      bits_per_value: {input_bits}",
            "      output: True",
            f"    renames: {{input: I{i}, weight: F{i}, output: O{i}}}",
        ]
    return "\n".join(lines) + "\n"


def _times(factor: int, rank: str) -> str:
    return rank if factor == 1 else f"{factor} * {rank}"


def problem(layer: LayerShape) -> str:
    """Write a layer as a problem of Timeloop."""
    steps = {
        "Wstride": layer.stride[1],
        "Hstride": layer.stride[0],
        "Wdilation": layer.dilation[1],
        "Hdilation": layer.dilation[0],
    }
    lines = [
        f"# {json.dumps(layer.name)}",
        "problem:",
        "  version: 0.4",
        "  shape:",
        '    name: "layer"',
        f"    dimensions: [{', '.join(_RANKS)}]",
        "    coefficients:",
        *(f"    - {{name: {name}, default: 1}}" for name in steps),
        "    data_spaces:",
        "    - name: Weights",
        "      projection: [[[G]], [[C]], [[M]], [[R]], [[S]]]",
        "    - name: Inputs",
        "      projection: [[[N]], [[G]], [[C]], [[R, Wdilation], [P, Wstride]], [[S, Hdilation], [Q, Hstride]]]",
        "    - name: Outputs",
        "      projection: [[[N]], [[G]], [[M]], [[Q]], [[P]]]",
        "      read_write: True",
        "  instance:",
        *(f"    {name}: {size}" for name, size in (_sizes(layer) | steps).items()),
    ]
    return "\n".join(lines) + "\n"
