"""The weights that programmed cells amount to, as if conversions neither rounded nor clipped.

What a cell errs by is part of the weight it belongs to, and what the digital side corrects comes off again, so that one
plain product gives what a chip answers but for the rounding of its ADCs. For training: as fast as a plain layer, and
the error of the cells is all there. `bitline.mvm.error_path` says what the rounding adds.
"""

from itertools import pairwise

import torch
from torch import Tensor

from bitline.mapping.empty import built
from bitline.mapping.encode import decode, slice_weights
from bitline.mvm.crossbars import Crossbars
from bitline.programming.remap import tops


def effective_weights(crossbars: Crossbars) -> Tensor:
    """Return what each programmed weight is worth, weight units, float64, (merged groups, rows, cols)."""
    placement = crossbars.product.placement
    w = decode(crossbars.levels, placement)
    heights = torch.tensor([b - a for a, b in pairwise(placement.row_bounds)], device=w.device)
    if crossbars.correction is not None:
        away = crossbars.correction.to(w.device).expand(len(heights), -1, -1)
        w = w - away.repeat_interleave(heights, 0).transpose(0, 1)
    if crossbars.flipped is not None:
        chip = placement.chip
        highest = int((tops(placement) * torch.tensor(slice_weights(chip))).sum()) - 2 * chip.weights.zero_point
        w = torch.where(crossbars.flipped.to(w.device)[:, None], highest - w, w)
    there = built(placement, w.device)
    if there is not None:
        w = w * there[..., : w.shape[-1]].repeat_interleave(heights, 0).transpose(0, 1)
    return w
