"""What a surrogate of a chip costs over the plain network, in evaluation and in training; the goal is 1.3.

CPU time on one thread, best of --repeats, of one batch through a network and of one optimizer step (forward, loss,
backward, SGD), in fp32 and in bf16 (autocast), channels last: plain; by the surrogate on rram-22nm (full range, 8-bit
ADC, programming error); and, in fp32, by the exact simulation. Evaluation has the errors of a programmed chip; training
draws those of another chip at every step. Measuring the statistics is told beside, as a share of the time of a plain
pass over 10,000 images.

    python benchmarks/surrogate.py [--json [FILE]] [--batch 64] [--networks vgg8 resnet20]
"""

import argparse
import time
from collections.abc import Callable

import torch
from output import add_before_option, add_json_option, write
from torch import Tensor, nn
from torch.nn import functional as F

from bitline import chip as chips
from bitline import nn as on_chip
from bitline.compress import fold_norms
from bitline.models import build
from bitline.mvm import native
from bitline.surrogate import answering, attach, detach, measure
from bitline.train.hardware import describe, keep_freed_memory

CHIP = ("adc.policy=full", "adc.bits=8", "cell.programming.sigma=0.1")
MEASURED = 64
"""images that statistics are measured on"""


def seconds(run: Callable[[int], object], repeats: int) -> float:
    """Least CPU time of a call after a warm-up."""
    run(0)
    times: list[float] = []
    for index in range(repeats):
        start = time.process_time()
        run(index + 1)
        times.append(time.process_time() - start)
    return min(times)


def in_turn(one: Callable[[int], object], other: Callable[[int], object], repeats: int) -> tuple[float, float]:
    """Least CPU time of each, called in turn, so that what else runs on the machine meets both."""
    times = [(seconds(one, 1), seconds(other, 1)) for _ in range(repeats)]
    return min(a for a, _ in times), min(b for _, b in times)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, *, half: bool) -> None:
    """One step of training."""
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = F.cross_entropy(model(x).float(), y)
    loss.backward()
    optimizer.step()


def forward(model: nn.Module, x: Tensor, *, half: bool) -> Tensor:
    """One pass without gradients."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        return model(x)


def measured(name: str, batch: int, repeats: int) -> dict[str, float]:
    """CPU time of everything, s."""
    x = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,))
    # Norms folded, as the converted network has them: the same arithmetic, but for what the chip adds.
    plain = fold_norms(build(name).eval(), x[:2]).model.to(memory_format=torch.channels_last)
    chip = chips.load("rram-22nm", CHIP)
    model, _ = on_chip.to_crossbar(build(name).eval(), chip, example=x[:1])
    on_chip.calibrate(model, [x[:8]])
    model = model.to(memory_format=torch.channels_last)
    on_chip.program(model, 1)
    times: dict[str, float] = {}
    images = torch.randn(MEASURED, 3, 32, 32)
    times["measure"] = seconds(lambda _: measure(model, [images], seed=1), 1)
    surrogate = measure(model, [images], seed=1)
    times["evaluation/exact"] = seconds(lambda _: forward(model.eval(), x, half=False), 2)
    halves = ((False, "fp32"), (True, "bf16"))
    with answering(model, surrogate):
        for half, word in halves:
            plain_, ours = in_turn(
                lambda _, half=half: forward(plain.eval(), x, half=half),
                lambda _, half=half: forward(model.eval(), x, half=half),
                repeats,
            )
            times |= {f"evaluation/plain/{word}": plain_, f"evaluation/surrogate/{word}": ours}
    optimizers = [torch.optim.SGD(each.parameters(), 1e-4) for each in (plain, model)]
    attach(model, surrogate, drawn=True)
    for half, word in halves:

        def train(index: int, half: bool = half) -> None:
            on_chip.program(model, index)
            step(model.train(), optimizers[1], x, y, half=half)

        run = lambda _, half=half: step(plain.train(), optimizers[0], x, y, half=half)  # noqa: E731
        plain_, ours = in_turn(run, train, repeats)
        times |= {f"training/plain/{word}": plain_, f"training/surrogate/{word}": ours}
    detach(model)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json_option(parser)
    add_before_option(parser)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", nargs="+", default=["vgg8", "resnet20"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    say = (lambda *_: None) if options.json == "-" else lambda *parts: print(*parts, flush=True)
    ratios: dict[str, float] = {}
    milliseconds: dict[str, float] = {}
    for name in options.networks:
        times = measured(name, options.batch, options.repeats)
        milliseconds |= {f"{name}/{key}": round(value * 1e3, 1) for key, value in times.items()}
        for what in ("evaluation", "training"):
            for word in ("fp32", "bf16"):
                plain = times[f"{what}/plain/{word}"]
                ratios[f"{name}/{what}/{word}"] = round(times[f"{what}/surrogate/{word}"] / plain, 3)
        plain = times["evaluation/plain/fp32"]
        ratios[f"{name}/evaluation/exact"] = round(times["evaluation/exact"] / plain, 3)
        ratios[f"{name}/measure"] = round(times["measure"] / (plain * 10_000 / options.batch), 3)
        for key in [key for key in ratios if key.startswith(f"{name}/")]:
            say(f"{key:32s} {ratios[key]:8.3f} x plain")
    result = {
        "ratios": ratios,
        "milliseconds": milliseconds,
        "batch": options.batch,
        "measured_on": MEASURED,
        "chip": ["rram-22nm", *CHIP],
        "path": native.chosen_path(),
        "hardware": describe(),
    }
    write(result, options.json, options.before)


if __name__ == "__main__":
    main()
