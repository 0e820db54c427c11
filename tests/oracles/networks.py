"""Logits of the kept networks on chips, by public names only, so that any version of the package can be asked.

python tests/oracles/networks.py    # writes networks.safetensors beside this file
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate

from bitline import IDEAL, calibrate, load_chip, program, to_crossbar
from bitline.models.files import load_run

HERE = Path(__file__).parent
NETWORKS = HERE.parents[1] / "experiments" / "networks"
FILE = HERE / "networks.safetensors"
SEEDS = {"ideal": IDEAL, "chip 0": 0}


@dataclass(frozen=True)
class Case:
    """A network on a chip.

    Args:
        run: directory below experiments/networks.
        chip: a preset.
        overrides: on top of it.
    """

    run: str
    chip: str
    overrides: tuple[str, ...] = ()

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        """Answers with ranges from the first half of the images, for each of SEEDS."""
        run = load_run(NETWORKS / self.run)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (run.record.mean, run.record.std))
        inputs = (images / 255 - mean) / std
        model, _ = to_crossbar(run.model, load_chip(self.chip, self.overrides), example=inputs[:1])
        calibrate(model, [inputs[: len(inputs) // 2]])
        made = {}
        for name, seed in SEEDS.items():
            program(model, seed)
            with torch.no_grad():
                made[name] = model(inputs)
        return made


CRIMP = (
    "weights.encoding=pair", "weights.scale=power_of_two", "weights.rounding=up", "inputs.scale=power_of_two",
    "inputs.rounding=up", "mitigation.remap=true", "mitigation.nearest=true", "mitigation.readback=true",
    "mitigation.rewrites=2",
)  # fmt: skip
BATCH_RANGE = (
    "weights.bits=8", "inputs.bits=8", "adc.policy=batch_minmax", "cell.programming.kind=lognormal",
    "cell.programming.sigma=0.1", "weights.encoding.kind=offset",
    "weights.encoding.correction=measured",
)  # fmt: skip
CASES = {
    "crimp": Case("resnet56-crimp", "crimp-32nm", CRIMP),
    "noise": Case("vgg8-half", "example-128"),
    "calibrated": Case("resnet20", "rram-22nm", ("adc.bits=6",)),
    "digital pairs": Case(
        "resnet20", "example-128", ("weights.encoding.kind=pair", "weights.encoding.subtract=digital", "adc.bits=8")
    ),
    "batch range": Case("resnet56", "isaac-32nm", BATCH_RANGE),
}


def patterns() -> Tensor:
    """Eight smooth patterns with noise on them, uint8 (8, 3, 32, 32)."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand((8, 3, 5, 5), generator=rng)
    smooth = interpolate(coarse, size=(32, 32), mode="bilinear", align_corners=True)
    return (255 * (0.85 * smooth + 0.15 * torch.rand((8, 3, 32, 32), generator=rng))).to(torch.uint8)


def oracle() -> dict[str, Tensor]:
    """Content of the file: ``images``, and logits by ``"case, seed"``."""
    return load_file(FILE)


if __name__ == "__main__":
    images = patterns()
    answers = {f"{name}, {seed}": y for name, case in CASES.items() for seed, y in case.logits(images).items()}
    save_file({"images": images, **answers}, FILE)
