"""The input and ADC ranges of one layer: what is kept when a network is moved, saved and loaded, and may train."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.chip.formats import Inputs
from bitline.chip.variants import ideal, lossless, with_cells
from bitline.errors import ConversionError
from bitline.mapping.encode import in_use, set_together
from bitline.mapping.histogram import RangeHistogram
from bitline.mapping.part import part
from bitline.mapping.place import LayerPlacement, Strategy
from bitline.mapping.quantize import InputFormat, quantize, widen
from bitline.mapping.range_parts import formats
from bitline.mvm import adc
from bitline.mvm.adc import AdcScale, snap
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.fit_ranges import COLUMNS, Columns, fit
from bitline.mvm.gradient import Sampling
from bitline.mvm.sum_histogram import SumHistogram, sample_size
from bitline.nn.cells import IDEAL, CellWeights

TRAINED = ("log2_lsb", "offset_shift")
BUFFERS = ("input_scale", "input_signed", "input_zero", "adc_lsb", "adc_offset")
"""that decide what a layer answers"""


class Ranges(nn.Module):
    """Ranges that keep their precision, and belong to the chip they were calibrated for.

    Args:
        chip: that the ranges will be for.
        strategy: how the groups of the layer are laid out, which decides what its analog sums are made of.

    Attributes:
        input_scale: real value of an input integer of 1; NaN before calibration.
        input_signed: whether inputs below zero occur, and integers have a sign for it.
        input_zero: integer that stands for 0; others than 0 where a chip has ``inputs.zero_point``.
        adc_lsb: LSB of the calibrated ADC ranges, level units, (groups or 1, digits or 1, slices or 1, columns or 1).
        adc_offset: lowest value of the ranges, the same shape.
        calibrated_for: number of the chip and layout that the ranges are for, see `formats`.
        log2_lsb: while the ADC ranges train, log2 of their LSB, float32, the shape of `adc_lsb`; else None.
        offset_shift: while their offsets train too, how far these have moved, in LSBs of `adc_lsb`; else None.
        range_steps: while the ADC ranges train, gradients estimated so far; decides which vectors are drawn.
        sampling: of those vectors.
        sums: analog sums of ideal cells, as calibration counted them; None: not counted, or no longer true.
    """

    input_scale: Tensor
    input_signed: Tensor
    input_zero: Tensor
    adc_lsb: Tensor
    adc_offset: Tensor
    calibrated_for: Tensor
    log2_lsb: nn.Parameter | None
    offset_shift: nn.Parameter | None
    range_steps: Tensor | None

    def __init__(self, chip: Chip, strategy: Strategy) -> None:
        super().__init__()
        self.strategy: Strategy = strategy
        self.sampling = Sampling()
        self.sums: SumHistogram | None = None
        self.register_buffer("input_scale", torch.tensor(math.nan, dtype=torch.float64))
        self.register_buffer("input_signed", torch.tensor(False))
        self.register_buffer("input_zero", torch.tensor(0))
        self.register_buffer("adc_lsb", _unknown())
        self.register_buffer("adc_offset", _unknown())
        self.register_buffer("calibrated_for", torch.tensor(formats(chip, self.layout)))
        for name in TRAINED:
            self.register_parameter(name, None)
        self.register_buffer("range_steps", None)
        self.register_load_state_dict_pre_hook(_make_room)

    def extra_repr(self) -> str:
        """Say what is known."""
        known = [f"input_scale={float(self.input_scale):g}"] if bool(self.input_scale.isfinite()) else []
        if bool(self.adc_lsb.isfinite().all()):
            lsb = self.lsb
            known.append(f"{lsb.numel()} ADC ranges, LSB {float(lsb.min()):g} to {float(lsb.max()):g} levels")
        return ", ".join(known) or "unknown"

    def take_inputs(self, scale: float, *, signed: bool, zero: int = 0) -> None:
        """Have inputs of a scale; in tensors of their own, as an exported program may hold those before."""
        self.input_scale = torch.full_like(self.input_scale, scale)
        self.input_signed = torch.full_like(self.input_signed, signed)
        self.input_zero = torch.full_like(self.input_zero, zero)

    def fit_inputs(self, seen: RangeHistogram, inputs: Inputs) -> None:
        """Choose scale, sign and zero point for what was seen."""
        how = (inputs.bits, inputs.calibration, inputs.percentile, inputs.scale, inputs.rounding)
        if inputs.zero_point:
            scale, zero = seen.affine(*how)
            self.take_inputs(scale, signed=False, zero=zero)
        else:
            self.take_inputs(seen.scale(*how), signed=seen.negative)

    @property
    def signed(self) -> bool:
        """Whether inputs below zero occur; not while the network has no values, on the meta device."""
        return not self.input_signed.is_meta and bool(self.input_signed)

    @property
    def of_adcs(self) -> bool:
        """Whether an ADC stands between the product and the answer."""
        return self.strategy != "digital"

    @property
    def layout(self) -> str:
        """What analog sums are made of: the strategy, but strips make the sums of dense groups."""
        return "dense" if self.strategy == "strip" else self.strategy

    @property
    def lsb(self) -> Tensor:
        """LSB of the ADC ranges that the network keeps, as the converters have it, float64."""
        return self.adc_lsb if self.log2_lsb is None else snap(self.log2_lsb.detach().double().exp2())

    @property
    def offset(self) -> Tensor:
        """Lowest value of those ranges, whole levels, float64."""
        if self.offset_shift is None:
            return self.adc_offset
        return torch.round(self.adc_offset + self.offset_shift.detach().double() * self.adc_lsb)

    def input_format(self, chip: Chip) -> InputFormat:
        """Width and sign of the inputs."""
        return InputFormat(chip.inputs.bits, self.signed)

    def integers(self, x: Tensor, chip: Chip, name: str) -> Tensor:
        """Quantize inputs of a layer: integers of the input format, the shape of `x`.

        Raises:
            ConversionError: the layer is not calibrated.
        """
        scale = float(self.input_scale)
        if not math.isfinite(scale):
            raise _uncalibrated(name, "input")
        form = self.input_format(chip)
        dtype = torch.int32 if form.bits > 8 else torch.int8 if form.signed else torch.uint8
        zero = int(self.input_zero)
        low, high = form.limits
        q = quantize(widen(x.detach()), scale, low - zero, high - zero)
        return (q.add_(zero) if zero else q).to(dtype)

    def scale(self, crossbars: Crossbars, of_batch: Callable[[], AdcScale]) -> AdcScale:
        """Ranges of the ADCs on the chip of some crossbars.

        Args:
            crossbars: of the layer.
            of_batch: ranges of the batch at hand, asked for under `batch_minmax` only.

        Raises:
            ConversionError: a calibrated range is asked for before calibration.
        """
        product, device = crossbars.product, crossbars.cells.device
        chip_adc = product.placement.chip.adc
        match chip_adc.policy:
            case "lossless":
                scale = adc.lossless()
            case "full":
                scale = adc.full(product)
            case "fixed":
                scale = adc.fixed(product)
            case "batch_minmax":
                scale = of_batch()
            case "calibrated" | "trained":
                scale = AdcScale(self.lsb, self.offset, *adc.code_range(chip_adc, product))
                if not bool((scale.lsb + scale.offset).isfinite().all()):
                    raise _uncalibrated(product.placement.matmul.name, "ADC")
                return scale
        return replace(scale, lsb=scale.lsb.to(device), offset=scale.offset.to(device))

    def known(self, chip: Chip) -> bool:
        """Whether every range that a chip asks for is known."""
        adc = [self.lsb, self.offset] if self.of_adcs and chip.adc.keeps_ranges else []
        return all(bool(t.isfinite().all()) for t in (self.input_scale, *adc))

    def fits(self, chip: Chip) -> bool:
        """Whether the ADC ranges are known and those of a chip.

        Raises:
            ConversionError: they are not, and train.
        """
        known = chip.adc.keeps_ranges and bool(self.lsb.isfinite().all())
        fits = known and int(self.calibrated_for) == formats(chip, self.layout)
        if self.log2_lsb is not None and not fits:
            raise ConversionError(
                f"ADC ranges train that would not be those of chip {chip.name}; "
                "call keep_ranges(model) before moving to other ADCs or number formats"
            )
        return fits

    def begin_training(self, sampling: Sampling, *, offsets: bool) -> None:
        """Make parameters of the ADC ranges; of none where the layer has no ADC."""
        if not self.of_adcs:
            return
        self.sampling = sampling
        self.log2_lsb = nn.Parameter(self.adc_lsb.log2().float())
        self.offset_shift = nn.Parameter(torch.zeros_like(self.log2_lsb)) if offsets else None
        self.range_steps = torch.zeros((), dtype=torch.int64, device=self.adc_lsb.device)

    def end_training(self) -> None:
        """Keep the ranges as trained in the buffers; they train no longer."""
        self.adc_lsb, self.adc_offset = self.lsb, self.offset.clone()
        self.log2_lsb = self.offset_shift = self.range_steps = None

    def take(self, lsb: Tensor, offset: Tensor, chip: Chip) -> None:
        """Replace the ADC ranges by those of a chip; where they train, they go on from these.

        Raises:
            ConversionError: ranges of another shape, or unknown ones, while they train.
        """
        device = self.input_scale.device
        if self.log2_lsb is not None:
            if lsb.shape != self.log2_lsb.shape or not bool(lsb.isfinite().all()):
                raise ConversionError("ADC ranges train; call keep_ranges(model) before giving them another form")
            self.log2_lsb.data.copy_(lsb.log2())
            if self.offset_shift is not None:
                self.offset_shift.data.zero_()
        self.adc_lsb, self.adc_offset = lsb.to(device), offset.to(device)
        self.calibrated_for.fill_(formats(chip, self.layout))

    def sample_size(self, whole: LayerPlacement, images: int) -> int:
        """How many input vectors of so many images ranges are fitted to, of a placement with all crossbars."""
        chosen = part(whole, COLUMNS)
        columns = len(chosen.groups) * len(chosen.stored)
        return sample_size(whole.merged, columns, images)

    def fit(
        self,
        chip: Chip,
        weights: CellWeights,
        whole: LayerPlacement,
        vectors: Tensor | None = None,
        outliers: float = 0,
    ) -> None:
        """Set the ADC ranges of a chip from the sums that input vectors make; unknown where there are none.

        Args:
            chip: that the layer is on.
            weights: of the layer.
            whole: its placement if all crossbars were built.
            vectors: integers, (vectors, groups that share bitlines, rows), to count the sums of; None: those counted
                before.
            outliers: share of them that has no say, see `SumHistogram`.
        """
        if (self.sums is None and vectors is None) or not self.of_adcs:
            self.take(_unknown(), _unknown(), chip)
            return
        chosen = part(whole, COLUMNS)
        some = weights.part(chosen, chip.weights)
        cells = some.crossbars(quiet(chip), IDEAL, signed=self.signed)
        used = in_use(whole)
        if vectors is not None:
            few = None if used is None else used[chosen.groups][:, chosen.stored]
            self.sums = SumHistogram(cells.product, few, outliers, vectors[None])
        assert self.sums is not None
        found = list(self.sums.sums(self.sums.vectors[:, :, chosen.groups], cells))
        if vectors is not None:
            self.sums.count(found)
        if not chip.adc.keeps_ranges:
            self.take(_unknown(), _unknown(), chip)
            return
        exact = cells if chip.cell.leak == "cancelled" else some.crossbars(ideal(chip), IDEAL, signed=self.signed)
        squares = some.unit(chip.weights).square()[:, 0].expand(some.matmul.groups, some.matmul.cols)
        columns = Columns(
            chosen,
            cells,
            exact,
            squares if whole.together == 1 else set_together(squares, whole),
            lambda: weights.part(part(whole), chip.weights).crossbars(quiet(chip), IDEAL, signed=self.signed),
            used,
        )
        scale = fit(self.sums, found, chip.adc, columns)
        self.take(scale.lsb, scale.offset, chip)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # Ranges keep their precision, whatever that of the weights becomes.
        same = {name: getattr(self, name) for name in ("input_scale", "adc_lsb", "adc_offset")}
        trained = {name: p.data for name in TRAINED if (p := self._parameters[name]) is not None}
        super()._apply(fn, recurse)
        for name, value in same.items():
            if not value.is_meta:
                setattr(self, name, value.to(getattr(self, name).device))
        for name, value in trained.items():
            parameter = getattr(self, name)
            if not value.is_meta:
                parameter.data = value.to(parameter.device)
        return self


def _make_room(ranges: Ranges, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Have ranges of the shapes that are to be loaded: calibrated ones have that of their granularity."""
    device = ranges.input_scale.device
    for name in ("adc_lsb", "adc_offset"):
        saved = state_dict.get(prefix + name)
        if saved is not None and saved.dim() == 4:
            setattr(ranges, name, torch.empty_like(saved, dtype=torch.float64, device=device))
    state_dict.setdefault(prefix + "input_zero", torch.zeros_like(ranges.input_zero))  # of before there were others
    for name in TRAINED:
        saved = state_dict.get(prefix + name)
        mine: Tensor | None = getattr(ranges, name)
        if saved is not None and saved.dim() == 4 and (mine is None or mine.shape != saved.shape):
            setattr(ranges, name, nn.Parameter(torch.empty_like(saved, device=device)))
    if ranges.range_steps is None and prefix + "range_steps" in state_dict:
        ranges.range_steps = torch.zeros((), dtype=torch.int64, device=device)
    ranges.sums = None


def _uncalibrated(name: str, what: str) -> ConversionError:
    return ConversionError(
        f"layer {name}: {what} range unknown; call calibrate(model, batches) before running on the chip"
    )


def _unknown() -> Tensor:
    return torch.full((1, 1, 1, 1), math.nan, dtype=torch.float64)


def quiet(chip: Chip) -> Chip:
    """The same chip with ideal cells and a lossless ADC, its leak included: what calibration looks at."""
    return lossless(with_cells(chip))
