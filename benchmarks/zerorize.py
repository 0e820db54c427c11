"""A step of a zero epoch over a plain step of the same network, CPU time on one thread.

Batches are as large as the recipe's. By default in the precision that training takes on this processor (bf16 where it
has that, but for direct simulation) and in 32 bits. Rounds of plain steps and of steps of a zero epoch take turns; none
is shorter than a chip is kept, so that programming counts. The ratio is the median of the rounds. On the preset as it
is, and with each weight in a pair of cells and kernels remapped, as experiments/crimp.py has them.

python benchmarks/zerorize.py [--model resnet20] [--width 1.0] [--batch-size 128]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from output import add_before_option, write
from torch import nn

from bitline import chip as chips
from bitline.models import build
from bitline.nn import program
from bitline.recipes import Recipe, checked
from bitline.recipes.crimp import chip_of
from bitline.train.chip_view import ChipView
from bitline.train.hardware import best_precision, describe

PAIRS = ("weights.encoding=pair", "mitigation.remap=true")
RESULT = Path(__file__).parent / "results" / "zerorize.json"
CPU = torch.device("cpu")
SPAN = 8
"""steps of a round, and between two chips where they are programmed less often"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=Recipe.model_fields["batch_size"].default)
    parser.add_argument("--precision", choices=("bf16-mixed", "32-true"), nargs="+")
    parser.add_argument("--rounds", type=int, default=3, help=f"of {SPAN} plain and {SPAN} other steps")
    parser.add_argument("--json", type=Path, default=RESULT)
    add_before_option(parser)
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

    precisions = options.precision or sorted({best_precision(CPU), "32-true"})

    def step(answer: nn.Module, precision: str) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = nn.functional.cross_entropy(answer(images), labels)
        loss.backward()
        optimizer.step()

    def seconds(run: Callable[[int], None], numbers: range) -> float:
        start = time.process_time()
        for number in numbers:
            run(number)
        return (time.process_time() - start) / len(numbers)

    def zero_step(view: ChipView, every: int, precision: str) -> Callable[[int], None]:
        def run(number: int) -> None:
            if number % every == 0:
                program(view.on_chip, number)
            step(view, precision)

        return run

    ratios: dict[str, float] = {}
    plain: dict[str, list[float]] = {precision: [] for precision in precisions}
    found: dict[str, list[float]] = {}
    cases = (
        ("linear", preset, True, 1),
        (f"linear/chip_every_{SPAN}", preset, True, SPAN),
        ("linear/pairs", pairs, True, 1),
        ("linear/pairs/chip_every_4", pairs, True, 4),
        ("direct", preset, False, 1),
    )
    for precision, (case, chip, linear, every) in product(precisions, cases):
        name = f"{options.model}/{precision}/{case}"
        view = ChipView(network, chip, images[:8], linear=linear, bias_correction=True)
        view.calibrate([images])
        zero = zero_step(view, every, precision if linear else "32-true")
        step(network, precision)
        zero(0)
        for start in range(0, SPAN * options.rounds, SPAN):
            numbers = range(start, start + SPAN)
            before = seconds(lambda _, precision=precision: step(network, precision), numbers)
            plain[precision].append(before)
            found.setdefault(name, []).append(seconds(zero, numbers) / before)
        ratios[name] = statistics.median(found[name])
        each = ", ".join(f"{ratio:.2f}" for ratio in found[name])
        print(f"{name}: {each} x a plain step of {statistics.median(plain[precision]):.2f} s", flush=True)
    content = {
        "ratios": ratios,
        "rounds": found,
        "plain_s": {key: statistics.median(steps) for key, steps in plain.items()},
        "batch": options.batch_size,
        "hardware": describe(),
    }
    write(content, str(options.json), options.before)


if __name__ == "__main__":
    main()
