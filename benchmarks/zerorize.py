"""A step of a zero epoch over a plain step of the same network, CPU time on one thread.

python benchmarks/zerorize.py [--model resnet20] [--width 1.0] [--batch-size 64]
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from bitline import chip as chips
from bitline.models import build
from bitline.nn import program
from bitline.nn.view import ChipView
from bitline.recipes import checked
from bitline.recipes.crimp import chip_of
from bitline.train.hardware import describe

RESULT = Path(__file__).parent / "results" / "zerorize.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build(options.model, num_classes=10, in_channels=3, image_size=32, width=options.width).train()
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = torch.randn(options.batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (options.batch_size,))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    chip = chip_of(chips.load("crimp-32nm"), checked(run="unused", recipe="crimp"))

    def step(answer: nn.Module) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(answer(images), labels).backward()
        optimizer.step()

    def seconds(run: Callable[[int], None]) -> float:
        run(0)
        start = time.process_time()
        for number in range(1, options.steps + 1):
            run(number)
        return (time.process_time() - start) / options.steps

    def zero_step(view: ChipView, every: int) -> Callable[[int], None]:
        def run(number: int) -> None:
            if number % every == 0:
                program(view.on_chip, number)
            step(view)

        return run

    plain = seconds(lambda _: step(network))
    ratios: dict[str, float] = {}
    for name, linear, every in (("linear", True, 1), ("linear/chip_every_8", True, 8), ("direct", False, 1)):
        view = ChipView(network, chip, images[:8], linear=linear, recentred=True)
        view.calibrate([images])
        ratios[f"{options.model}/{name}"] = seconds(zero_step(view, every)) / plain
        print(f"{name}: {ratios[f'{options.model}/{name}']:.2f} x a plain step of {plain:.2f} s", flush=True)
    content = {"ratios": ratios, "plain_s": plain, "batch": options.batch_size, "hardware": describe()}
    options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
