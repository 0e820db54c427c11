"""Which path computes a product: native kernels on the CPU, Triton on a GPU, tensors wherever these do not fit."""

from typing import TYPE_CHECKING, cast

from torch import Tensor

from bitline.mvm import native, torch_fast
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars, Observer
from bitline.mvm.torch_fast import exact
from bitline.physics.noise import ReadNoise

if TYPE_CHECKING:
    from bitline.mvm.triton import Layout


def native_plan(q: Tensor, crossbars: Crossbars, scale: AdcScale, noise: ReadNoise | None) -> native.Plan | None:
    """Return the plan of a product on the chosen native path; None where another one is quicker or none fits.

    Args:
        q: integers, of any shape.
        crossbars: the programmed layer.
        scale: ranges of its ADCs.
        noise: of the reads; none if absent.
    """
    path = native.chosen_path()
    if path == native.TENSOR or q.device.type != "cpu" or q.dtype.itemsize > 1:
        return None

    def quicker() -> str | None:
        return "one integer product is quicker" if noise is None and exact(crossbars, scale) else None

    plan = native.plan(crossbars, scale, path, noise, unless=quicker)
    return None if isinstance(plan, str) else plan


def crossbar_mvm(
    x: Tensor,
    crossbars: Crossbars,
    scale: AdcScale,
    *,
    noise: ReadNoise | None = None,
    observer: Observer | None = None,
) -> Tensor:
    """Multiply as `bitline.mvm.torch_fast.crossbar_mvm` does, in Triton where that is to be had."""
    plain = noise is None and observer is None and not exact(crossbars, scale)
    if plain and x.is_cuda and (layout := _layout(crossbars, scale)) is not None:
        return layout.multiply(x)
    return torch_fast.crossbar_mvm(x, crossbars, scale, noise=noise, observer=observer)


def _layout(crossbars: Crossbars, scale: AdcScale) -> "Layout | None":
    """Return the cells as the GPU kernel takes them; None where it does not run or does not fit."""
    from bitline.mvm import triton  # slow to import, and of no use without a GPU

    if not triton.available():
        return None
    kept = cast("Layout | None", crossbars.plans.get("triton"))
    if kept is None or not native.same_ranges(kept.scale, scale):
        kept = triton.Layout(crossbars, scale.copy())
        crossbars.plans["triton"] = kept
    return kept if kept.obstacle is None else None
