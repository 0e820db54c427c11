"""Cost tables: one TOML file a technology, every number with its unit, node, source and status."""

import tomllib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field

from bitline import units
from bitline.chip.description import Chip
from bitline.chip.messages import explain
from bitline.chip.records import Bits, Count, Metre, Record, SampleRate, Volt
from bitline.errors import ChipError, nearest

Status = Literal["measured", "read", "recalled", "assumed", "scaled"]
"""measured: we ran the named tool; read: in the named public file; recalled: from a paper not at hand; assumed: ours"""

_UNITS = ("F/m", "m2", "J", "W", "s")
T = TypeVar("T", bound=Record)


class Entry(Record):
    """One number and where it comes from."""

    value: Annotated[float, Field(ge=0)]
    unit: str
    """with prefix: ``"fJ"``, ``"um2"``"""
    node: Metre
    source: Annotated[str, Field(min_length=1)]
    status: Status
    note: str = ""
    """derivation"""
    within: str = ""
    """the entry that already contains this one, whose value is then zero"""

    @property
    def base(self) -> str:
        """SI unit without prefix."""
        return next((unit for unit in _UNITS if self.unit.endswith(unit)), self.unit)

    @property
    def si(self) -> float:
        """Value in SI units."""
        return units.parse(f"{self.value!r} {self.unit}", self.base)


def _in(unit: str) -> AfterValidator:
    def check(entry: Entry) -> Entry:
        if entry.base != unit:
            raise ValueError(f"unit {entry.unit!r} is not in {unit}")
        _ = entry.si
        if entry.within and entry.value:
            raise ValueError(f"value {entry.value:g} with within = {entry.within!r}: it would be counted twice")
        return entry

    return AfterValidator(check)


Joule = Annotated[Entry, _in("J")]
Area = Annotated[Entry, _in("m2")]
Watt = Annotated[Entry, _in("W")]
Time = Annotated[Entry, _in("s")]
FaradPerMetre = Annotated[Entry, _in("F/m")]


class Limit(Record):
    """Up to where a table was compared with something else."""

    key: str
    """of a chip, dotted"""
    low: float
    """SI, as the chip has it"""
    high: float
    beyond: str
    """what is known outside"""

    def value(self, chip: Chip) -> float:
        """Value of the chip's key."""
        found: Any = chip
        for part in self.key.split("."):
            found = getattr(found, part)
        return float(found)


class CostTable(Record):
    """Energy, area and leakage of every event and circuit in one technology."""

    name: str
    about: str
    node: Metre
    vdd: Volt
    """supply at which the energies hold"""
    adc_bits: Bits
    """width of the ADC that adc_energy and adc_area describe"""
    adc_law: Literal["sar", "flash"]
    """how the table's ADC scales to other widths: see `bitline.cost.adc`"""
    adc_rate: SampleRate | None = None
    """conversions a second of that ADC; several take turns at more. Of no use beside adc_time"""
    bus_wires: Count = 256
    """wires of the bus that bus_area describes; assumed where absent. Its area goes with the wires"""

    caution: str = ""
    """what a reader of any figure must know, beside what the entries say"""
    limits: tuple[Limit, ...] = ()
    """where the table was compared; a chip outside is priced all the same, and the notes say so"""

    adc_energy: Joule
    """of one conversion"""
    adc_level_energy: Joule | None = None
    """flash only: of one comparator in one conversion, contained in adc_energy"""
    adc_area: Area
    """of one ADC"""
    adc_time: Time | None = None
    """of one conversion; 1 / adc.sample_rate where absent"""
    wordline_energy: Joule
    """of driving one wordline of no columns once"""
    wordline_energy_per_column: Joule
    """of driving one wordline once, for each column that it crosses"""
    row_driver_area: Area
    """of one wordline's driver"""
    cell_energy: Joule
    """of one cell on a driven wordline, and its share of the bitline, in one read; for cell_cost = "table" """
    sample_hold_energy: Joule
    """of holding one bitline once"""
    sample_hold_area: Area
    """for one bitline"""
    shift_add_energy: Joule
    """of shifting and adding one code"""
    shift_add_area: Area
    """for one ADC"""
    adder_bit_energy: Joule
    """of one full adder"""
    adder_tree_energy: Joule
    """of one full adder in a tree over row tiles"""
    adder_tree_area: Area
    """of a tile's adders"""
    input_register_energy: Joule
    """of one bit written or read"""
    input_register_area: Area
    """of one bit"""
    output_register_energy: Joule
    """of one bit updated"""
    output_register_area: Area
    """of one bit"""
    tile_register_area: Area
    """of a tile's output register"""
    buffer_energy: Joule | None = None
    """of one bit read or written; the SRAM grid where absent"""
    buffer_area: Area | None = None
    """of one KiB; the SRAM grid where absent"""
    bus_energy: Joule | None = None
    """of one bit over a tile's bus; a wire as long as a tile's edge where absent"""
    bus_area: Area
    """of a tile's bus of bus_wires"""
    hop_energy: Joule | None = None
    """of one bit to a neighbouring tile; a wire as long as a tile's edge where absent"""
    router_area: Area
    """of a tile's share of the network"""
    wire_capacitance: FaradPerMetre
    """of bitlines, buses and the network"""
    activation_energy: Joule
    """of one result of the activation function"""
    activation_area: Area
    """of a tile's activation units"""
    pooling_energy: Joule
    """of one activation that a pooling unit reads"""
    pooling_area: Area
    """of a tile's pooling unit"""
    periphery_area: Area
    """of whatever else stands at one crossbar: decoders, multiplexers, switches for writing"""
    crossbar_leakage: Watt
    """of one crossbar with its periphery"""

    def entries(self) -> dict[str, Entry]:
        """Every number that the table holds, by name."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: entry for name, entry in fields.items() if isinstance(entry, Entry)}


def tables() -> list[str]:
    """Names of the cost tables that ship with bitline."""
    folder = resources.files("bitline.cost") / "tables"
    names = (entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return sorted(name for name in names if not name.startswith("_"))


def load(name_or_file: str) -> CostTable:
    """Read a cost table by name, or from a file as it is now.

    Raises:
        ChipError: no such table or file, not TOML, or an entry that is missing, unknown or in another unit.
    """
    if name_or_file in tables():
        return _shipped(name_or_file)
    path = Path(name_or_file)
    if not path.is_file():
        raise ChipError(
            f"no cost table {name_or_file!r}: neither a file nor a table{nearest(name_or_file, tables())}; "
            f"tables: {', '.join(tables())}"
        )
    try:
        return _parsed(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ChipError(f"cannot read {path}: {error}") from None


@lru_cache(maxsize=64)
def _shipped(name: str) -> CostTable:
    return read(name, CostTable)


@lru_cache(maxsize=64)
def _parsed(text: str, where: str) -> CostTable:
    return checked(text, CostTable, where)


def read(name: str, record: type[T]) -> T:
    """Read a TOML file that ships in ``cost/tables`` as the given record."""
    text = (resources.files("bitline.cost") / "tables" / f"{name}.toml").read_text("utf-8")
    return checked(text, record, f"cost table {name}")


def checked(text: str, record: type[T], where: str) -> T:
    """Parse TOML into a record.

    Raises:
        ChipError: not TOML, or not such a record; one line for each problem.
    """
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ChipError(f"{where} is not TOML: {error}") from None
    try:
        return record.model_validate(data)
    except ValueError as error:
        raise ChipError(explain(error, data, record, where)) from None


NODE_EXPONENT = 1.88
"""Energy of a circuit goes with node**1.88, each node at its nominal supply: exponent of the regression over the ADC
survey (hwcomponents-adc 1.0.21, arXiv:2404.06553), and of NeuroSim's row drivers from 22 to 65 nm (1.89)."""


def scale(entry: Entry, chip: Chip, vdd: float) -> float:
    """Move a number to a chip's node and supply.

    At the entry's own node energies go with the square of the supply. To another node energies go with
    node**1.88 and areas with node**2; the supply is then the nominal one, and times and leakage stay.

    Args:
        entry: from a table.
        chip: to be priced.
        vdd: supply at which the entry holds, V.

    Returns:
        SI value on that chip.
    """
    ratio = chip.node / entry.node
    same = abs(ratio - 1) < 1e-6
    match entry.base:
        case "J":
            return entry.si * ((chip.vdd / vdd) ** 2 if same else ratio**NODE_EXPONENT)
        case "m2":
            return entry.si if same else entry.si * ratio**2
        case _:
            return entry.si
