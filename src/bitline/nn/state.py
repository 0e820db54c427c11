"""What a layer on a chip keeps when it is moved, saved and loaded, and may train: its ranges."""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from bitline import seeds
from bitline.chip.description import Chip
from bitline.errors import ConversionError
from bitline.mapping.place import Strategy
from bitline.mvm.adc import snap

FEWEST = 8
"""input vectors that a gradient is estimated from, however many sums each makes"""
_TRAINED = ("log2_lsb", "offset_shift")


@dataclass(frozen=True)
class Sampling:
    """Which input vectors of a batch the gradient of ADC ranges is estimated from.

    Args:
        vectors: drawn from a batch, at most.
        sums: analog sums computed for them, at most; but never fewer than `FEWEST` vectors.
        seed: of the draws.
    """

    vectors: int = 128
    sums: int = 2**21
    seed: int = 0

    def count(self, vectors: int, sums: int) -> int:
        """How many to draw of some vectors that each make so many sums."""
        return min(vectors, self.vectors, max(FEWEST, self.sums // sums))


class KeepsRanges(nn.Module):
    """A module whose ranges keep their precision and belong to the chip they were calibrated for.

    Attributes:
        log2_lsb: while its ADC ranges train, log2 of their LSB, float32, the shape of `adc_lsb`.
        offset_shift: while their offsets train too, how far these have moved, in LSBs of `adc_lsb`.
        range_steps: while its ADC ranges train, gradients estimated so far; decides which vectors are drawn.
        sampling: of those vectors.
    """

    chip: Chip
    strategy: Strategy
    weight: Tensor
    calibrated_for: Tensor
    adc_lsb: Tensor
    adc_offset: Tensor
    input_scale: Tensor
    log2_lsb: nn.Parameter | None
    offset_shift: nn.Parameter | None
    range_steps: Tensor | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in _TRAINED:
            self.register_parameter(name, None)
        self.register_buffer("range_steps", None)
        self.sampling = Sampling()

    @property
    def converts(self) -> bool:
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

    @property
    def ready(self) -> bool:
        """Whether every range that the chip asks for is known."""
        kept = self.converts and self.chip.adc.keeps_ranges
        ranges_ = [self.input_scale, *([self.lsb, self.offset] if kept else [])]
        return all(bool(t.isfinite().all()) for t in ranges_)

    def keeps(self, chip: Chip) -> bool:
        """Whether the layer's ADC ranges are known and those of a chip.

        Raises:
            ConversionError: they are not, and train.
        """
        known = chip.adc.keeps_ranges and bool(self.lsb.isfinite().all())
        kept = known and int(self.calibrated_for) == formats(chip, self.layout)
        if self.log2_lsb is not None and not kept:
            raise ConversionError(
                f"ADC ranges train for chip {self.chip.name}; "
                "call keep_ranges(model) before moving to other ADCs or number formats"
            )
        return kept

    def train_ranges(self, sampling: Sampling, *, offsets: bool) -> None:
        """Make parameters of the ADC ranges; of none where the layer has no ADC."""
        if not self.converts:
            return
        self.sampling = sampling
        self.log2_lsb = nn.Parameter(self.adc_lsb.log2().float())
        self.offset_shift = nn.Parameter(torch.zeros_like(self.log2_lsb)) if offsets else None
        self.range_steps = torch.zeros((), dtype=torch.int64, device=self.adc_lsb.device)

    def keep_ranges(self) -> None:
        """Write the ranges as trained into the buffers; they train no longer."""
        self.adc_lsb, self.adc_offset = self.lsb, self.offset.clone()
        self.log2_lsb = self.offset_shift = self.range_steps = None

    def take_ranges(self, lsb: Tensor, offset: Tensor) -> None:
        """Replace the ADC ranges; where they train, they go on from these.

        Raises:
            ConversionError: ranges of another shape, or unknown ones, while they train.
        """
        device = self.weight.device
        if self.log2_lsb is not None:
            if lsb.shape != self.log2_lsb.shape or not bool(lsb.isfinite().all()):
                raise ConversionError("ADC ranges train; call keep_ranges(model) before giving them another form")
            self.log2_lsb.data.copy_(lsb.log2())
            if self.offset_shift is not None:
                self.offset_shift.data.zero_()
        self.adc_lsb, self.adc_offset = lsb.to(device), offset.to(device)
        self.calibrated_for.fill_(formats(self.chip, self.layout))

    def forget(self) -> None:
        """Drop what was counted before other ranges were loaded."""
        raise NotImplementedError

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # Ranges keep their precision, whatever that of the weights becomes.
        ranges_ = {name: getattr(self, name) for name in ("input_scale", "adc_lsb", "adc_offset")}
        trained = {name: p.data for name in _TRAINED if (p := self._parameters[name]) is not None}
        super()._apply(fn, recurse)
        for name, kept in ranges_.items():
            if not kept.is_meta:
                setattr(self, name, kept.to(getattr(self, name).device))
        for name, kept in trained.items():
            parameter = getattr(self, name)
            if not kept.is_meta:
                parameter.data = kept.to(parameter.device)
        return self

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: Any,
        local_metadata: Any,
        strict: Any,
        missing_keys: Any,
        unexpected_keys: Any,
        error_msgs: Any,
    ) -> None:
        # Calibrated ranges have the shape of their granularity, which differs from an uncalibrated layer's.
        for name in ("adc_lsb", "adc_offset"):
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.dim() == 4:
                setattr(self, name, torch.empty_like(stored, dtype=torch.float64, device=self.weight.device))
        for name in _TRAINED:
            stored = state_dict.get(prefix + name)
            mine = self._parameters[name]
            if stored is not None and stored.dim() == 4 and (mine is None or mine.shape != stored.shape):
                setattr(self, name, nn.Parameter(torch.empty_like(stored, device=self.weight.device)))
        if self.range_steps is None and prefix + "range_steps" in state_dict:
            self.range_steps = torch.zeros((), dtype=torch.int64, device=self.weight.device)
        self.forget()
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if int(self.calibrated_for) != formats(self.chip, self.layout):
            for stale in (self.input_scale, self.adc_lsb, self.adc_offset, self.log2_lsb):
                if stale is not None:
                    stale.data.fill_(math.nan)


def parts(chip: Chip) -> dict[str, Any]:
    """Everything of a chip that ADC and input ranges depend on, by key."""
    same: dict[str, Any] = {"model": "table", "sample_rate": 1.0, "columns_per_adc": 1}
    if chip.adc.policy == "trained":
        same |= {"calibration": "mse", "percentile": 99.9}
    adc = chip.adc.model_copy(update=same)
    leak = chip.cell.g_min / chip.cell.step if chip.cell.leak == "kept" else 0.0
    weights = chip.weights.model_copy(update={"bias_bits": None})
    return {
        "adc": adc,
        "inputs": chip.inputs,
        "weights": weights,
        "dac": chip.dac,
        "crossbar": chip.crossbar.whole,
        "cell.bits": chip.cell.bits,
        "cell.leak": leak,
    }


def formats(chip: Chip, layout: str = "dense") -> int:
    """Number that stands for everything that calibrated ranges depend on."""
    return seeds.derive(*map(repr, parts(chip).values()), *([] if layout == "dense" else [layout]))
