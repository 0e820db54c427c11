"""Energy and area of one ADC: models differ by a factor of four at 5 bits and of ten at 8, so all of them are offered.

The ``survey`` model re-implements the regression of hwcomponents-adc 1.0.21 (arXiv:2404.06553) over the ADC
performance survey of B. Murmann, https://github.com/bmurmann/ADC-survey. Its notice:

    MIT License, Copyright (c) 2024 Tanner Andrulis. Permission is hereby granted, free of charge, to any person
    obtaining a copy of this software and associated documentation files (the "Software"), to deal in the Software
    without restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute,
    sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so,
    subject to the following conditions: The above copyright notice and this permission notice shall be included in
    all copies or substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY
    KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A
    PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY
    CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR
    IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

import math
from dataclasses import dataclass
from typing import Literal

from bitline.chip.description import Chip
from bitline.cost.median_adc import median_area, median_energy
from bitline.cost.table import CostTable, load, scale
from bitline.errors import ChipError
from bitline.units import GHz, fJ, nm, ns, pJ, um2

Model = Literal["isaac", "survey", "median", "zigzag", "table"]
MODELS: tuple[Model, ...] = ("table", "isaac", "survey", "median", "zigzag")

MEANINGS: dict[str, str] = {
    "table": "the cost table's own",
    "isaac": "one paper's, ISAAC",
    "survey": "the better published",
    "median": "the median published",
    "zigzag": "one tool's, ZigZag-IMC",
}
"""what the figure of a model is, in a few words"""

WIDTHS: dict[Model, tuple[int, int]] = {
    "table": (1, 12),
    "isaac": (1, 12),
    "survey": (4, 12),
    "median": (3, 10),
    "zigzag": (1, 12),
}
"""Bits that a model holds for: those of the survey's designs, the closed forms to the same end. Below four bits the
better designs of the survey take more energy for fewer bits."""


ISAAC_RATE = 1.28 * GHz
"""Conversions a second of ISAAC's ADC: 128 columns in 100 ns"""
ZIGZAG_NODE = 28 * nm


@dataclass(frozen=True)
class AdcCost:
    """Energy of one conversion [J], area of one ADC [m2], and time of one conversion [s]."""

    energy: float
    area: float
    time: float


def adc_cost(model: Model, chip: Chip, table: CostTable) -> AdcCost:
    """Price the chip's ADC under one of the models.

    Args:
        model: which.
        chip: bits, sample rate, node, supply.
        table: for ``table``.

    Raises:
        ChipError: a width that the model does not hold for.
    """
    bits, rate = chip.adc.bits, chip.adc.sample_rate
    least, most = WIDTHS[model]
    if not least <= bits <= most:
        raise ChipError(f"adc.bits = {bits}: cost model {model!r} of ADCs holds for {least} to {most} bits")
    time = 1 / rate
    match model:
        case "isaac":
            home = load("isaac-32nm")
            energy = scale(home.adc_energy, chip, home.vdd) * _switching(bits) / _switching(home.adc_bits)
            area = isaac(bits)[1] * (chip.node / home.node) ** SURVEY_AREA_EXPONENT * turns(model, chip, table)
            return AdcCost(energy, area, time)
        case "survey":
            energy = survey_energy(bits, chip.node, rate)
            return AdcCost(energy, survey_area(energy, chip.node, rate), time)
        case "median":
            return AdcCost(median_energy(bits, chip.node, rate), median_area(bits, chip.node, rate), time)
        case "zigzag":
            ratio = chip.node / ZIGZAG_NODE
            # Capacitances shrink with the node, areas with its square.
            energy, area = zigzag_energy(bits, chip.vdd) * ratio, zigzag_area(bits) * ratio**2
            return AdcCost(energy, area * turns(model, chip, table), time)
        case "table":
            return _table(bits, chip, table, time)


def turns(model: Model, chip: Chip, table: CostTable) -> int:
    """Count the ADCs of a model that take turns to reach the chip's sample rate, each as fast as its model has it.

    Those take the area of as many and the energy of one conversion; regressions over a survey know the rate themselves.
    """
    match model:
        case "isaac":
            own = ISAAC_RATE
        case "zigzag":
            own = 1 / zigzag_delay(chip.adc.bits, chip.crossbar.active_rows)
        case "table":
            own = None if table.adc_time else table.adc_rate
        case _:
            own = None
    return 1 if own is None else max(1, math.ceil(chip.adc.sample_rate / own * (1 - 1e-9)))


def _table(bits: int, chip: Chip, table: CostTable, time: float) -> AdcCost:
    """Take the cost table's own ADC, moved to other widths by its law."""
    energy, area = scale(table.adc_energy, chip, table.vdd), scale(table.adc_area, chip, table.vdd)
    if table.adc_law == "sar":
        energy *= _switching(bits) / _switching(table.adc_bits)
        area *= _sar_area(bits) / _sar_area(table.adc_bits)
    else:
        # A comparator between each two neighbouring codes; what the column draws does not depend on them.
        levels, reference = chip.adc.codes - 1, 2**table.adc_bits - 1
        level = scale(table.adc_level_energy, chip, table.vdd) if table.adc_level_energy else energy / reference
        energy += level * (levels - reference)
        area *= levels / reference
    area *= turns("table", chip, table)
    return AdcCost(energy, area, table.adc_time.si if table.adc_time else time)


def _switching(bits: float) -> float:
    """Relative energy of a SAR conversion, 100 b + 0.001 4**b: logic and noise (zigzag-imc, imc_array.py)."""
    return 100 * bits + 0.001 * 4**bits


def _sar_area(bits: float) -> float:
    """Area of a SAR ADC, um2 at 32 nm: logic by the bit and a capacitor for each code; 1200 at 8 bits.

    Closed form of the areas for 4 to 10 bits in hwcomponents-library e21d5b8 isaac.py, which scale ISAAC's ADC after
    Saberi et al., IEEE TCAS-I 58, 2011.
    """
    return 81.733 * bits + SAR_CAPACITOR / um2 * 2**bits


def isaac(bits: int) -> tuple[float, float]:
    """ISAAC's 8-bit ADC scaled in bits, at 32 nm.

    E(b) = E(8) (100 b + 0.001 4**b) / (100 8 + 0.001 4**8) with E(8) = 2 mW / 1.28 GS/s.

    Returns:
        Energy of one conversion, J, and area, m2.
    """
    reference = load("isaac-32nm").adc_energy.si
    return reference * _switching(bits) / _switching(8), _sar_area(bits) * um2


SAR_CAPACITOR = 2.13338 * um2
"""Of a SAR ADC's converter back to analog, for each of its codes, at 32 nm; see `_sar_area`"""


_FOM = (213.7806687348118, -2.8719030399529957)  # over ln f
_FOM_LIMIT = (128.3068287398817, 3.2205115109775)  # over bits
_NODE = (26.0496215686518, 1.8800369206815004)  # over ln(node / nm)
_BITS = -2.8291256050594527  # over ln b
_RESIDUAL = -1.4702022133784405
_AREA = (1.3461916439910742, 0.9932794744745022, 0.18071538424508238, 0.29912426192653485)
SURVEY_AREA_EXPONENT = _AREA[1] + _AREA[3] * _NODE[1]
"""Area of an ADC goes with node**1.556 in the regression, its energy with node**1.88."""


def survey_energy(bits: float, node: float, rate: float) -> float:
    """Regression over the Murmann survey: the better ADCs of their kind (arXiv:2404.06553).

    Figure of merit min(a0 + a1 ln f, m0 + m1 ceil(b)); energy 1 / (2 10**((FoM - SNDR) / 10)) with
    SNDR = 6.02 b + 1.76 dB, corrected for the node and the bits.

    Args:
        bits: effective number of bits, [4, 12].
        node: m.
        rate: Hz.

    Returns:
        Energy of one conversion, J.
    """
    merit = min(_FOM[0] + _FOM[1] * math.log(rate), _FOM_LIMIT[0] + _FOM_LIMIT[1] * math.ceil(bits))
    sndr = 20 * math.log10(2) * bits + 10 * math.log10(1.5)
    ideal = 1 / (2 * 10 ** ((merit - sndr) / 10))
    exponent = _NODE[0] + _NODE[1] * math.log(node / nm) + _BITS * math.log(bits) + _RESIDUAL
    return ideal * math.exp(exponent) * pJ


def survey_area(energy: float, node: float, rate: float) -> float:
    """Area that the regression gives an ADC of this energy per conversion, m2 (arXiv:2404.06553)."""
    constant, by_node, by_rate, by_energy = _AREA
    exponent = constant + by_node * math.log(node / nm) + by_rate * math.log(rate) + by_energy * math.log(energy / pJ)
    return math.exp(exponent) * um2


def zigzag_energy(bits: int, vdd: float) -> float:
    """(100 fF b + 1 aF 4**b) Vdd**2 at 28 nm (KULeuven-MICAS/zigzag 3d12a96, imc_array.py); J."""
    return _switching(bits) * vdd**2 * fJ


def zigzag_delay(bits: int, rows: int) -> float:
    """Take b (0.00653 rows + 0.640) ns, its bitline included (KULeuven-MICAS/zigzag 3d12a96, imc_array.py); s."""
    return bits * (0.00653 * rows + 0.640) * ns


def zigzag_area(bits: int) -> float:
    """10**(-0.0369 b + 1.206) 2**b um2 at 28 nm (KULeuven-MICAS/zigzag 3d12a96, imc_array.py); m2."""
    return 10 ** (-0.0369 * bits + 1.206) * 2**bits * um2
