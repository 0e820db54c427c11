"""Ways to lay out a layer of several groups on crossbars, one class each; docs/mapping.md compares them.

A layer of one group is dense, or digital. `naive`, `packed` and `digital` are common practice; `strip` is our
reconstruction of the architecture for depthwise convolutions of Wu et al., HPEC 2021,
doi:10.1109/HPEC49654.2021.9622798, of which only the abstract is public.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, get_args

from bitline.chip.description import Chip
from bitline.chip.formats import Offset
from bitline.errors import ConversionError, MappingError, nearest
from bitline.mapping.layer import Block, LayerPlacement, Strategy, dense
from bitline.mapping.lower import Matmul

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
KINDS = ("depthwise", "group", "*")
"""keys of a mapping that stand for layers: one channel a group, other layers of several groups, everything"""


@dataclass(frozen=True)
class Naive(LayerPlacement):
    """All groups as one matrix, zeros between them, cut as any dense matrix is.

    A zero is encoded like any other weight, is read and converted like any other, and errs like any other.
    """

    strategy: ClassVar[Strategy] = "naive"

    @property
    def expanded(self) -> Matmul:
        """One matrix of all inputs and all outputs."""
        m = self.matmul
        return replace(m, rows=m.groups * m.rows, cols=m.groups * m.cols, groups=1, depthwise=False)

    @property
    def merged(self) -> LayerPlacement:
        """That matrix, placed as a dense layer is."""
        return LayerPlacement(self.expanded, self.chip, self.row_bounds, self.col_bounds, self.tiles_per_crossbar)

    @property
    def together(self) -> int:
        """All of them."""
        return self.matmul.groups

    @property
    def cells(self) -> int:
        """Cells that hold weights of the layer, or references; not its zeros."""
        m, references = self.matmul, self.expanded.rows * self.col_tiles * self.chip.reference_columns
        return (m.groups * m.rows * m.cols + references) * self.chip.cells_per_weight

    @property
    def stray_levels(self) -> tuple[int, ...]:
        """Level of a zero, by slice."""
        zero, bits = self.chip.weights.zero_point, self.chip.cell.bits
        return tuple((zero >> (bits * s)) & self.chip.cell.max_level for s in range(self.chip.slices))


@dataclass(frozen=True)
class Packed(LayerPlacement):
    """Several groups on the diagonal of one crossbar, each on rows and weight columns of its own, read in one cycle.

    The cells beside the diagonal are empty, level 0, but they stand on driven wordlines: what they err and leak reaches
    the bitlines.

    Args:
        per_crossbar: groups on one crossbar; the last may hold fewer.
    """

    strategy: ClassVar[Strategy] = "packed"

    per_crossbar: int = 1

    @property
    def merged(self) -> LayerPlacement:
        """The matrices of whole crossbars; each group is a column tile, so that it has its own reference column."""
        m, per = self.matmul, self.per_crossbar
        whole = replace(m, rows=per * m.rows, cols=per * m.cols, groups=self.crossbars, depthwise=False)
        bounds = tuple(range(0, whole.cols + 1, m.cols))
        return LayerPlacement(whole, self.chip, (0, whole.rows), bounds, 1, m.rows)

    @property
    def together(self) -> int:
        """Those of one crossbar."""
        return self.per_crossbar

    @property
    def crossbars(self) -> int:
        """Crossbars of the layer, all groups."""
        return math.ceil(self.matmul.groups / self.per_crossbar)

    @property
    def reads(self) -> int:
        """One of each crossbar."""
        return self.crossbars

    @property
    def cells(self) -> int:
        """Cells that hold weights or references: those on the diagonal."""
        return super().read_cells

    @property
    def read_cells(self) -> int:
        """Every wordline of a crossbar crosses every column of it."""
        full, rest = divmod(self.matmul.groups, self.per_crossbar)
        pairs = full * self.per_crossbar**2 + rest**2
        return pairs * self.matmul.rows * self.stored_columns * self.chip.cells_per_weight

    @property
    def columns_in_turn(self) -> int:
        """Cell columns that the busiest ADC meets in one read; all groups stand side by side."""
        return self._in_turn(self.per_crossbar * self.stored_columns)

    def blocks(self) -> Iterator[Block]:
        """Reconstruction the groups."""
        m = self.matmul
        for group in range(m.groups):
            crossbar, slot = divmod(group, self.per_crossbar)
            yield Block(group, (0, m.rows), (0, m.cols), crossbar, 0, (slot * m.rows, slot * self.stored_columns))


@dataclass(frozen=True)
class Strip(LayerPlacement):
    """Crossbars whose bitlines are cut into segments: a group on a strip of wordlines, several side by side as lanes.

    In one cycle every strip is read for one lane, each strip with its own inputs; lanes follow one after the other. No
    group's bitline meets another group's cells, so the arithmetic is that of dense groups.

    Args:
        strips: read at once.
        lanes: groups that share the wordlines of a strip.
        height: wordlines from one strip to the next.
    """

    strategy: ClassVar[Strategy] = "strip"

    strips: int = 1
    lanes: int = 1
    height: int = 0

    @property
    def merged(self) -> LayerPlacement:
        """Groups by themselves."""
        return LayerPlacement(self.matmul, self.chip, self.row_bounds, self.col_bounds, 1)

    @property
    def crossbars(self) -> int:
        """Crossbars of the layer, all groups."""
        return math.ceil(self.matmul.groups / (self.strips * self.lanes))

    @property
    def per_crossbar(self) -> int:
        """Groups on one crossbar, evenly spread; the last may hold fewer."""
        return math.ceil(self.matmul.groups / self.crossbars)

    @property
    def steps(self) -> int:
        """Lanes in use in the fullest crossbar."""
        return math.ceil(self.per_crossbar / self.strips)

    @property
    def reads(self) -> int:
        """One for each lane in use."""
        full, rest = divmod(self.matmul.groups, self.per_crossbar)
        return full * self.steps + math.ceil(rest / self.strips)

    @property
    def columns_in_turn(self) -> int:
        """Cell columns that the busiest ADC meets in one read: switches spread those of all strips over all ADCs."""
        if self.strips == 1:
            return self._in_turn(self.stored_columns)
        adcs = math.ceil(self.chip.crossbar.cols / self.chip.adc.columns_per_adc)
        read = min(self.strips, self.per_crossbar) * self.stored_columns * self.chip.cells_per_weight
        return math.ceil(read / adcs)

    @property
    def bitline_share(self) -> float:
        """A strip's segments and, on the mean, half a sense wire: half of the crossbar's width and of its height."""
        if self.strips == 1:
            return 1.0
        crossbar = self.chip.crossbar
        return (self.height + (crossbar.cols + crossbar.rows) / 2) / crossbar.rows

    def blocks(self) -> Iterator[Block]:
        """Reconstruction the groups: the first lane of every strip, then the second."""
        m = self.matmul
        for group in range(m.groups):
            crossbar, slot = divmod(group, self.per_crossbar)
            lane, strip = divmod(slot, self.strips)
            origin = (strip * self.height, lane * self.stored_columns)
            yield Block(group, (0, m.rows), (0, m.cols), crossbar, lane, origin)


@dataclass(frozen=True)
class Digital(LayerPlacement):
    """No crossbar: integer multiply-accumulates of the same quantized inputs and weights, hence the exact product."""

    strategy: ClassVar[Strategy] = "digital"

    @property
    def merged(self) -> LayerPlacement:
        """The product whose exact result is the answer."""
        return dense(self.matmul, self.chip)

    @property
    def crossbars(self) -> int:
        """None."""
        return 0

    @property
    def steps(self) -> int:
        """No read."""
        return 0

    @property
    def utilization(self) -> float:
        """Of no cells."""
        return 0.0

    @property
    def reads(self) -> int:
        """None."""
        return 0

    @property
    def wordlines(self) -> int:
        """None."""
        return 0

    @property
    def columns(self) -> int:
        """None."""
        return 0

    @property
    def read_cells(self) -> int:
        """None."""
        return 0

    @property
    def digital_macs(self) -> int:
        """All of the layer."""
        return self.matmul.macs

    def blocks(self) -> Iterator[Block]:
        """No block."""
        return iter(())


def naive(matmul: Matmul, chip: Chip) -> LayerPlacement:
    """Write all groups out as one matrix of zeros and weights: 1/groups of its cells hold weights."""
    whole = replace(matmul, rows=matmul.groups * matmul.rows, cols=matmul.groups * matmul.cols, groups=1)
    cut = dense(whole, chip)
    return Naive(matmul, chip, cut.row_bounds, cut.col_bounds, cut.tiles_per_crossbar)


def packed(matmul: Matmul, chip: Chip) -> LayerPlacement:
    """Put as many groups on the diagonal of a crossbar as it has wordlines and weight columns for.

    crossbars = ceil(groups / most) with most = min(active_rows / rows, weight columns / cols), each rounded down;
    groups are spread evenly.

    Raises:
        MappingError: a group does not fit one read of a crossbar.
    """
    _check_fit(matmul, chip, "packed")
    most = min(chip.crossbar.active_rows // matmul.rows, _side_by_side(matmul, chip))
    per = math.ceil(matmul.groups / math.ceil(matmul.groups / most))
    return Packed(matmul, chip, (0, matmul.rows), (0, matmul.cols), 1, per_crossbar=per)


def strip(matmul: Matmul, chip: Chip) -> LayerPlacement:
    """Put groups on strips of a segmented crossbar, as many side by side as it has weight columns for.

    crossbars = ceil(groups / (strips lanes)), strips = segments of active wordlines / segments that a group takes,
    lanes = weight columns / cols, each rounded down. A chip without bitline segments has one strip: its columns are
    shared over time, nothing more.

    Raises:
        MappingError: a group does not fit one read of a crossbar.
    """
    _check_fit(matmul, chip, "strip")
    crossbar, strips, height = chip.crossbar, 1, 0
    if crossbar.segment_rows is not None:
        segments = math.ceil(matmul.rows / crossbar.segment_rows)
        strips = max(1, crossbar.active_rows // crossbar.segment_rows // segments)
        height = segments * crossbar.segment_rows
    lanes = _side_by_side(matmul, chip)
    bounds = (0, matmul.rows), (0, matmul.cols)
    return Strip(matmul, chip, *bounds, 1, strips=strips, lanes=lanes, height=height)


def digital(matmul: Matmul, chip: Chip) -> LayerPlacement:
    """Leave the layer to digital multiply-accumulate units."""
    return Digital(matmul, chip, (0, matmul.rows), (0, matmul.cols), 1)


_PLACERS = {"naive": naive, "packed": packed, "strip": strip, "digital": digital}


def placed(
    matmul: Matmul, chip: Chip, strategy: Strategy = "dense", absent: frozenset[tuple[int, int, int]] = frozenset()
) -> LayerPlacement:
    """Place a layer by a strategy; one of a single group is dense under all of them but `digital`.

    Args:
        matmul: the layer.
        chip: to place it on.
        strategy: how its groups are laid out.
        absent: (group, row tile, column tile) of blocks on crossbars that are not built, see
            `bitline.mapping.empty.empty_blocks`; a layer that is not dense builds all of its crossbars.

    Raises:
        MappingError: a group does not fit one read of a crossbar, and the strategy needs that it does; or an absent
            block that the layer does not have, or a part only of a crossbar's.
    """
    if matmul.groups == 1 and strategy != "digital":
        strategy = "dense"
    return dense(matmul, chip, absent) if strategy == "dense" else _PLACERS[strategy](matmul, chip)


def fits(matmul: Matmul, chip: Chip) -> bool:
    """Whether one read of a crossbar takes a whole group, as `packed` and `strip` need."""
    return matmul.rows <= chip.crossbar.active_rows and matmul.cols <= chip.weight_columns


def choose(matmuls: Iterable[Matmul], mapping: Mapping[str, str]) -> dict[str, Strategy]:
    """Say for every layer which strategy a mapping gives it.

    Args:
        matmuls: the layers.
        mapping: layer name, ``"depthwise"`` (one input or output channel a group), ``"group"`` (other layers of several
            groups) or ``"*"`` -> strategy. A name wins over a kind, a kind over ``"*"``; what is not named is dense.

    Raises:
        ConversionError: an unknown key or strategy.
    """
    layers = {matmul.name: matmul for matmul in matmuls}
    for key, strategy in mapping.items():
        known = [*layers, *KINDS]
        if key not in known:
            raise ConversionError(
                f"mapping names {key!r}, which is no layer and no kind{nearest(key, known)}; "
                f"kinds: {', '.join(KINDS)}; layers: {', '.join(layers)}"
            )
        if strategy not in STRATEGIES:
            raise ConversionError(
                f"mapping of {key} = {strategy!r}{nearest(strategy, STRATEGIES)}; allowed: {', '.join(STRATEGIES)}"
            )
    chosen: dict[str, Strategy] = {}
    for name, matmul in layers.items():
        kind = "depthwise" if matmul.depthwise else "group" if matmul.groups > 1 else "*"
        word = next((mapping[key] for key in (name, kind, "*") if key in mapping), "dense")
        chosen[name] = next(known for known in STRATEGIES if known == word)
    return chosen


def empty_beside(placement: LayerPlacement) -> bool:
    """Whether a digital offset sum over all wordlines takes rows into account that a column has no weights on."""
    encoding = placement.chip.weights.encoding
    return placement.strategy == "packed" and isinstance(encoding, Offset) and encoding.sum == "digital"


def _side_by_side(matmul: Matmul, chip: Chip) -> int:
    """Groups that the columns of a crossbar hold, each with a reference column of its own where there are any."""
    return (chip.weight_columns + chip.reference_columns) // (matmul.cols + chip.reference_columns)


def _check_fit(matmul: Matmul, chip: Chip, strategy: Strategy) -> None:
    if not fits(matmul, chip):
        raise MappingError(
            f"layer {matmul.name}: a group of {matmul.rows} x {matmul.cols} does not fit one read of a crossbar of "
            f"chip {chip.name} ({chip.crossbar.active_rows} wordlines, {chip.weight_columns} weight columns), which "
            f"strategy {strategy!r} needs; allowed for it: 'dense', 'naive', 'digital'"
        )
