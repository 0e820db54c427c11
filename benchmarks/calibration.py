"""Claim: calibration costs at most 8 plain forward passes over the same images.

CPU time of `calibrate` over that of a plain fp32 forward, on one thread, by network, images and what has a range of its
own; peak memory of a process that converts and calibrates twelve linear layers, over their weights; and, with
--accuracy, accuracy of kept networks on test images, with ranges from several sets of training images.
--before FILE takes over what an earlier version of this package measured with the same options, to stand beside.

    python benchmarks/calibration.py [--json [FILE]] [--before FILE] [--accuracy] [--networks vgg8 resnet18 vit-b16]
        [--settings full layer slice slice_digit column] [--repeats 3]
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from output import add_json_option, write
from torch import Tensor, nn
from torch.nn import functional as F

from bitline import chip as chips
from bitline.data import load
from bitline.models import build
from bitline.models.files import load_run
from bitline.nn import calibrate, to_crossbar
from bitline.train.hardware import describe

BASE = ("rram-22nm", "cell.programming.sigma=0")
SETTINGS = {
    "full": ("adc.policy=full",),
    **{name: (f"adc.granularity={name}",) for name in ("layer", "slice", "slice_digit", "column")},
}
IMAGES = {"vgg8": (1, 16, 256), "resnet18": (1, 8), "vit-b16": (1, 2)}
KEPT = {"vgg8-half": 300, "resnet20": 500}
"""test images"""
POINTS = [
    (4, "slice_digit"),
    *((bits, name) for bits in (5, 6) for name in ("layer", "slice", "slice_digit", "column")),
]
SETS, SET_IMAGES = 3, 256


class ResBlock(nn.Module):
    """A basic block of ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        same = inputs == outputs
        down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Identity() if same else down

    def forward(self, x: Tensor) -> Tensor:
        """(images, channels, height, width)."""
        return F.relu(self.body(x) + self.skip(x))


def resnet18() -> nn.Module:
    """ResNet-18 for ImageNet (He et al., CVPR 2016), random weights."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = 64
    for outputs in (64, 128, 256, 512):
        layers += [ResBlock(inputs, outputs, 1 if inputs == outputs else 2), ResBlock(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class VitBlock(nn.Module):
    """A block of a vision transformer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(images, tokens, width)."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.before(x)).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width))
        return x + self.down(F.gelu(self.up(self.between(x))))


class VitB16(nn.Module):
    """ViT-B/16 (Dosovitskiy et al., ICLR 2021), random weights; all of its 50 linear layers are on crossbars."""

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, 197, width))
        self.blocks = nn.Sequential(*(VitBlock(width, 12) for _ in range(12)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """(images, 3, 224, 224) to (images, 1000)."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vgg8": (lambda: build("vgg8"), 32),
    "resnet18": (resnet18, 224),
    "vit-b16": (VitB16, 224),
}


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Least CPU time of a run."""
    times: list[float] = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def time_network(name: str, settings: list[str], repeats: int, say: Callable[..., None]) -> dict[str, dict[str, float]]:
    """CPU time of a plain forward and of calibrations, by images and setting."""
    make, size = NETWORKS[name]
    torch.manual_seed(0)
    net = make().eval()
    found: dict[str, dict[str, float]] = {}
    for count in IMAGES[name]:
        x = torch.randn(count, 3, size, size)
        net(x)
        here = found[str(count)] = {"plain": seconds(lambda: net(x), 2 * repeats)}  # noqa: B023
        for setting in settings:
            overrides = SETTINGS[setting]
            model, _ = to_crossbar(net, chips.load(BASE[0], [BASE[1], *overrides]), example=x[:1])
            here[setting] = seconds(lambda: calibrate(model, [x]), repeats)  # noqa: B023
            ratio = here[setting] / here["plain"]
            say(f"{name:9s} {count:3d} images {setting:12s} {here[setting]:7.2f} s {ratio:6.1f} x")
        here["plain"] = min(here["plain"], seconds(lambda: net(x), 2 * repeats))  # noqa: B023
    return found


def peak_memory() -> dict[str, float]:
    """Peak memory of twelve linear layers of GPT-2's shapes, above what is used before, over their weights' size."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peaks)


def _peaks() -> dict[str, float]:
    torch.set_num_threads(1)

    def used() -> float:
        # A child's ru_maxrss begins with its parent's; Linux's own peak does not.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) / 1024

    shapes = [(768, 2304), (768, 768), (768, 3072), (3072, 768)] * 3
    layers: list[nn.Module] = []
    for rows, cols in shapes:
        layers += [_Width(rows), nn.Linear(rows, cols)]
    net = nn.Sequential(*layers)
    weights = sum(p.numel() for p in net.parameters()) * 4 / 2**20
    x = torch.randn(64, 768)
    with torch.no_grad():
        net(x)
        before = used()
        model, _ = to_crossbar(net, chips.load(*BASE[:1], [BASE[1]]), example=x[:1])
        converted = used()
        calibrate(model, [x])
    return {
        "weights_MB": weights,
        "converted": (converted - before) / weights,
        "calibrated": (used() - before) / weights,
    }


class _Width(nn.Module):
    """As many features as the next layer takes: the first ones, or all of them again and again."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(1, -(-self.width // x.shape[1]))[:, : self.width]


def accuracy(say: Callable[..., None]) -> dict[str, dict[str, Any]]:
    """Accuracy of kept networks, and squared error of their answers over the variance of the plain ones."""
    data, found = load("cifar10"), dict[str, dict[str, Any]]()
    for run, tested in KEPT.items():
        net = load_run(Path(__file__).parents[1] / "experiments" / "networks" / run).model.eval()
        batches = list(data.batches("test", batch_size=100, limit=tested))
        labels = torch.cat([y for _, y in batches])
        plain = torch.cat([net(x) for x, _ in batches])
        training = torch.cat([x for x, _ in data.batches("train", batch_size=64, limit=SETS * SET_IMAGES)])
        for bits, granularity in POINTS:
            chip = chips.load(BASE[0], [BASE[1], f"adc.bits={bits}", f"adc.granularity={granularity}"])
            percent: list[float] = []
            errors: list[float] = []
            for images in training.split(SET_IMAGES):
                model, _ = to_crossbar(net, chip, example=images[:1])
                calibrate(model, [images])
                y = torch.cat([model(x) for x, _ in batches])
                percent.append(100 * float((y.argmax(1) == labels).float().mean()))
                errors.append(float((y - plain).square().mean() / plain.var()))
            found[f"{run}/{granularity}/{bits}"] = {"accuracy": percent, "error": errors}
            say(run, bits, granularity, [round(a, 1) for a in percent], [round(e, 4) for e in errors])
    return found


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json_option(parser)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)

    def say(*parts: object) -> None:
        if options.json != "-":
            print(*parts, flush=True)

    times = {name: time_network(name, options.settings, options.repeats, say) for name in options.networks}
    result: dict[str, Any] = {
        "cpu_seconds": times,
        "ratios": {
            f"{name}/{count}/{setting}": here[setting] / here["plain"]
            for name, counts in times.items()
            for count, here in counts.items()
            for setting in options.settings
        },
        "peak_memory_over_weights": peak_memory(),
        "accuracy": accuracy(say) if options.accuracy else {},
        "sets": SETS,
        "images_of_a_set": SET_IMAGES,
        "test_images": KEPT,
        "hardware": describe(),
    }
    if options.before is not None:
        result["before"] = json.loads(options.before.read_text())
    write(result, options.json)


if __name__ == "__main__":
    main()
