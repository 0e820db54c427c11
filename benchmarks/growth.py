"""Claim: time and memory grow no faster than a network: with its weights, or with its multiply-accumulates.

CPU time on one thread of each thing that is done to a network on rram-22nm with programming error, from ResNet-20 to
ViT-B/16, and for ResNet-18 over image sizes; every network in a process of its own, whose peak memory is noted after
each. The exponent is the slope of a line fitted to the logarithms: 1 is proportional to. It is fitted over the networks
against weights (converting, calibrating, programming, cost) or multiply-accumulates (the forward pass), and over image
sizes against multiply-accumulates. What is measured for one image includes what does not depend on images.

    python benchmarks/growth.py [--json [FILE]] [--networks resnet20 ... vit-b16] [--sizes 64 128 224]
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from calibration import VitB16, resnet18
from output import add_json_option, write
from torch import nn

from bitline import chip as chips
from bitline import nn as on_chip
from bitline.cost.model import price
from bitline.models import build
from bitline.mvm import native
from bitline.train.hardware import describe

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet20": (lambda: build("resnet20"), 32),
    "resnet56": (lambda: build("resnet56"), 32),
    "vgg8": (lambda: build("vgg8"), 32),
    "vgg16": (lambda: build("vgg16"), 32),
    "resnet18": (resnet18, 224),
    "vit-b16": (VitB16, 224),
}
OVERRIDES = ("cell.programming.sigma=0.1",)
STEPS = {"convert": "weights", "calibrate": "weights", "program": "weights", "cost": "weights", "forward": "macs"}
"""what each is fitted against"""


@torch.no_grad()
def measure(name: str, size: int) -> dict[str, Any]:
    """CPU seconds and peak memory of all steps for one network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, x = NETWORKS[name][0]().eval(), torch.randn(1, 3, size, size)
    chip = chips.replace(chips.load("rram-22nm"), *OVERRIDES)
    weights = sum(p.numel() for p in net.parameters())
    seconds: dict[str, float] = {}
    peak: dict[str, float] = {"start": _peak()}

    def run(step: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = call()
        seconds[step] = round(time.process_time() - start, 4)
        peak[step] = _peak()
        return result

    def forward(seed: int) -> None:
        on_chip.program(model, seed)
        model(x)

    run("plain", lambda: (net(x), net(x)))
    seconds["plain"] /= 2
    model = run("convert", lambda: on_chip.to_crossbar(net, chip, example=x))[0]
    run("calibrate", lambda: on_chip.calibrate(model, [x]))
    placement = on_chip.placement(model)
    run("cost", lambda: price(placement))
    # A chip is written when it is first asked: what asking it again takes is not programming.
    run("first", lambda: forward(0))
    run("program_and_forward", lambda: forward(1))
    run("forward", lambda: model(x))
    seconds["program"] = round(max(0.0, seconds.pop("program_and_forward") - seconds["forward"]), 4)
    macs = sum(layer.matmul.macs for layer in placement.layers)
    return {"weights": weights, "macs": macs, "seconds": seconds, "peak_MB": peak}


def _peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def exponent(points: list[tuple[float, float]]) -> float:
    """Slope of the line through the logarithms of points, by least squares."""
    logs = [(math.log(x), math.log(max(y, 1e-6))) for x, y in points]
    mean = [sum(each) / len(logs) for each in zip(*logs, strict=True)]
    above = sum((x - mean[0]) * (y - mean[1]) for x, y in logs)
    return round(above / sum((x - mean[0]) ** 2 for x, _ in logs), 3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json_option(parser)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128, 224], help="of images for ResNet-18, pixels")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "SIZE"), help="measure this one and print its JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return
    say = (lambda *_: None) if options.json == "-" else lambda *parts: print(*parts, flush=True)

    def point(name: str, size: int) -> dict[str, Any]:
        command = [sys.executable, __file__, "--one", name, str(size)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        times = "  ".join(f"{step} {took:.2f}" for step, took in found["seconds"].items())
        size_of = f"{size:4d} px  {found['weights'] / 1e6:6.1f} M weights"
        say(f"{name:9s} {size_of}  {times} s  {found['peak_MB']['forward']} MB")
        return found

    networks = {name: point(name, NETWORKS[name][1]) for name in options.networks}
    sizes = {str(size): networks["resnet18"] if size == 224 else point("resnet18", size) for size in options.sizes}
    exponents = {
        f"{step} over {against}": exponent([(each[against], each["seconds"][step]) for each in networks.values()])
        for step, against in STEPS.items()
    }
    for step in ("calibrate", "forward"):
        points = [(each["macs"], each["seconds"][step]) for each in sizes.values()]
        exponents[f"resnet18: {step} over macs of an image"] = exponent(points)
    over = {name: each["peak_MB"]["forward"] - each["peak_MB"]["start"] for name, each in networks.items()}
    exponents["memory over weights"] = exponent([(networks[name]["weights"], most) for name, most in over.items()])
    for name, value in exponents.items():
        say(f"{name:45s} {value:6.2f}")
    result = {
        "exponents": exponents,
        "memory_over_weights": {
            name: round(most * 2**20 / (4 * networks[name]["weights"]), 2) for name, most in over.items()
        },
        "networks": networks,
        "resnet18_by_image_size": sizes,
        "path": native.chosen_path(),
        "hardware": describe(),
    }
    write(result, options.json)


if __name__ == "__main__":
    main()
