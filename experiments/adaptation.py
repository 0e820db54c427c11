"""Claim: what the digital side knows of a chip's errors takes most of them back, before any training.

Network: VGG-8 of a quarter of the width, trained on the digits without knowing of a chip. Chip: crimp-32nm (128 x 128,
8-bit weights on 2-bit cells, ADC that rounds to integers) with log-normal programming error 0.1 and stuck-at faults
(9.04 % off, 1.75 % on), and with programming error 0.5 and no faults. --chips programmed chips, all test images, direct
simulation. Hardware, runtime, n, mean, std and worst: written into the result.

    python experiments/adaptation.py
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from bitline import chip as chips
from bitline import data as datasets
from bitline.evaluation import Settings, assess
from bitline.files import read_json, write_json
from bitline.models.files import load_run
from bitline.train import checked
from bitline.train.hardware import describe, git_commit
from bitline.train.run import train

RESULT = Path(__file__).parent / "results" / "adaptation.json"
CONDITIONS = {
    "faults, sigma 0.1": ("cell.programming.sigma=0.1",),
    "sigma 0.5": ("cell.programming.sigma=0.5", "cell.faults={stuck_off=0.0, stuck_on=0.0}"),
}
CENTRED, PAIR, RECENTRE = "cell.programming.centred=true", "weights.encoding={kind='pair'}", "recentre"
EXPECTED, MEASURED = (f"weights.encoding={{kind='offset', correction='{kind}'}}" for kind in ("expected", "measured"))
NEAREST, REMAP, FLIP, READBACK, REWRITES, VERIFY = (
    f"mitigation.{key}"
    for key in ("nearest=true", "remap=true", "flip=true", "readback=true", "rewrites=2", "verify=0.25")
)
SWITCHES: dict[str, tuple[str, ...]] = {
    "none": (),
    "centred": (CENTRED,),
    "expected": (EXPECTED,),
    "measured": (MEASURED,),
    "recentre": (RECENTRE,),
    "nearest": (NEAREST,),
    "remap": (REMAP,),
    "flip": (FLIP,),
    "verify 0.25": (VERIFY,),
    "measured, recentre": (MEASURED, RECENTRE),
    "measured, remap, recentre": (MEASURED, REMAP, RECENTRE),
    "measured, nearest": (MEASURED, NEAREST),
    "centred, measured, nearest, recentre": (CENTRED, MEASURED, NEAREST, RECENTRE),
    "centred, measured, nearest, remap, flip, recentre": (CENTRED, MEASURED, NEAREST, RECENTRE, REMAP, FLIP),
    "pair": (PAIR,),
    "pair, recentre": (PAIR, RECENTRE),
    "pair, nearest": (PAIR, NEAREST),
    "pair, centred, nearest, recentre": (PAIR, CENTRED, NEAREST, RECENTRE),
    "pair, centred, nearest, remap, recentre": (PAIR, CENTRED, NEAREST, REMAP, RECENTRE),
    "pair, centred, nearest, remap, flip, recentre": (PAIR, CENTRED, NEAREST, REMAP, FLIP, RECENTRE),
    "pair, readback": (PAIR, READBACK),
    "centred, measured, readback, remap, flip, recentre": (CENTRED, MEASURED, READBACK, RECENTRE, REMAP, FLIP),
    "pair, centred, readback, remap, recentre": (PAIR, CENTRED, READBACK, REMAP, RECENTRE),
    "pair, readback, rewrites 2": (PAIR, READBACK, REWRITES),
    "centred, measured, readback, rewrites 2, remap, flip, recentre": (
        CENTRED,
        MEASURED,
        READBACK,
        REWRITES,
        RECENTRE,
        REMAP,
        FLIP,
    ),
    "pair, centred, readback, rewrites 2, remap, recentre": (PAIR, CENTRED, READBACK, REWRITES, REMAP, RECENTRE),
}


def main() -> None:
    """Measure what the result does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = checked(
        model="vgg8",
        width=0.25,
        data="digits",
        epochs=10,
        batch_size=64,
        precision="32-true",
        out=options.out,
        threads=options.threads,
    )
    run = load_run(train(config, if_exists="resume" if options.out.exists() else "refuse"))
    data = datasets.load("digits")
    setting = {"chips": options.chips, "images": len(data.test_images), "test_accuracy": run.metrics["test_accuracy"]}
    result: dict[str, Any] = {"setting": setting, "points": []}
    if options.result.is_file() and (earlier := read_json(options.result))["setting"] == setting:
        result = earlier
    done = {(point["condition"], point["switches"]) for point in result["points"]}
    for condition, overrides in CONDITIONS.items():
        for name, switches in SWITCHES.items():
            if (condition, name) in done:
                continue
            start = time.perf_counter()
            keys = [*overrides, *(key for key in switches if key != RECENTRE)]
            settings = Settings(chips=options.chips, cause_chips=1, bias_correction=RECENTRE in switches)
            a = assess(run.model, data, chips.load("crimp-32nm", keys), settings).accuracy
            point = {
                "condition": condition,
                "switches": name,
                "mean": a.mean,
                "std": a.std,
                "worst": a.worst,
                "chips": list(a.chips),
            }
            point["seconds"] = round(time.perf_counter() - start, 1)
            result["points"].append(point)
            result |= {"hardware": describe(), "commit": git_commit()}
            write_json(options.result, result)
            print(f"{condition}; {name}: {a.mean:.1f} ± {a.std:.1f} % (worst {a.worst:.1f})", flush=True)


if __name__ == "__main__":
    main()
