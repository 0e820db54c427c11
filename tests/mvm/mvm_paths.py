"""Every path of `mvm` that the contract holds for. A new one is one more entry of PATHS."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mvm_samples import Case
from torch import Tensor

from bitline.errors import MappingError
from bitline.mvm import native, reference, torch_fast, triton
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.physics.noise import ReadNoise

Multiply = Callable[[Case, ReadNoise | None], Tensor]
GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ABSOLUTE, PROPORTIONAL = {"kind": "absolute", "sigma": "3 uS"}, {"kind": "proportional", "sigma": 0.05}


@dataclass(frozen=True)
class Path:
    """One way to multiply.

    Args:
        multiply: it raises MappingError where a layer does not fit.
        noises: of the reads, that it knows.
        most_bits: of cells and input digits.
        input_bits: of inputs.
        absent: whether crossbars may be absent.
        checks: whether it refuses inputs and levels of a wrong shape or size itself.
        quick: whether it multiplies more than a handful of numbers in good time.
    """

    multiply: Multiply
    noises: tuple[dict, ...] = (ABSOLUTE, PROPORTIONAL)
    most_bits: int = 8
    input_bits: int = 16
    absent: bool = True
    checks: bool = True
    quick: bool = True

    def answer(self, case: Case, noise: ReadNoise | None = None) -> Tensor | None:
        """The product, or None where the layer does not fit."""
        try:
            return self.multiply(case, noise)
        except MappingError:
            return None


def by_definition(case: Case, noise: ReadNoise | None) -> Tensor:
    return reference.crossbar_mvm(case.x, case.levels, case.product, case.scale, noise=noise)


_known: dict[bytes, Tensor] = {}


def defined(case: Case, noise: ReadNoise | None = None) -> Tensor:
    """The product as the reference defines it; once for all paths, which are asked for the same layers."""
    scale, placement = case.scale, case.product.placement
    numbers = [t.tolist() for t in (case.x, case.levels, scale.lsb, scale.offset)]
    key = pickle.dumps((placement, numbers, scale.low, scale.high, noise))
    if key not in _known:
        if len(_known) == 500:
            _known.clear()
        _known[key] = by_definition(case, noise)
    return _known[key]


def by_tensors(*, shortcut: bool) -> Multiply:
    return lambda case, noise: torch_fast.crossbar_mvm(
        case.x, case.crossbars, case.scale, noise=noise, shortcut=shortcut
    )


def by_native(name: str) -> Multiply:
    def multiply(case: Case, noise: ReadNoise | None) -> Tensor:
        plan = native.Plan(case.crossbars, case.scale, name, noise=noise)
        return plan.multiply(case.bytes, 1, noise=noise)[0]

    return multiply


def by_triton(case: Case, _: ReadNoise | None) -> Tensor:
    scale = AdcScale(case.scale.lsb.to(GPU), case.scale.offset.to(GPU), case.scale.low, case.scale.high)
    return triton.crossbar_mvm(
        case.x.to(GPU), Crossbars(case.product, case.levels.to(GPU)), scale, shortcut=False
    ).cpu()


def native_paths() -> list[str]:
    """Paths of this processor, and the emulation of the one it may lack."""
    emulated = ["amx-emulated"] if native._native and not native._native.why_not("amx-emulated") else []
    return native.paths() + emulated


PATHS = {
    "reference": Path(by_definition, quick=False),
    "tensor": Path(by_tensors(shortcut=True)),
    "tensor without shortcut": Path(by_tensors(shortcut=False)),
    **{name: Path(by_native(name), (ABSOLUTE,), input_bits=8, checks=False) for name in native_paths()},
    **(
        {"triton": Path(by_triton, (), most_bits=7, absent=False, quick=GPU.type == "cuda")}
        if triton.available()
        else {}
    ),
}
