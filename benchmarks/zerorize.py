"""A step of a zero epoch over a plain step of the same network, CPU time on one thread.

Batches are as large as the recipe's. Rounds of plain steps and of steps of a zero epoch take turns; none is shorter
than a chip is kept, so that programming counts. The ratio is the median of the rounds. On the preset as it is, and with
each weight in a pair of cells and kernels remapped, as experiments/crimp.py has them.

python benchmarks/zerorize.py [--model resnet20] [--width 1.0] [--batch-size 128]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from bitline import chip as chips
from bitline.models import build
from bitline.nn import program
from bitline.nn.view import ChipView
from bitline.recipes import RecipeConfig, checked
from bitline.recipes.crimp import chip_of
from bitline.train.hardware import describe

PAIRS = ("weights.encoding=pair", "mitigation.remap=true")
RESULT = Path(__file__).parent / "results" / "zerorize.json"
SPAN = 8
"""steps of a round, and between two chips where they are programmed less often"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=RecipeConfig.model_fields["batch_size"].default)
    parser.add_argument("--rounds", type=int, default=3, help=f"of {SPAN} plain and {SPAN} other steps")
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build(options.model, num_classes=10, in_channels=3, image_size=32, width=options.width).train()
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = torch.randn(options.batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (options.batch_size,))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    recipe = checked(run="unused", recipe="crimp")
    preset, pairs = (chip_of(chips.load("crimp-32nm", overrides), recipe) for overrides in ((), PAIRS))

    def step(answer: nn.Module) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(answer(images), labels).backward()
        optimizer.step()

    def seconds(run: Callable[[int], None], numbers: range) -> float:
        start = time.process_time()
        for number in numbers:
            run(number)
        return (time.process_time() - start) / len(numbers)

    def zero_step(view: ChipView, every: int) -> Callable[[int], None]:
        def run(number: int) -> None:
            if number % every == 0:
                program(view.on_chip, number)
            step(view)

        return run

    step(network)
    ratios: dict[str, float] = {}
    plain: list[float] = []
    found: dict[str, list[float]] = {}
    cases = (
        ("linear", preset, True, 1), (f"linear/chip_every_{SPAN}", preset, True, SPAN),
        ("linear/pairs", pairs, True, 1), ("linear/pairs/chip_every_4", pairs, True, 4), ("direct", preset, False, 1),
    )  # fmt: skip
    for name, chip, linear, every in cases:
        view = ChipView(network, chip, images[:8], linear=linear, recentred=True)
        view.calibrate([images])
        zero_step(view, every)(0)
        for start in range(0, SPAN * options.rounds, SPAN):
            numbers = range(start, start + SPAN)
            before, after = seconds(lambda _: step(network), numbers), seconds(zero_step(view, every), numbers)
            plain.append(before)
            found.setdefault(name, []).append(after / before)
        ratios[f"{options.model}/{name}"] = statistics.median(found[name])
        each = ", ".join(f"{ratio:.2f}" for ratio in found[name])
        print(f"{name}: {each} x a plain step of {statistics.median(plain):.2f} s", flush=True)
    content = {
        "ratios": ratios, "rounds": found, "plain_s": statistics.median(plain), "batch": options.batch_size,
        "hardware": describe(),
    }  # fmt: skip
    options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
