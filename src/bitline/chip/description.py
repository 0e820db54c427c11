"""What a chip is: frozen records in SI units, refused when no such chip can exist.

``Chip`` is the only thing that the mapping, the arithmetic and the cost model know about hardware.
"""

import math
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, cast

from pydantic import Field, model_validator

from bitline import units
from bitline.chip.cell import (
    AbsoluteReadNoise,
    Cell,
    Faults,
    GaussianAbsolute,
    GaussianProportional,
    Ideal,
    LogNormal,
    NoReadNoise,
    PerLevel,
    Programming,
    ProportionalReadNoise,
    ReadNoise,
)
from bitline.chip.mitigation import Mitigation
from bitline.chip.records import Ampere, Bits, Count, Hertz, Metre, Record, Second, Switch, Volt, by_name
from bitline.errors import ChipError

__all__ = [
    "AbsoluteReadNoise",
    "Adc",
    "AdcRange",
    "Bits",
    "Cell",
    "Chip",
    "Count",
    "Crossbar",
    "Dac",
    "Encoding",
    "Faults",
    "GaussianAbsolute",
    "GaussianProportional",
    "Ideal",
    "Inputs",
    "LogNormal",
    "Metre",
    "Mitigation",
    "NoReadNoise",
    "Offset",
    "Pair",
    "PerLevel",
    "Programming",
    "ProportionalReadNoise",
    "ReadNoise",
    "Record",
    "System",
    "Timing",
    "TwosComplement",
    "Volt",
    "Weights",
    "check",
]


class Crossbar(Record):
    """A grid of cells; active_rows wordlines are driven at once (all of them unless said)."""

    rows: Count
    cols: Count
    active_rows: Count
    segment_rows: Count | None = None
    """wordlines that a bitline segment crosses; segments are joined by switches or read by themselves. Bitlines run
    through from end to end where absent"""

    @model_validator(mode="before")
    @classmethod
    def _all_rows_at_once(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "active_rows" in data:
            return cast("Any", data)
        given = cast("dict[str, Any]", data)
        rows = given.get("rows")
        # Where rows are impossible, that is the one thing to complain of.
        return {**given, "active_rows": rows if isinstance(rows, int) and rows > 0 else 1}

    @model_validator(mode="after")
    def _no_more_active_than_there_are(self) -> Self:
        if self.active_rows > self.rows:
            raise ValueError(f"active_rows = {self.active_rows} exceeds rows = {self.rows}")
        if self.segment_rows is not None and self.segment_rows > self.rows:
            raise ValueError(f"segment_rows = {self.segment_rows} exceeds rows = {self.rows}")
        return self

    @property
    def whole(self) -> "Crossbar":
        """The same with its segments joined for good, which makes the same sums."""
        return self.model_copy(update={"segment_rows": None})

    @property
    def row_tiles(self) -> int:
        """Row tiles one crossbar holds, read one after the other."""
        return self.rows // self.active_rows


class Dac(Record):
    """Wordline driver: an input of many bits is streamed in digits of this width."""

    bits: Annotated[int, Field(strict=True, ge=1, le=8)] = 1


class AdcRange(Record):
    """Bitline currents that the lowest and the highest code stand for, A."""

    low: Ampere
    high: Ampere

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.low >= self.high:
            raise ValueError(
                f"low = {units.pretty(self.low, 'A')} must be less than high = {units.pretty(self.high, 'A')}"
            )
        return self


class Adc(Record):
    """Analog-to-digital converter at the foot of the bitlines."""

    bits: Annotated[int, Field(strict=True, ge=1, le=16)]
    levels: Annotated[int, Field(strict=True, ge=2)] | None = None
    """codes, at most 2**bits, which it is where absent: 3 with 2 bits makes ternary partial sums"""
    policy: Literal["lossless", "full", "calibrated", "trained", "fixed", "batch_minmax"] = "calibrated"
    """calibrated: fitted to data; trained: begun as calibrated, then kept and trained by the network"""
    granularity: Literal["layer", "slice", "slice_digit", "column"] = "slice_digit"
    """what has a range of its own under `calibrated`, `trained` and `batch_minmax`"""
    calibration: Literal["mse", "percentile"] = "mse"
    percentile: Annotated[float, Field(strict=True, gt=50, le=100)] = 99.9
    range: AdcRange | None = None
    """needed by, and only by, policy = "fixed" """
    columns_per_adc: Count = 8
    sample_rate: Hertz = 1.28e9
    model: Literal["isaac", "survey", "zigzag", "table"] = "isaac"
    """energy and area: ISAAC scaled in bits, regression over the ADC survey, ZigZag-IMC, or the cost table's own"""

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return self.levels or 2**self.bits

    @property
    def keeps_ranges(self) -> bool:
        """Whether ranges are chosen beforehand and kept with the network."""
        return self.policy in ("calibrated", "trained")

    @model_validator(mode="after")
    def _codes_have_the_bits(self) -> Self:
        if self.codes > 2**self.bits:
            raise ValueError(f"levels = {self.levels} exceeds 2**bits = {2**self.bits}")
        return self

    @model_validator(mode="after")
    def _a_fixed_range_is_given(self) -> Self:
        if (self.policy == "fixed") != (self.range is not None):
            raise ValueError(
                f'policy = "{self.policy}" with range {"absent" if self.range is None else "given"}: '
                'a range [A] belongs to policy = "fixed" and to no other'
            )
        return self


class Offset(Record):
    """Unsigned columns: u = q_w + Z; Z sum(x) is subtracted by a digital sum or by one more column."""

    kind: Literal["offset"] = "offset"
    sum: Literal["digital", "column"] = "digital"
    zero_point: Annotated[int, Field(strict=True, ge=0)] | None = None
    """Z; 2**(bits - 1) where absent"""
    CORRECTION_BITS: ClassVar[int] = 4
    """fraction bits of a correction, weight units"""
    correction: Annotated[Literal["none", "expected", "measured"], Field(repr=False)] = "none"
    """what the digital sum subtracts beside Z sum(x): nothing; the mean error of the layer's cells by the programming
    model and the fault rates; or that of every column and row tile, as a read with all wordlines driven shows it"""

    @model_validator(mode="after")
    def _a_correction_is_digital(self) -> Self:
        if self.correction != "none" and self.sum != "digital":
            raise ValueError(
                f'correction = "{self.correction}" with sum = "{self.sum}": the digital sum makes it, sum = "digital"'
            )
        return self


class Pair(Record):
    """max(q_w, 0) and max(-q_w, 0) on two columns, subtracted before (analog) or after (digital) conversion."""

    kind: Literal["pair"]
    subtract: Literal["analog", "digital"] = "analog"


class TwosComplement(Record):
    """The sign bit in a cell of its own, weighing -2**(bits - 1)."""

    kind: Literal["twos_complement"]


Encoding = Annotated[Offset | Pair | TwosComplement, Field(discriminator="kind")]


Scaled = TypeVar("Scaled", "Weights", "Inputs")


def _rounding_has_a_use(record: Scaled) -> Scaled:
    if record.rounding != "up" and record.scale != "power_of_two":
        raise ValueError(f'rounding = "{record.rounding}" needs scale = "power_of_two"; it is "{record.scale}"')
    return record


class Weights(Record):
    """How a real weight becomes cells."""

    newer: ClassVar[frozenset[str]] = frozenset({"rounding", "bias_bits"})

    bits: Annotated[int, Field(strict=True, ge=2, le=16)] = 8
    encoding: Annotated[Encoding, by_name] = Offset()
    slices: Count | None = None
    """cells per weight on one side; the fewest that hold the weight where absent"""
    granularity: Literal["tensor", "channel"] = "channel"
    scale: Literal["any", "power_of_two"] = "any"
    rounding: Literal["up", "nearest"] = "up"
    """of a scale to a power of two: up, so that nothing clips, or to the nearest exponent (CRIMP, ACM TECS 2023)"""
    bias_bits: Annotated[int, Field(strict=True, ge=2, le=32)] | None = None
    """bits of a bias, which is then a multiple of a power of two; a real number where absent"""

    @model_validator(mode="after")
    def _something_is_rounded(self) -> Self:
        return _rounding_has_a_use(self)

    @property
    def zero_point(self) -> int:
        """Z of the offset encoding; 0 for the others."""
        if not isinstance(self.encoding, Offset):
            return 0
        return 2 ** (self.bits - 1) if self.encoding.zero_point is None else self.encoding.zero_point


class Inputs(Record):
    """How a real activation becomes an integer."""

    newer: ClassVar[frozenset[str]] = frozenset({"rounding"})

    bits: Annotated[int, Field(strict=True, ge=1, le=16)] = 8
    calibration: Literal["mse", "percentile", "max"] = "mse"
    percentile: Annotated[float, Field(strict=True, gt=50, le=100)] = 99.99
    scale: Literal["any", "power_of_two"] = "any"
    rounding: Literal["up", "nearest"] = "up"
    """of a scale to a power of two, as `Weights.rounding`"""

    @model_validator(mode="after")
    def _something_is_rounded(self) -> Self:
        return _rounding_has_a_use(self)


class Timing(Record):
    """Time of one read of a crossbar."""

    read: Second = 100e-9
    """wordline, cell and bitline settle; without sample-and-hold and under `table` ADCs, the clock of one sensing"""
    pulse: Second | None = None
    """how long the read voltage stays on the cells; `read` where absent"""
    sample_and_hold: Switch = True
    """conversions of one read hide behind the next read (ISAAC); else they follow it"""
    clock: Hertz = 1e9
    """of the digital periphery"""


class System(Record):
    """What stands around the crossbars: macros in a tile, tiles on a chip, buffers and network."""

    crossbars_per_macro: Count = 8
    macros_per_tile: Count = 12
    tiles: Count | None = None
    """tiles on the chip; as many as the network needs where absent"""
    buffer_kib: Count = 64
    """activation buffer of a tile, KiB"""
    bus_bits: Count = 256
    """wires of a tile's bus"""
    hops: Annotated[float, Field(strict=True, ge=0)] = 1.0
    """tiles that a layer's output passes on its way to the next layer"""
    copies: Count = 1
    """copies of every layer, which share its positions"""


class Chip(Record):
    """Everything bitline knows of one chip."""

    name: Annotated[str, Field(min_length=1)]
    about: str = ""
    doi: str | None = None
    deviations: tuple[str, ...] = ()
    """where this description knowingly differs from its source"""
    node: Metre
    """technology node"""
    vdd: Volt
    cell: Cell
    crossbar: Crossbar
    dac: Dac = Dac()
    adc: Adc
    weights: Weights = Weights()
    inputs: Inputs = Inputs()
    timing: Timing = Timing()
    system: System = System()
    cost_table: str = "isaac-32nm"
    """a table that ships with bitline, or a TOML file"""
    cell_cost: Literal["conductance", "table"] = "conductance"
    """energy of a cell read: V^2 g t and the bitline's charge, or the cost table's own number"""
    mitigation: Mitigation = Mitigation()

    newer: ClassVar[frozenset[str]] = frozenset({"mitigation"})

    @property
    def slices(self) -> int:
        """Cells one side of a weight is spread over, least significant first (the sign cell last)."""
        return self.weights.slices or self._fewest_slices

    @property
    def sides(self) -> int:
        """2 for a differential pair, else 1."""
        return 2 if isinstance(self.weights.encoding, Pair) else 1

    @property
    def cells_per_weight(self) -> int:
        """Neighbouring columns that one weight takes."""
        return self.slices * self.sides

    @property
    def converted_sides(self) -> int:
        """Conversions of one slice of one weight column: 2 for a pair subtracted digitally."""
        encoding = self.weights.encoding
        return 2 if isinstance(encoding, Pair) and encoding.subtract == "digital" else 1

    @property
    def reference_columns(self) -> int:
        """Weight columns of each crossbar that hold Z instead of weights."""
        encoding = self.weights.encoding
        return int(isinstance(encoding, Offset) and encoding.sum == "column")

    @property
    def weight_columns(self) -> int:
        """Weight columns that one crossbar offers."""
        return self.crossbar.cols // self.cells_per_weight - self.reference_columns

    @property
    def sum_limits(self) -> tuple[int, int]:
        """Lowest and highest analog sum of ideal cells without leak over one row tile, level units."""
        most = self.crossbar.active_rows * (2**self.dac.bits - 1) * self.cell.max_level
        return (-most if self.sides == 2 and self.converted_sides == 1 else 0), most

    @property
    def lossless_bits(self) -> int:
        """Fewest ADC bits that tell all those sums apart; codes have a sign where sums do."""
        low, high = self.sum_limits
        return high.bit_length() + (low < 0)

    @property
    def _fewest_slices(self) -> int:
        magnitude = math.ceil((self.weights.bits - 1) / self.cell.bits)
        match self.weights.encoding:
            case Offset():
                return math.ceil(self.weights.bits / self.cell.bits)
            case Pair():
                return magnitude
            case TwosComplement():
                return magnitude + 1

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.slices < self._fewest_slices:
            raise ValueError(
                f"weights.slices = {self.slices} cells of {self.cell.bits} bits do not cover weights of "
                f"{self.weights.bits} bits in {self.weights.encoding.kind} encoding; at least {self._fewest_slices}"
            )
        if self.weight_columns < 1:
            raise ValueError(
                f"crossbar.cols = {self.crossbar.cols} holds no weight of {self.cells_per_weight} cells"
                + (" beside its reference column" if self.reference_columns else "")
            )
        if self.weights.zero_point >= 2**self.weights.bits:
            raise ValueError(
                f"weights.encoding.zero_point = {self.weights.zero_point} must be less than "
                f"2**weights.bits = {2**self.weights.bits}"
            )
        for name in ("weights", "inputs"):
            scale = getattr(self, name).scale
            if self.weights.bias_bits is not None and scale != "power_of_two":
                raise ValueError(
                    f'weights.bias_bits = {self.weights.bias_bits} needs {name}.scale = "power_of_two"; it is "{scale}"'
                )
        encoding = self.weights.encoding
        self.mitigation.check(
            cells=self.cells_per_weight,
            span=self.sides * (2 ** (self.cell.bits * self.slices) - 1),
            reference_columns=self.reference_columns,
            expected=isinstance(encoding, Offset) and encoding.correction == "expected",
        )
        if self.dac.bits > self.inputs.bits:
            raise ValueError(f"dac.bits = {self.dac.bits} exceeds inputs.bits = {self.inputs.bits}")
        if self.adc.columns_per_adc > self.crossbar.cols:
            raise ValueError(
                f"adc.columns_per_adc = {self.adc.columns_per_adc} exceeds crossbar.cols = {self.crossbar.cols}"
            )
        signed = self.sides == 2 and self.converted_sides == 1
        if signed and self.adc.range is not None and self.adc.range.low != -self.adc.range.high:
            raise ValueError(
                f"adc.range.low = {units.pretty(self.adc.range.low, 'A')} must be minus adc.range.high = "
                f"{units.pretty(self.adc.range.high, 'A')}: pairs subtracted before conversion have signed sums"
            )
        return self


def check(data: dict[str, Any], where: str = "chip") -> Chip:
    """Build a chip from plain data.

    Args:
        data: nested keys as in a chip file.
        where: named in errors, for example the file.

    Raises:
        ChipError: one line for each problem, with the value, the rule, and the nearest key for a misspelt one.
    """
    from bitline.chip.messages import explain

    try:
        return Chip.model_validate(data)
    except ValueError as error:
        raise ChipError(explain(error, data, Chip, where)) from None
