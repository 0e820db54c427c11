"""What a layer on a chip keeps when it is moved, saved and loaded: its ranges."""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.physics import seeds


class KeepsRanges(nn.Module):
    """A module whose ranges keep their precision and belong to the chip they were calibrated for."""

    chip: Chip
    weight: Tensor
    calibrated_for: Tensor

    def forget(self) -> None:
        """Drop what was counted before other ranges were loaded."""
        raise NotImplementedError

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # Ranges keep their precision, whatever that of the weights becomes.
        ranges_ = {name: getattr(self, name) for name in ("input_scale", "adc_lsb", "adc_offset")}
        super()._apply(fn, recurse)
        for name, kept in ranges_.items():
            if not kept.is_meta:
                setattr(self, name, kept.to(getattr(self, name).device))
        return self

    def _load_from_state_dict(
        self, state_dict: Any, prefix: Any, local_metadata: Any, strict: Any, missing_keys: Any,
        unexpected_keys: Any, error_msgs: Any,
    ) -> None:  # fmt: skip
        # Calibrated ranges have the shape of their granularity, which differs from an uncalibrated layer's.
        for name in ("adc_lsb", "adc_offset"):
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.dim() == 4:
                setattr(self, name, torch.empty_like(stored, dtype=torch.float64, device=self.weight.device))
        self.forget()
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if int(self.calibrated_for) != formats(self.chip):
            for stale in (getattr(self, name) for name in ("input_scale", "adc_lsb", "adc_offset")):
                stale.fill_(math.nan)


def formats(chip: Chip) -> int:
    """Number that stands for everything that calibrated ranges depend on."""
    adc = chip.adc.model_copy(update={"model": "table", "sample_rate": 1.0, "columns_per_adc": 1})
    parts = (adc, chip.inputs, chip.weights, chip.dac, chip.crossbar, chip.cell.bits, chip.cell.leak)
    return seeds.derive(*map(repr, parts))
