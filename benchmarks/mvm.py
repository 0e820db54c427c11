"""Claim: the exact bit-serial product costs a small multiple of the plain network, in CPU time on one thread.

Ratios of one run: forward of VGG-8 on crossbars over forward in plain fp32 (channels last), same images. Chip:
rram-22nm, 8-bit inputs and weights, 2-bit cells, 128 x 128. Random weights: the work does not depend on them.

    python benchmarks/mvm.py [--json] [--images 4] [--width 1.0]
"""

import argparse
import gc
import json
import resource
import statistics
import time
from collections.abc import Callable

import torch

from bitline import chip as chips
from bitline import nn as on_chip
from bitline.models import build

SETTINGS = {
    "full": ("adc.policy=full", "cell.programming={kind='ideal'}"),
    "calibrated": ("cell.programming={kind='ideal'}",),
    "programmed": ("cell.programming.sigma=0.1",),
    "read_noise": ("cell.programming.sigma=0.1", "cell.read_noise={kind='absolute', sigma='0.05 uS'}"),
    "lossless": ("adc.policy=lossless", "cell.programming={kind='ideal'}"),
}


def cpu_seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the median CPU time of a run after a warm-up."""
    run()
    times: list[float] = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--only", choices=SETTINGS, nargs="*", default=list(SETTINGS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build("vgg8", width=options.width).eval()
    images = torch.randn(options.images, 3, 32, 32)
    base = chips.load("rram-22nm")
    plain_model, plain_images = (
        model.to(memory_format=torch.channels_last),
        images.to(memory_format=torch.channels_last),
    )
    plain = cpu_seconds(lambda: plain_model(plain_images), 15)
    converted, _ = on_chip.to_crossbar(model.to(memory_format=torch.contiguous_format), base, example=images[:1])
    on_chip.calibrate(converted, [images])
    ratios: dict[str, float] = {}
    for name in options.only:
        gc.collect()
        on_chip.set_chip(converted, chips.replace(base, *SETTINGS[name]))
        on_chip.program(converted, 0 if name in ("programmed", "read_noise") else on_chip.IDEAL)
        seconds = cpu_seconds(lambda: converted(images), 2)
        ratios[f"vgg8/{name}"] = round(seconds / plain, 3)
        if not options.json:
            print(f"{name:12s} {seconds / options.images * 1e3:9.1f} ms an image   {seconds / plain:7.2f} x plain fp32")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if options.json:
        plain_ms = round(plain / options.images * 1e3, 3)
        print(json.dumps({"ratios": ratios, "peak_MB": round(peak, 1), "plain_fp32_ms_per_image": plain_ms}))
    else:
        print(f"{'plain fp32':12s} {plain / options.images * 1e3:9.1f} ms an image;  peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
