"""Claim: a noise-aware training step with the whole chip in its forward pass costs a small multiple of a plain step.

CPU time of one optimizer step of VGG-8 (forward, loss, backward, SGD) on one thread, in one run: plain fp32 and plain
bf16 (autocast), channels last; and on the chip rram-22nm (full range, 5-bit ADC): with ideal cells; with programming
error, drawn anew at every step or every eighth; two row tiles of each layer converted; error with read noise. The
chip's forward is bit-serial and tile-exact; its gradient is that of the quantized network, in the precision that
recipes train in here. Freed memory is kept for the next step in all of them, as bitline does when it trains.

    python benchmarks/training.py [--json [FILE]] [--batch 64] [--width 1.0]
"""

import argparse
import resource
import time
from collections.abc import Callable

import torch
from output import add_before_option, add_json_option, write
from torch import Tensor, nn
from torch.nn import functional as F

from bitline import chip as chips
from bitline import nn as on_chip
from bitline.models import build
from bitline.mvm import native
from bitline.train.hardware import best_precision, describe, keep_freed_memory

CPU = torch.device("cpu")
FULL = "adc.policy=full"
SETTINGS = {
    "training_step": ((FULL, "cell.programming.sigma=0.1"), 1),
    "training_step/chip_every_8": ((FULL, "cell.programming.sigma=0.1"), 8),
    "training_step/two_tiles": ((FULL, "cell.programming.sigma=0.1"), 1),
    "training_step/ideal_cells": ((FULL, "cell.programming={kind='ideal'}"), 0),
    "training_step/read_noise": (
        (FULL, "cell.programming.sigma=0.1", "cell.read_noise={kind='absolute', sigma='0.05 uS'}"),
        1,
    ),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, *, half: bool = False) -> None:
    """One step of training."""
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()


def seconds_a_step(run: Callable[[int], None], steps: int) -> float:
    """Mean CPU time of a step after a warm-up."""
    run(0)
    start = time.process_time()
    for index in range(steps):
        run(index + 1)
    return (time.process_time() - start) / steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json_option(parser)
    add_before_option(parser)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    x, y = torch.randn(options.batch, 3, 32, 32), torch.randint(0, 10, (options.batch,))
    last = x.to(memory_format=torch.channels_last)
    say = (lambda *_: None) if options.json == "-" else lambda *parts: print(*parts, flush=True)

    model = build("vgg8", width=options.width).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    plain = seconds_a_step(lambda _: step(model, optimizer, last, y), options.steps)
    half = seconds_a_step(lambda _: step(model, optimizer, last, y, half=True), options.steps)
    milliseconds = {"plain": round(plain * 1e3, 1), "plain_bf16": round(half * 1e3, 1)}
    ratios = {"vgg8/training_step/plain_bf16": round(half / plain, 3)}
    say(f"plain fp32 {plain * 1e3:.0f} ms, bf16 {half * 1e3:.0f} ms a step of {options.batch} images")

    base = chips.load("rram-22nm")
    for name, (overrides, every) in SETTINGS.items():
        chip = chips.replace(base, *overrides)
        noisy, _ = on_chip.to_crossbar(build("vgg8", width=options.width).eval(), chip, example=x[:1])
        on_chip.calibrate(noisy, [x[:4]])
        noisy.train()
        for layer in on_chip.crossbar_layers(noisy).values():
            layer.tiles_a_step = 2 if name.endswith("two_tiles") else None
        optimizer = torch.optim.SGD(noisy.parameters(), 1e-3)

        def train(index: int, noisy: nn.Module = noisy, every: int = every) -> None:
            if every and index % every == 0:
                on_chip.program(noisy, index)
            step(noisy, optimizer, x, y, half=best_precision(CPU) == "bf16-mixed")  # noqa: B023

        seconds = seconds_a_step(train, max(options.steps, every))
        ratios[f"vgg8/{name}"] = round(seconds / plain, 3)
        milliseconds[name] = round(seconds * 1e3, 1)
        say(f"{name:30s} {seconds * 1e3:9.0f} ms   {seconds / plain:6.2f} x plain fp32")
    result = {
        "ratios": ratios,
        "milliseconds_per_step": milliseconds,
        "precision": best_precision(CPU),
        "batch": options.batch,
        "width": options.width,
        "peak_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "path": native.chosen_path(),
        "hardware": describe(),
    }
    write(result, options.json, options.before)


if __name__ == "__main__":
    main()
