"""A chip in a few lines of text, for people; every key of it is in ``bitline chips show NAME --json -``."""

import textwrap
from typing import Any

from bitline.chip.cell import Cell, Ideal, NoReadNoise, PerLevel
from bitline.units import pretty

_WIDTH = 80
"""of a screen, characters"""


def words(chip: Any) -> str:  # which prints itself with this, so that its type stands above
    """Describe a chip, at most 80 characters a line, with units as people write them."""
    cell, crossbar, adc = chip.cell, chip.crossbar, chip.adc
    ranges = f" by {adc.granularity.replace('_', ' and ')}" if adc.keeps_ranges else ""
    lines = [
        ("", f"{chip.name}: {pretty(chip.node, 'm')}, {pretty(chip.vdd, 'V')}"),
        ("", chip.about),
        (
            "cells",
            f"{cell.bits} bits, {pretty(cell.g_min, 'S')} to {pretty(cell.g_max, 'S')}, "
            f"read at {pretty(cell.read_voltage, 'V')}; {', '.join(_errors(cell))}",
        ),
        ("crossbar", f"{crossbar.rows} x {crossbar.cols}, {crossbar.active_rows} rows at once"),
        (
            "weights",
            f"{chip.weights.bits} bits as {chip.weights.encoding.kind} in {chip.cells_per_weight} cells, "
            f"{chip.weight_columns} columns of them a crossbar",
        ),
        ("inputs", f"{chip.inputs.bits} bits, {chip.dac.bits} at a time"),
        (
            "ADC",
            f"{adc.bits} bits (lossless from {chip.lossless_bits}), range {adc.policy}{ranges}, "
            f"{adc.columns_per_adc} columns to each",
        ),
        ("cost", f"table {chip.cost_table}, ADC model {adc.model}, a read {pretty(chip.timing.read, 's')}"),
    ]
    told = (_told(head, body) for head, body in lines if body)
    return "\n".join(line for each in told for line in each)


def _told(head: str, body: str) -> list[str]:
    indent = 10 * " "
    return textwrap.wrap(
        body, _WIDTH, initial_indent=f"{head:<10}" if head else "", subsequent_indent=indent if head else ""
    )


def _errors(cell: Cell) -> list[str]:
    """Say how cells depart from their levels."""
    programming, noise, faults = cell.programming, cell.read_noise, cell.faults
    stuck = faults.stuck_off + faults.stuck_on
    return [
        "no programming error" if isinstance(programming, Ideal) else f"programming error {_spread(programming)}",
        "no read noise" if isinstance(noise, NoReadNoise) else f"read noise {_spread(noise)}",
        f"{stuck:.2g} of them stuck" if stuck else "none stuck",
    ]


def _spread(error: object) -> str:
    kind, sigma = getattr(error, "kind", ""), getattr(error, "sigma", None)
    if isinstance(error, PerLevel) or not isinstance(sigma, float | int):
        return str(kind).replace("_", " ")
    unit = pretty(sigma, "S") if "absolute" in kind else f"{sigma:g}"
    return f"{str(kind).replace('_', ' ')} {unit}"
