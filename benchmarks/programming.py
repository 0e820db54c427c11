"""Claim: a chip is written in seconds, whatever is done about its faults, and one seed writes the same cells as ever.

VGG-16 for CIFAR-10 (14.7 million weights of 8 bits, random) on rram-22nm, one thread. CPU time of drawing all cells of
a chip, for the first one of a process, which also makes the tables that depend on the cell and the encoding alone, and
for the next ones, best of several; each setting in a process of its own. `digest` is that of the cells, so that two
versions can be compared. Memory: linear layers of the shapes of GPT-2, the peak of the process after each step, less
what it had with the network alone, over the network's weights.

With --before, a file that this script wrote in another version of the project stands beside.

    python benchmarks/programming.py [--json [FILE]] [--before FILE] [--chips 3] [--width 1.0] [--blocks 3]
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from output import add_json_option, write
from torch import nn

from bitline import chip as chips
from bitline import nn as on_chip
from bitline.models import build
from bitline.train.hardware import describe

FAULTS = "cell.faults={stuck_off=0.0904,stuck_on=0.0175}"
EVERYTHING = [f"mitigation.{key}" for key in ("readback=true", "rewrites=2", "remap=true", "flip=true")]
SETTINGS = {
    "programming error": [],
    "and faults": [FAULTS],
    "and readback, 2 rewrites, remap, flip": [FAULTS, *EVERYTHING],
    "pairs of cells: programming error and faults": [FAULTS, "weights.encoding=pair"],
    "pairs of cells: and readback, 2 rewrites, remap, flip": [FAULTS, "weights.encoding=pair", *EVERYTHING],
}
WIDTH = 768
"""of GPT-2"""


@torch.no_grad()
def written(name: str, count: int, width: float) -> dict[str, Any]:
    """CPU seconds of writing chips, and a digest of the cells of the first."""
    torch.manual_seed(0)
    chip = chips.replace(chips.load("rram-22nm"), *SETTINGS[name])
    model, _ = on_chip.to_crossbar(build("vgg16", width=width).eval(), chip, example=torch.zeros(1, 3, 32, 32))
    layers = list(on_chip.crossbar_layers(model).values())
    digest, seconds = hashlib.sha256(), []
    for seed in range(count):
        start = time.process_time()
        for layer in layers:
            layer.crossbars(chip, seed)
        seconds.append(time.process_time() - start)
        for layer in layers if seed == 0 else ():
            digest.update(layer.crossbars(chip, seed).levels.numpy().tobytes())
    return {
        "first_cpu_s": round(seconds[0], 2),
        "next_cpu_s": round(min(seconds[1:]), 2),
        "weights": sum(layer.weight.numel() for layer in layers),
        "digest": digest.hexdigest()[:16],
    }


@torch.no_grad()
def memory(blocks: int) -> dict[str, float]:
    """Peak memory after each step over the weights."""
    torch.manual_seed(0)
    shapes = [(WIDTH, 3 * WIDTH), (WIDTH * 3, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)] * blocks
    network, x = nn.Sequential(*(nn.Linear(*shape) for shape in shapes)), torch.randn(4, 16, WIDTH)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    alone, peaks = _peak(), {"weights_MB": weights / 2**20}

    def note(step: str) -> None:
        peaks[step] = (_peak() - alone) / weights

    model = on_chip.to_crossbar(network, chips.load("rram-22nm"), example=x[:1]).model
    note("to_crossbar")
    on_chip.calibrate(model, [x])
    note("calibrate")
    for seed, step in enumerate(("first programmed forward", "second chip")):
        on_chip.program(model, seed)
        model(x)
        note(step)
    return {step: round(value, 2) for step, value in peaks.items()}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure each setting in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json_option(parser)
    parser.add_argument("--before", type=Path, help="what another version wrote")
    parser.add_argument("--chips", type=int, default=3, help="two or more")
    parser.add_argument("--width", type=float, default=1.0, help="of the VGG-16")
    parser.add_argument("--blocks", type=int, default=3, help="of GPT-2")
    parser.add_argument("--only", help="one measurement, to standard output")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only:
        only = (
            memory(options.blocks) if options.only == "memory" else written(options.only, options.chips, options.width)
        )
        print(json.dumps(only))
        return
    before = json.loads(options.before.read_text()) if options.before else {}
    result: dict[str, Any] = {"settings": {}, "hardware": describe()}
    arguments = [f"--{name}={getattr(options, name)}" for name in ("chips", "width", "blocks")]
    for name in (*SETTINGS, "memory"):
        command = [sys.executable, __file__, "--only", name, *arguments]
        point = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        old = before.get("memory") if name == "memory" else before.get("settings", {}).get(name)
        if old:
            point["before"] = old
            point.update({"same_cells": point["digest"] == old["digest"]} if "digest" in old else {})
        if name == "memory":
            result["memory"] = point
        else:
            result["settings"][name] = point
        if options.json != "-":
            print(name, point, flush=True)
    if before:
        result["before"] = f"the same script on this machine at an earlier version, from {options.before.name}"
    write(result, options.json)


if __name__ == "__main__":
    main()
