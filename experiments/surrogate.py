"""Claim: one plain product with noise estimates what the exact simulation of every conversion gives.

The kept networks on rram-22nm, over bits of the ADC, range policies and programming error: accuracy by the exact
simulation and by the surrogate, on the same --images test images and the same programmed chips. The surrogate's
statistics are measured on 64 training images and each chip. Beside the difference its standard error: that of the
difference of paired answers over images, and that of the exact accuracy as an estimate (images and chips). A point
holds where `bitline.surrogate` says that its estimate may be trusted; only these are counted. Each point is written as
it is known; a run that was stopped goes on. Exact answers, most of the time that it takes, are kept in --answers DIR
where it is given, and taken from there: they are no others for another surrogate.

    python experiments/surrogate.py [--images 500] [--chips 2] [--only resnet20] [--answers DIR]
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from bitline import chip as chips
from bitline import data as datasets
from bitline.evaluation import Settings, Spread, put_on_chip
from bitline.evaluation.on_chip import OnChip
from bitline.files import read_json, write_json, write_text
from bitline.models.files import load_run
from bitline.nn import IDEAL, on
from bitline.train.hardware import describe, git_commit

RESULT = Path(__file__).parent / "results" / "surrogate.json"
NETWORKS = Path(__file__).parent / "networks"
BASE = "rram-22nm"
WIDE = [(policy, bits) for policy in ("slice_digit", "full", "layer", "column") for bits in (3, 4, 5, 6, 7, 8)]
NARROW = [("slice_digit", 4), ("slice_digit", 5), ("full", 7)]
GRID = {"resnet20": (WIDE, (0.0, 0.1)), "vgg8-half": (WIDE, (0.0, 0.1)), "resnet56": (NARROW, (0.0, 0.1))}
"""network -> policies and bits, and sigmas of programming error"""


def keys(policy: str, bits: int, sigma: float) -> list[str]:
    """What a point sets on the chip."""
    calibrated = [f"adc.granularity={policy}"] if policy != "full" else []
    policy = "full" if policy == "full" else "calibrated"
    return [f"adc.policy={policy}", *calibrated, f"adc.bits={bits}", f"cell.programming.sigma={sigma}"]


@torch.no_grad()
def right(on_chip: OnChip, images: int) -> torch.Tensor:
    """Whether each test image is classified correctly, uint8."""
    answers = [on_chip.model(x).argmax(1) == labels for x, labels in on_chip.data.batches("test", limit=images)]
    return torch.cat(answers).byte()


def exactly(on_chip: OnChip, chip: chips.Chip, seed: int, images: int, kept: Path | None) -> torch.Tensor:
    """What the exact simulation classifies correctly, uint8; from a file where it is there."""
    if kept is not None and kept.is_file():
        return load_file(kept)["right"]
    with on(on_chip.model, chip, seed):
        answers = right(on_chip, images)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file({"right": answers}, kept)
    return answers


def point(on_chip: OnChip, chip: chips.Chip, seeds: list[int], images: int, kept: Path | None) -> dict[str, Any]:
    """Measure a chip by both simulations."""
    both: dict[str, list[torch.Tensor]] = {"exact": [], "surrogate": []}
    for seed in seeds:
        file = None if kept is None else kept.with_name(f"{kept.name}-{seed}-{images}.safetensors")
        both["exact"].append(exactly(on_chip, chip, seed, images, file))
        with on(on_chip.model, chip, seed), on_chip.simulation(chip, seed):
            both["surrogate"].append(right(on_chip, images))
    exact, surrogate = (100 * torch.stack(both[kind]).double() for kind in ("exact", "surrogate"))
    difference = (surrogate - exact).mean(0)
    spread = Spread.of(exact.mean(1).tolist())
    error = math.hypot(float(exact.mean(0).std()) / math.sqrt(images), spread.standard_error)
    found = on_chip.simulation.record()
    return {
        "exact": round(float(exact.mean()), 2),
        "surrogate": round(float(surrogate.mean()), 2),
        "difference": round(float(difference.mean()), 2),
        "paired_error": round(float(difference.std()) / math.sqrt(images), 2),
        "exact_error": round(error, 2),
        "holds": found.holds,
        "noisy_layers": len(found.noisy),
        "overflows": round(found.overflows, 3),
        "changed": round(found.changed, 3),
        "unlike": round(found.unlike, 2),
    }


def summary(points: list[dict[str, Any]]) -> dict[str, Any]:
    """Say how far the estimates are off, over the points that hold."""
    held = [p for p in points if p["holds"]]
    if not held:
        return {}
    # Of one image of 500 more or less nothing can be said.
    ratios = [p["difference"] / max(p["exact_error"], 100 / 500) for p in held]
    paired = [p["difference"] / max(p["paired_error"], 100 / 500) for p in held]
    return {
        "points": len(points),
        "held": len(held),
        "within_the_standard_error_of_the_exact_accuracy": sum(abs(r) <= 1 for r in ratios),
        "within_two": sum(abs(r) <= 2 for r in ratios),
        "chi_square": round(sum(r * r for r in ratios), 1),
        "within_the_standard_error_of_the_difference": sum(abs(r) <= 1 for r in paired),
        "within_two_of_the_difference": sum(abs(r) <= 2 for r in paired),
        "chi_square_of_the_difference": round(sum(r * r for r in paired), 1),
        "mean_difference": round(sum(p["difference"] for p in held) / len(held), 2),
        "root_mean_square_difference": round(math.sqrt(sum(p["difference"] ** 2 for p in held) / len(held)), 2),
        "largest_difference": max((p["difference"] for p in held), key=abs),
        "largest_difference_where_it_does_not_hold": max(
            (p["difference"] for p in points if not p["holds"]), key=abs, default=0.0
        ),
    }


def picture(points: list[dict[str, Any]]) -> str:
    """Draw estimates over exact accuracies, %; hollow: points that do not hold."""
    colors = {"resnet20": "#0072b2", "vgg8-half": "#d55e00", "resnet56": "#009e73"}
    side, edge = 320, 40

    def at(x: float, y: float) -> str:
        return f'cx="{edge + x / 100 * side:.1f}" cy="{edge / 2 + side - y / 100 * side:.1f}"'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side + 2 * edge} {side + 2 * edge}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect x="{edge}" y="{edge / 2}" width="{side}" height="{side}" fill="white" stroke="#888"/>',
        f'<line x1="{edge}" y1="{edge / 2 + side}" x2="{edge + side}" y2="{edge / 2}" stroke="#bbb"/>',
        f'<text x="{edge + side / 2}" y="{side + 1.4 * edge}" text-anchor="middle">exact simulation [%]</text>',
        f'<text transform="translate(12 {edge / 2 + side / 2}) rotate(-90)" text-anchor="middle">surrogate [%]</text>',
    ]
    for value in (0, 50, 100):
        x, y = edge + value / 100 * side, edge / 2 + side - value / 100 * side
        parts.append(f'<text x="{x}" y="{side + 0.9 * edge}" text-anchor="middle">{value}</text>')
        parts.append(f'<text x="{edge - 4}" y="{y + 4}" text-anchor="end">{value}</text>')
    for place, (name, color) in enumerate(colors.items()):
        parts.append(f'<text x="{edge + 8}" y="{edge + 14 * place}" fill="{color}">{name}</text>')
    for p in points:
        color = colors[p["network"]]
        fill = color if p["holds"] else "none"
        parts.append(f'<circle {at(p["exact"], p["surrogate"])} r="3.5" fill="{fill}" stroke="{color}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Measure the points that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--chips", type=int, default=2)
    parser.add_argument("--only", choices=list(GRID))
    parser.add_argument("--answers", type=Path, help="where exact answers are kept")
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    setting = {"images": options.images, "chips": options.chips, "chip": BASE, "measured_on": 64}
    points: list[dict[str, Any]] = read_json(options.result)["points"] if options.result.is_file() else []
    for name in [options.only] if options.only else GRID:
        plan, sigmas = GRID[name]
        run = load_run(NETWORKS / name)
        data = datasets.load(run.record.data)
        settings = Settings(images=options.images, simulation="surrogate")
        on_chip = put_on_chip(run.model, data, chips.load(BASE), settings)
        for policy, bits in plan:
            for sigma in sigmas:
                key = {"network": name, "policy": policy, "bits": bits, "sigma": sigma}
                if any(key.items() <= p.items() for p in points):
                    continue
                chip = chips.load(BASE, keys(policy, bits, sigma))
                on_chip.placed_on(chip)
                seeds = list(range(options.chips)) if sigma else [IDEAL]
                kept = options.answers and options.answers / "-".join(map(str, key.values()))
                points.append(key | point(on_chip, chip, seeds, options.images, kept))
                print(points[-1], flush=True)
                result = {"summary": summary(points), "points": points, "setting": setting}
                write_json(options.result, {**result, "hardware": describe(), "commit": git_commit()})
    write_text(options.result.with_suffix(".svg"), picture(points))


if __name__ == "__main__":
    main()
