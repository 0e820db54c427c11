"""Claim: products share the threads that PyTorch has: two are nearly twice as fast as one, and never slower.

Wall time of a network on rram-22nm (full range, 5-bit ADC) over threads and batch sizes, the least of several runs,
with nothing else running: a forward pass with ideal cells; with programming error; a chip programmed anew and asked
once; a step of training. A thread that PyTorch keeps waiting spins for a while: two pools of threads would compete.
With --before FILE, a result of the same benchmark at an earlier commit stands beside it.

    python benchmarks/threads.py [--json [FILE]] [--before FILE] [--networks lenet5 resnet20 vgg8] [--batches 1 8 64]
"""

import argparse
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from output import add_before_option, add_json_option, write
from torch.nn import functional as F

from bitline import chip as chips
from bitline import nn as on_chip
from bitline.models import build
from bitline.mvm import native
from bitline.train.hardware import describe

IDEAL = ("adc.policy=full", "cell.programming={kind='ideal'}")
ERROR = ("adc.policy=full", "cell.programming.sigma=0.1")


def seconds(run: Callable[[], object], least: float = 0.5) -> float:
    """Least wall time of a run, of at least three and as many as half a second holds."""
    run()
    best, spent, runs = float("inf"), 0.0, 0
    while runs < 3 or (spent < least and runs < 200):
        start = time.perf_counter()
        run()
        took = time.perf_counter() - start
        best, spent, runs = min(best, took), spent + took, runs + 1
    return best


def runs_of(name: str, batch: int) -> dict[str, Callable[[], object]]:
    """What is timed."""
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    ideal, _ = on_chip.to_crossbar(build(name).eval(), chips.replace(chips.load("rram-22nm"), *IDEAL), example=x[:1])
    erring, _ = on_chip.to_crossbar(build(name).eval(), chips.replace(chips.load("rram-22nm"), *ERROR), example=x[:1])
    for model in (ideal, erring):
        on_chip.calibrate(model, [x[:4]])
    on_chip.program(erring, 0)
    trained, _ = on_chip.to_crossbar(build(name).train(), chips.replace(chips.load("rram-22nm"), *IDEAL), example=x[:1])
    on_chip.calibrate(trained, [x[:4]])
    optimizer = torch.optim.SGD(trained.parameters(), 1e-3)

    def forward() -> None:
        with torch.no_grad():
            ideal(x)

    def programmed() -> None:
        with torch.no_grad():
            erring(x)

    seeds = itertools.count(1)  # a chip that was written already is not written again

    def new_chip() -> None:
        on_chip.program(erring, next(seeds))
        programmed()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(trained(x), y).backward()
        optimizer.step()

    runs: dict[str, Callable[[], object]] = {"forward": forward, "programmed": programmed, "new_chip": new_chip}
    return runs if batch == 1 else {**runs, "training_step": step}  # batch norm trains on more images than one


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json_option(parser)
    add_before_option(parser)
    parser.add_argument("--networks", nargs="+", default=["lenet5", "resnet20", "vgg8"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, os.cpu_count() or 1])
    options = parser.parse_args()
    torch.manual_seed(0)
    milliseconds: dict[str, dict[str, float]] = {}
    speedups: dict[str, float] = {}
    for name in options.networks:
        for batch in options.batches:
            torch.set_num_threads(1)
            for kind, run in runs_of(name, batch).items():
                key = f"{name}/{batch}/{kind}"
                times: dict[str, float] = {}
                for threads in options.threads:
                    torch.set_num_threads(threads)
                    times[str(threads)] = round(seconds(run) * 1e3, 3)
                milliseconds[key] = times
                one, *_, most = times.values()
                speedups[key] = round(one / most, 3)
                print(
                    f"{key:32s} " + "  ".join(f"{n}: {t:9.2f} ms" for n, t in times.items()) + f"  {one / most:5.2f} x"
                )
    result: dict[str, Any] = {
        "speedups": speedups,
        "milliseconds": milliseconds,
        "path": native.chosen_path(),
        "hardware": describe(),
    }
    write(result, options.json, options.before)


if __name__ == "__main__":
    main()
