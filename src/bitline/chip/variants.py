"""Chips that differ from a given one in a single respect, to tell causes apart."""

from bitline.chip.cell import Cell, Faults, Ideal, NoReadNoise
from bitline.chip.description import Chip


def lossless(chip: Chip) -> Chip:
    """Return the same chip with an ADC that neither rounds nor clips whole sums."""
    return chip.model_copy(update={"adc": chip.adc.model_copy(update={"policy": "lossless", "range": None})})


def with_cells(chip: Chip, *, programming: bool = False, faults: bool = False, read_noise: bool = False) -> Chip:
    """Return the same chip with only the named departures from ideal cells; a leak stays with any of them."""
    cell = chip.cell
    parts: dict[str, object] = {
        "programming": cell.programming if programming else Ideal(),
        "faults": cell.faults if faults else Faults(),
        "read_noise": cell.read_noise if read_noise else NoReadNoise(),
    }
    return chip.model_copy(update={"cell": cell.model_copy(update=parts)})


def ideal(chip: Chip) -> Chip:
    """Return the same chip with ideal cells, no leak and a lossless ADC: it answers the exact integer product."""
    cell = Cell(bits=chip.cell.bits, g_min=chip.cell.g_min, g_max=chip.cell.g_max, read_voltage=chip.cell.read_voltage)
    return lossless(chip).model_copy(update={"cell": cell})


def same_sums(a: Chip, b: Chip) -> bool:
    """Whether ideal cells of two chips make the same partial sums."""
    parts = [(c.crossbar.whole, c.dac, c.weights, c.inputs, c.cell.bits, c.cell.leak_levels) for c in (a, b)]
    return parts[0] == parts[1]
