"""Claim: the exact bit-serial product costs a small multiple of the plain network, in CPU time on one thread.

Ratios of one run: forward of a network on crossbars over its forward in plain fp32 (the faster of contiguous and
channels last), same images. Chip: rram-22nm, 8-bit inputs and weights, 2-bit cells, 128 x 128, 5-bit ADC. Weights are
as initialized and inputs normal: the work depends on them by digits that are zero only, which shortcuts skip.

`naive` is the formulation other simulators use: one convolution per input bit, weight slice and row tile, in plain
torch; its results are compared. The roofline is what this machine's int8 and bf16 matrix products reach. Its share is
that of an int8 product of every digit and slice; look-ups of several rows at a time can exceed it.

    python benchmarks/mvm.py [--json [FILE]] [--images 16] [--networks vgg8 resnet20 vit-tiny]
"""

import argparse
import contextlib
import gc
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from output import add_before_option, write
from torch import Tensor, nn
from torch.nn import functional as F

from bitline import chip as chips
from bitline import nn as on_chip
from bitline.models import build
from bitline.mvm import native
from bitline.nn.on import crossbar_layers
from bitline.train.hardware import describe

IDEAL = "cell.programming={kind='ideal'}"
SETTINGS = {
    "full": ("adc.policy=full", IDEAL),
    "calibrated": (IDEAL,),
    "programmed": ("adc.policy=full", "cell.programming.sigma=0.1"),
    "programmed_calibrated": ("cell.programming.sigma=0.1",),
    "read_noise": (
        "adc.policy=full",
        "cell.programming.sigma=0.1",
        "cell.read_noise={kind='absolute', sigma='0.05 uS'}",
    ),
    "lossless": ("adc.policy=lossless", IDEAL),
}
DIGITS_TIMES_SLICES = 8 * 4


def vit_tiny() -> nn.Module:
    """The linear layers of ViT-Ti/16 (Touvron et al., ICML 2021): 12 blocks of width 192 on 197 tokens."""
    shapes = [(192, 576), (192, 192), (192, 768), (768, 192)]
    layers: list[nn.Module] = []
    for _ in range(12):
        width = 192
        for rows, cols in shapes:
            layers += [_Width(rows), nn.Linear(rows, cols), nn.GELU()]
            width = cols
        assert width == 192
    return nn.Sequential(*layers)


class _Width(nn.Module):
    """Keep the first features of the last axis: attention turns 576 into 192."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.width]


def network(name: str, images: int) -> tuple[nn.Module, Tensor]:
    """Return a network and inputs for it."""
    if name == "vit-tiny":
        return vit_tiny().eval(), torch.randn(images, 197, 192)
    return build(name).eval(), torch.randn(images, 3, 32, 32)


def cpu_seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the least CPU time of a run after a warm-up."""
    run()
    return min(_timed(run, time.process_time) for _ in range(repeats))


def _timed(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def plain_seconds(model: nn.Module, x: Tensor) -> float:
    """CPU time of the plain network, in the faster memory format."""
    times = [cpu_seconds(lambda: model(x), 7)]
    if x.dim() == 4:
        model = model.to(memory_format=torch.channels_last)
        other = x.to(memory_format=torch.channels_last)
        times.append(cpu_seconds(lambda: model(other), 7))
        model.to(memory_format=torch.contiguous_format)
    return min(times)


@contextlib.contextmanager
def path(name: str | None) -> Iterator[None]:
    """Force a path."""
    before = os.environ.pop(native.VARIABLE, None)
    if name:
        os.environ[native.VARIABLE] = name
    try:
        yield
    finally:
        os.environ.pop(native.VARIABLE, None)
        if before:
            os.environ[native.VARIABLE] = before


class Naive:
    """What one convolution or linear layer costs as a sum of plain products."""

    def __init__(self, layer: Any) -> None:
        crossbars = layer.crossbars(layer.chip, on_chip.IDEAL)
        self.layer, self.product = layer, crossbars.product
        scale = layer.read(torch.empty(0), layer.chip, on_chip.IDEAL).scale
        self.lsb, self.high = float(scale.lsb), float(scale.high)
        levels = crossbars.levels[0, 0].float()  # slices, rows, columns
        shape = (levels.shape[-1], *layer.weight.shape[1:])
        self.tiles: list[tuple[int, int, list[Tensor]]] = []
        per_channel = layer.weight[0, 0].numel()
        bounds = self.product.placement.row_bounds
        for first, last in pairwise(bounds):
            mine = torch.zeros_like(levels)
            mine[:, first:last] = levels[:, first:last]
            a, b = first // per_channel, -(-last // per_channel)
            kernels = [w.T.reshape(shape)[:, a:b].contiguous() for w in mine]
            self.tiles.append((a, b, kernels))
        self.ones = torch.ones(1, *layer.weight.shape[1:])

    def __call__(self, q: Tensor) -> Tensor:
        """Multiply integer inputs."""
        total: Any = 0.0
        for p, digit_weight in enumerate(self.product.digit_weights):
            plane = ((q >> p) & 1).float()
            for a, b, kernels in self.tiles:
                for slice_weight, kernel in zip(self.product.slice_weights, kernels, strict=True):
                    code = (self._plain(plane[:, a:b], kernel) / self.lsb).round_().clamp_(0, self.high)
                    total = total + code * (self.lsb * digit_weight * slice_weight)
        return total - self.product.digital_offset * self._plain(q.float(), self.ones)

    def _plain(self, x: Tensor, w: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, w)
        return F.conv2d(x, w, None, self.layer.stride, self.layer.padding)


def naive_seconds(converted: nn.Module, x: Tensor) -> float:
    """CPU time of all layers in the naive formulation; checks that it gives the same numbers."""
    seen: list[tuple[Any, Tensor]] = []
    handles = [
        layer.register_forward_pre_hook(lambda layer, args: seen.append((layer, args[0])))
        for layer in crossbar_layers(converted).values()
    ]
    converted(x)
    for handle in handles:
        handle.remove()
    seconds = 0.0
    for layer, value in seen:
        naive, q = Naive(layer), layer.integers(value)
        start = time.process_time()
        y = naive(q)
        seconds += time.process_time() - start
        wanted = layer.real_product(layer.multiply(q, layer.read(q, layer.chip, on_chip.IDEAL)), value)
        factor = (
            float(layer.ranges.input_scale) * layer.cells.weights(layer).scale(layer.chip.weights).float().flatten()
        )
        got = y * (factor if isinstance(layer, nn.Linear) else factor.view(-1, 1, 1))
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    return seconds


def roofline() -> dict[str, float]:
    """Operations per second of this machine's matrix products on one thread, in units of 10^9."""
    a8, b8 = torch.randint(-9, 9, (2, 2048, 2048), dtype=torch.int8).unbind()
    a, b = torch.randn(2, 1536, 1536).unbind()
    a16, b16 = a.bfloat16(), b.bfloat16()
    products: dict[str, tuple[Callable[[], object], int]] = {
        "int8": (lambda: torch._int_mm(a8, b8), 2048),
        "bf16": (lambda: a16 @ b16, 1536),
        "fp32": (lambda: a @ b, 1536),
    }
    return {name: round(2 * n**3 / cpu_seconds(run, 5) / 1e9, 1) for name, (run, n) in products.items()}


def place(model: nn.Module, x: Tensor) -> nn.Module:
    """Put a network on the chip and calibrate it."""
    converted, _ = on_chip.to_crossbar(model, chips.load("rram-22nm"), example=x[:1])
    on_chip.calibrate(converted, [x[:4]])
    return converted


def move(converted: nn.Module, setting: str) -> None:
    """Go to the chip of a setting."""
    gc.collect()
    on_chip.set_chip(converted, chips.replace(chips.load("rram-22nm"), *SETTINGS[setting]))
    on_chip.program(converted, on_chip.IDEAL if IDEAL in SETTINGS[setting] else 0)


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON to a file, or to standard output"
    )
    add_before_option(parser)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--naive-images", type=int, default=2)
    parser.add_argument("--networks", nargs="+", default=["vgg8", "resnet20", "vit-tiny"])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--no-paths", action="store_true", help="the fastest path only")
    options = parser.parse_args()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    say = (lambda *_: None) if options.json == "-" else lambda *parts: print(*parts, flush=True)
    ratios: dict[str, float] = {}
    milliseconds: dict[str, float] = {}
    limits = roofline()
    say("roofline, 10^9 operations a second on one thread: " + ", ".join(f"{k} {v:g}" for k, v in limits.items()))
    rates: dict[str, float] = {}
    peak = 0.0

    def note(key: str, seconds: float, images: int, plain: float) -> None:
        milliseconds[key] = round(seconds / images * 1e3, 3)
        ratios[key] = round(seconds / images / plain, 3)
        say(f"{key:34s} {milliseconds[key]:9.1f} ms an image   {ratios[key]:7.2f} x plain fp32")

    for name in options.networks:
        model, x = network(name, options.images)
        plain = plain_seconds(model, x) / options.images
        milliseconds[f"{name}/plain"] = round(plain * 1e3, 3)
        say(f"{name + '/plain':34s} {plain * 1e3:9.1f} ms an image")
        with path(None):
            converted = place(model, x)
            macs = sum(p.matmul.macs for p in on_chip.placement(converted).layers)
            for setting in options.settings:
                move(converted, setting)
                seconds = cpu_seconds(lambda: converted(x), 3)  # noqa: B023
                note(f"{name}/{setting}", seconds, options.images, plain)
                if setting == "full":
                    rate = 2 * macs * DIGITS_TIMES_SLICES * options.images / seconds / 1e9
                    rates[name] = round(rate, 1)
                    say(f"{'':34s} {rate:9.0f} x 10^9 operations a second, {rate / limits['int8']:.0%} of int8")
        peak = max(peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        if name == "vgg8" and not options.no_paths:
            move(converted, "full")
            for forced in [*native.paths(), native.TENSOR]:
                few = x[: max(2, options.images // 4)] if forced == native.TENSOR else x
                with path(forced):
                    seconds = cpu_seconds(lambda: converted(few), 2)  # noqa: B023
                note(f"{name}/full/{forced}", seconds, len(few), plain)
            note(f"{name}/naive", naive_seconds(converted, x[: options.naive_images]), options.naive_images, plain)
            torch.set_num_threads(threads)
            wall = {"plain": model.to(memory_format=torch.channels_last), "full": converted}
            for kind, run in wall.items():
                inputs = x.to(memory_format=torch.channels_last) if kind == "plain" else x
                run(inputs)
                seconds = statistics.median(_timed(lambda: run(inputs), time.perf_counter) for _ in range(5))  # noqa: B023
                milliseconds[f"{name}/{kind}/wall_all_threads"] = round(seconds / options.images * 1e3, 3)
                say(
                    f"{f'{name}/{kind}, wall, {threads} threads':34s} {seconds / options.images * 1e3:9.1f} ms an image"
                )
            torch.set_num_threads(1)
    say(f"peak memory {peak:.0f} MB")
    result = {
        "ratios": ratios,
        "milliseconds_per_image": milliseconds,
        "roofline": {
            **{f"{k}_gops": v for k, v in limits.items()},
            "full_gops": rates,
            "share_of_int8": {k: round(v / limits["int8"], 3) for k, v in rates.items()},
        },
        "peak_MB": round(peak, 1),
        "images": options.images,
        "path": native.chosen_path(),
        "hardware": describe(),
    }
    write(result, options.json, options.before)


if __name__ == "__main__":
    main()
