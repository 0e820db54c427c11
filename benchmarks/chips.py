"""Claim: many programmed chips cost time in proportion to their number, and no more memory than one.

VGG-8 on rram-22nm with programming error, each chip programmed anew and evaluated on the same images, on one thread.
CPU time is noted after 1, 2, 4, ... chips, with the peak memory of the process so far.

    python benchmarks/chips.py [--json [FILE]] [--chips 64] [--images 1000] [--batch-size 50] [--width 1.0]
"""

import argparse
import resource
import time
from typing import Any

import torch
from output import add_json_option, write

from bitline import chip as chips
from bitline import nn as on_chip
from bitline.models import build
from bitline.mvm import native
from bitline.train.hardware import describe


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json_option(parser)
    parser.add_argument("--chips", type=int, default=64)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--width", type=float, default=1.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    say = (lambda *_: None) if options.json == "-" else lambda *parts: print(*parts, flush=True)
    images = torch.randn(options.images, 3, 32, 32)
    chip = chips.replace(chips.load("rram-22nm"), "adc.policy=full", "cell.programming.sigma=0.1")
    model, _ = on_chip.to_crossbar(build("vgg8", width=options.width).eval(), chip, example=images[:1])
    on_chip.calibrate(model, [images[:4]])
    start = time.process_time()
    points: list[dict[str, Any]] = []
    for seed in range(options.chips):
        on_chip.program(model, seed)
        for batch in images.split(options.batch_size):
            model(batch)
        if (seed + 1) & seed == 0:
            seconds = time.process_time() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            points.append({"chips": seed + 1, "cpu_seconds": round(seconds, 2), "peak_MB": round(peak, 1)})
            say(f"{seed + 1:4d} chips  {seconds:9.1f} s  {seconds / (seed + 1):8.2f} s a chip  peak {peak:7.0f} MB")
    result = {
        "points": points,
        "images": options.images,
        "batch_size": options.batch_size,
        "width": options.width,
        "path": native.chosen_path(),
        "hardware": describe(),
    }
    write(result, options.json)


if __name__ == "__main__":
    main()
