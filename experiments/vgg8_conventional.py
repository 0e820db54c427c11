"""Claim: a coarse ADC costs a conventional VGG-8 most of its accuracy, and how its ranges are chosen decides how much.

Network: half-width VGG-8 trained on CIFAR-10 (JPEG q75) as experiments/networks/README.md says,
unaware of the chip. Chip: rram-22nm (128 x 128, 8-bit weights on 2-bit cells, 8-bit inputs one bit at a time, offset
encoding), at 3 to 8 ADC bits under each range policy with ideal cells (--images test images), and at the chip's own ADC
bits under each policy with log-normal programming error 0.05, 0.1 and 0.2 (--chips programmed chips a point,
--varied-images test images each). Hardware and runtime: written into the result.

    python experiments/vgg8_conventional.py experiments/networks/vgg8-half [--all-bits]

A run that was stopped goes on where it was: points already in the result are kept if network, images and chips agree.
"""

import argparse
import hashlib
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bitline import chip as chips
from bitline import data as datasets
from bitline.evaluation import Settings, Spread, accuracy, put_on_chip
from bitline.files import WEIGHTS, read_json, write_json
from bitline.models.files import load_run
from bitline.train.hardware import describe, git_commit

RESULTS = Path(__file__).parent / "results"
POLICIES = {
    "full": ("adc.policy=full",),
    "batch_minmax / layer": ("adc.policy=batch_minmax", "adc.granularity=layer"),
    "calibrated / layer": ("adc.granularity=layer",),
    "calibrated / slice": ("adc.granularity=slice",),
    "calibrated / slice and digit": ("adc.granularity=slice_digit",),
    "calibrated / column": ("adc.granularity=column",),
    "lossless": ("adc.policy=lossless",),
}
SIGMAS = (0.0, 0.05, 0.1, 0.2)
BY_TENSORS = "batch_minmax / layer"
"""its ranges come from every partial sum of the batch: it runs last, on --varied-images"""


def points(bits: int, *, all_bits: bool) -> list[tuple[str, int, float]]:
    """List (policy, ADC bits, programming error), the most telling first."""
    ideal = [(p, b, 0.0) for b in (bits, 4, 6, 3, 7, 8) for p in POLICIES if p not in ("lossless", BY_TENSORS)]
    varied = [(p, 8 if p == "lossless" else bits, s) for s in SIGMAS[1:] for p in POLICIES if p != BY_TENSORS]
    found = [("lossless", 8, 0.0), *ideal[:15], *varied, *ideal[15:]]
    found += [(BY_TENSORS, b, 0.0) for b in (bits, 4, 6, 3, 7, 8)] + [(BY_TENSORS, bits, s) for s in SIGMAS[1:]]
    if all_bits:
        for sigma in SIGMAS[1:]:
            found += [(p, b, sigma) for p in POLICIES for b in range(3, 9) if p != "lossless" and b != bits]
    return found


class Bench:
    """The network on the chip, in one process on one thread."""

    current: "Bench"

    def __init__(self, run: Path, settings: Settings, varied_images: int) -> None:
        torch.set_num_threads(1)
        self.base, self.settings = chips.load("rram-22nm"), settings
        self.varied_images = varied_images
        loaded = load_run(run)
        self.on_chip = put_on_chip(loaded.model, datasets.load(loaded.record.data), self.base, settings)

    def measure(self, policy: str, bits: int, sigma: float) -> dict[str, Any]:
        """Measure one point."""
        start = time.perf_counter()
        cells = "cell.programming={kind='ideal'}" if sigma == 0 else f"cell.programming.sigma={sigma}"
        chip = chips.replace(self.base, *POLICIES[policy], f"adc.bits={bits}", cells)
        self.on_chip.placed_on(chip)
        images = self.varied_images if sigma or policy == BY_TENSORS else self.settings.images
        self.on_chip.settings = replace(self.settings, images=images)
        seeds = self.settings.seeds if sigma else self.settings.seeds[:1]
        found = [self.on_chip.accuracy(chip, seed) for seed in seeds]
        return {
            "policy": policy,
            "bits": bits,
            "sigma": sigma,
            "chips": found,
            **Spread.of(found).to_json(),
            "images": self.on_chip.settings.images,
            "seconds": round(time.perf_counter() - start, 1),
        }


def start(run: Path, settings: Settings, varied_images: int) -> None:
    """Begin a worker process."""
    Bench.current = Bench(run, settings, varied_images)


def measure(point: tuple[str, int, float]) -> dict[str, Any]:
    """Measure one point in a worker process."""
    return Bench.current.measure(*point)


def main() -> None:
    """Measure every point that the result does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of bitline train")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--varied-images", type=int, default=500, help="for each programmed chip, and batch_minmax")
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--calibration-images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of one thread each")
    parser.add_argument("--all-bits", action="store_true", help="programming error at every ADC resolution too")
    parser.add_argument("--out", type=Path, default=RESULTS / "vgg8_conventional.json")
    parser.add_argument("--figure", action="store_true", help="only draw the points that are there")
    options = parser.parse_args()
    if options.figure:
        draw(read_json(options.out), options.out.with_suffix(".svg"))
        return
    run = load_run(options.run)
    data = datasets.load(run.record.data)
    base = chips.load("rram-22nm")
    weights = hashlib.sha256((options.run / WEIGHTS).read_bytes()).hexdigest()
    varied = options.varied_images
    setting = {
        "network": run.record.model_dump(mode="json", include={"model", "kwargs", "title"}),
        "weights_sha256": weights,
        "images": options.images,
        "varied_images": varied,
        "chips": options.chips,
        "calibration_images": options.calibration_images,
        "batch_size": options.batch_size,
        "seeds": list(range(options.chips)),
        "chip": base.model_dump(mode="json"),
    }
    result: dict[str, Any] = {"setting": setting, "points": [], "cpu_seconds": 0.0}
    if options.out.is_file():
        earlier = read_json(options.out)
        if earlier["setting"] == setting:
            result = earlier
            print(f"going on after {len(result['points'])} points")
    if "float" not in result:
        result["float"] = {
            "test": accuracy(run.model, data, batch_size=250),
            "test_images": len(data.test_images),
            "subset": accuracy(run.model, data, images=options.images, batch_size=250),
        }
    result |= {"hardware": describe(), "workers": options.workers}
    settings = Settings(
        chips=options.chips,
        images=options.images,
        calibration_images=options.calibration_images,
        batch_size=options.batch_size,
    )
    wanted = points(base.adc.bits, all_bits=options.all_bits)
    done = {(p["policy"], p["bits"], p["sigma"]) for p in result["points"]}
    order = points(base.adc.bits, all_bits=True)
    left = [point for point in wanted if point not in done]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, spawn, start, (options.run, settings, varied)) as pool:
        for future in as_completed([pool.submit(measure, point) for point in left]):
            point = future.result() | {"commit": git_commit()}
            result["points"].append(point)
            result["points"].sort(key=lambda p: order.index((p["policy"], p["bits"], p["sigma"])))
            result["cpu_seconds"] = round(result["cpu_seconds"] + point["seconds"], 1)
            write_json(options.out, result)
            print(
                f"{len(result['points'])}/{len(wanted)}  {point['policy']}, {point['bits']} bits, "
                f"sigma {point['sigma']:g}: {point['mean']:.2f} ± {point['std']:.2f} %  ({point['seconds']:.0f} s)",
                flush=True,
            )
    draw(result, options.out.with_suffix(".svg"))


def draw(result: dict[str, Any], path: Path) -> None:
    """Plot accuracy over ADC bits, and over programming error, for each policy."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bitline"
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    bits = result["setting"]["chip"]["adc"]["bits"]
    for policy in POLICIES:
        mine = [p for p in result["points"] if p["policy"] == policy]
        ideal = sorted((p for p in mine if p["sigma"] == 0), key=lambda p: p["bits"])
        if not ideal:
            continue
        if policy == "lossless":
            left.axhline(ideal[0]["mean"], color="black", lw=1, ls=":", label="lossless")
        else:
            left.plot([p["bits"] for p in ideal], [p["mean"] for p in ideal], marker="o", ms=4, label=policy)
        varied = sorted(
            (p for p in mine if p["bits"] == (8 if policy == "lossless" else bits)), key=lambda p: p["sigma"]
        )
        style = {"color": "black", "ls": ":"} if policy == "lossless" else {}
        right.errorbar(
            [p["sigma"] for p in varied],
            [p["mean"] for p in varied],
            [p["std"] for p in varied],
            marker="o",
            ms=4,
            capsize=3,
            label=policy,
            **style,
        )
    for axes in (left, right):
        axes.axhline(result["float"]["subset"], color="grey", lw=1, ls="--", label="float")
        axes.grid(alpha=0.3)
    left.set(xlabel="ADC bits", ylabel="accuracy [%]", title="ideal cells")
    right.set(xlabel="programming error sigma (log-normal)", title=f"{bits}-bit ADC (lossless: no limit)")
    left.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
