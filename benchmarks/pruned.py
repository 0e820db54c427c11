"""Claim: a layer without 80 % of its crossbars is several times as fast as the whole one, on one thread of a CPU.

One 3 x 3 convolution of 128 channels on 16 x 16 positions, as in VGG-8: 9 row tiles x 4 column tiles of
128 x 32 weights, 29 of 36 of them zero. CPU time, best of several runs, the two layers in turn.
No data, no training, a minute.

    python benchmarks/pruned.py [--json [FILE]]
"""

import argparse
import time
from typing import Any

import torch
from output import add_json_option, write
from torch import nn

from bitline.chip import load, replace
from bitline.evaluation.explain import explain
from bitline.nn import calibrate, crossbar_layers, program, to_crossbar

CHANNELS, SIZE, IMAGES, REMOVED, RUNS = 128, 16, 4, 0.8, 7
NOISY = 'cell.programming={kind="lognormal",sigma=0.1}'
CHIPS = {
    "ideal cells, 6-bit ADC": (["adc.bits=6"], -1),
    "varying cells, 6-bit ADC": (["adc.bits=6", NOISY], 0),
    "stuck cells, lossless ADC": (["adc.policy=lossless", "cell.faults={stuck_off=0.1}"], 0),
    "ideal cells, lossless ADC": (["adc.policy=lossless"], -1),
}


def layer(removed: float, overrides: list[str], seed: int) -> nn.Module:
    """One convolution on a chip, a share of its crossbars empty; calibrated."""
    torch.manual_seed(0)
    conv, chip = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), replace(load("example-128"), *overrides)
    blocks = list(to_crossbar(conv, chip).report.layers[0].blocks())
    gone = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(1))[: round(removed * len(blocks))]
    with torch.no_grad():
        matrix = conv.weight.view(CHANNELS, -1)
        for i in gone.tolist():
            matrix[slice(*blocks[i].cols), slice(*blocks[i].rows)] = 0
    x = torch.rand(IMAGES, CHANNELS, SIZE, SIZE)
    model = to_crossbar(conv, chip, example=x).model
    calibrate(model, [x])
    program(model, seed)
    return model


@torch.no_grad()
def measure() -> dict[str, Any]:
    """Time the whole and the pruned layer in turn."""
    rows: list[dict[str, Any]] = []
    for name, (overrides, seed) in CHIPS.items():
        models = [layer(share, overrides, seed) for share in (0.0, REMOVED)]
        x = torch.rand(IMAGES, CHANNELS, SIZE, SIZE)
        best = [float("inf")] * 2
        for _ in range(RUNS):
            for i, model in enumerate(models):
                start = time.process_time()
                model(x)
                best[i] = min(best[i], time.process_time() - start)
        kept = [next(iter(crossbar_layers(model).values())).placement.crossbars for model in models]
        rows.append(
            {
                "chip": name,
                "path": explain(models[1])[0].path,
                "crossbars": kept,
                "seconds": best,
                "ratio": best[0] / best[1],
            }
        )
    return {"torch": torch.__version__, "threads": 1, "images": IMAGES, "layers": rows}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = measure()
    for row in result["layers"] if options.json != "-" else ():
        whole, pruned = (1e3 * t / IMAGES for t in row["seconds"])
        print(
            f"{row['chip']:28} {row['path']:9} {row['crossbars'][0]} -> {row['crossbars'][1]} crossbars, "
            f"{whole:6.1f} -> {pruned:6.1f} ms an image: {row['ratio']:.1f} x"
        )
    write(result, options.json)


if __name__ == "__main__":
    main()
