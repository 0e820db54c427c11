"""Write the tables of README.md and docs/ from the files they are about; --check fails if they differ.

python experiments/tables.py [--check]
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage_tables
import targets

ROOT = Path(__file__).parent.parent
UNMEASURED = "Not measured yet."
RECIPES = {
    "quantization_aware": "quantization-aware",
    "psum_aware_layer": "psum-aware, one range a layer",
    "psum_aware": "psum-aware",
    "psum_aware_digital_first": "psum-aware, first layer digital",
    "psum_aware_pairs": "psum-aware, pairs of cells",
    "group": "group, first layer digital",
    "group_mix": "group with 1x1 convolutions, first layer digital",
    "separable": "separable, depthwise and first layers digital",
    "auto": "auto",
}


def read(path: str) -> Any:
    return json.loads((ROOT / path).read_text())


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def conventional() -> str:
    result = read("experiments/results/vgg8_conventional.json")
    ideal = [p for p in result["points"] if p["sigma"] == 0]
    bits = sorted({p["bits"] for p in ideal if p["policy"] != "lossless"})
    policies = list(dict.fromkeys(p["policy"] for p in ideal if p["policy"] != "lossless"))
    found = {(p["policy"], p["bits"]): p["mean"] for p in ideal}
    rows = [[policy, *(f"{found[policy, b]:.1f}" if (policy, b) in found else "" for b in bits)] for policy in policies]
    lossless = next(p["mean"] for p in ideal if p["policy"] == "lossless")
    images, plain = result["setting"]["images"], result["float"]
    note = (
        f"Float {plain['subset']:.1f} %, lossless ADC {lossless:.1f} % on the same {images} test images "
        f"(float on all {plain['test_images']}: {plain['test']:.2f} %)."
    )
    return markdown(["ADC range", *(f"{b} bits" for b in bits)], rows) + "\n\n" + note


def variation() -> str:
    result = read("experiments/results/vgg8_conventional.json")
    bits = result["setting"]["chip"]["adc"]["bits"]
    at = [p for p in result["points"] if p["bits"] == (8 if p["policy"] == "lossless" else bits)]
    sigmas = sorted({p["sigma"] for p in at})
    found = {(p["policy"], p["sigma"]): p for p in at}

    def cell(policy: str, sigma: float) -> str:
        point = found.get((policy, sigma))
        return "" if point is None else f"{point['mean']:.1f}" + (f" ± {point['std']:.1f}" if sigma else "")

    images = {s: "/".join(str(n) for n in sorted({p["images"] for p in at if p["sigma"] == s})) for s in sigmas}
    rows = [[policy, *(cell(policy, s) for s in sigmas)] for policy in dict.fromkeys(p["policy"] for p in at)]
    rows.append(["test images", *(images[s] for s in sigmas)])
    note = (
        f"{bits}-bit ADC; mean ± std over {result['setting']['chips']} programmed chips; empty cells are not measured."
    )
    return markdown(["ADC range", *(f"sigma {s:g}" for s in sigmas)], rows) + "\n\n" + note


def recipes() -> str:
    result = read("experiments/results/partial_sums.json")
    setting, found = result["setting"], result["recipes"]
    first = next(recipe for name, recipe in found.items() if name != "psum_aware_pairs")["before"]

    def line(name: str, point: dict[str, Any], untrained: dict[str, Any] | None) -> list[str]:
        return [
            name,
            "" if untrained is None else f"{untrained['accuracy_mean']:.1f}",
            f"{point['accuracy_mean']:.1f} ± {point['accuracy_std']:.1f} ({point['accuracy_worst']:.1f})",
            f"{point['row_tiles_in_convolutions']}",
            f"{point['conversions'] / 1e6:.1f} M",
            f"{point['energy_J'] * 1e6:.2f}",
            f"{point['energy_J'] / first['energy_J']:.2f}",
            f"{point['tops_per_watt']:.1f}",
            f"{point['area_m2'] * 1e6:.2f}",
        ]

    rows = [line("conventional", first, None)]
    if (best := "slice and digit, in turn") in result["untrained"]:
        rows.append(line("conventional, ranges per slice and digit, fitted in turn", result["untrained"][best], None))
    if "psum_aware_pairs" in found:
        rows.append(line("conventional, pairs of cells", found["psum_aware_pairs"]["before"], None))
    if (best := "pairs, slice and digit, in turn") in result["untrained"]:
        name = "conventional, pairs of cells, ranges per slice and digit, fitted in turn"
        rows.append(line(name, result["untrained"][best], None))
    for key, text in RECIPES.items():
        if key in found:
            kept = [p for p in found[key].get("front", {}).get("points", ()) if p["run"] == found[key]["front"]["kept"]]
            chip = "".join(f": {', '.join(p['overrides'])}" for p in kept)
            rows.append(line(text + chip, found[key]["after"], found[key].get("untrained")))
    header = [
        "network",
        "untrained [%]",
        "on the chip [%] (worst)",
        "row tiles",
        "conversions",
        "energy for an inference [uJ]",
        "of conventional",
        "TOPS/W",
        "area [mm2]",
    ]
    more = {d.get("chip_epochs", 0) for name in RECIPES if (d := found.get(name, {}).get("settings"))}
    note = (
        f"{setting['adc_bits']}-bit ADC, programming error {setting['sigma']}, {len(setting['seeds'])} programmed "
        f"chips, {setting['images']} test images (float: {first['float']:.1f} %); at most {setting['epochs']} epochs "
        f"of training, {min(more)} to {max(more)} of them on the chip. Row tiles: most of any convolution. Of "
        "conventional: energy for an inference over that of the first row."
    )
    return markdown(header, rows) + "\n\n" + note


def policies() -> str:
    result = read("experiments/results/partial_sums.json")
    setting, points = result["setting"], list(result["table"].values())
    if not points:
        return UNMEASURED
    found = {(p["policy"], p["bits"], p["sigma"]): p for p in points}
    columns = sorted({(p["sigma"], p["bits"]) for p in points})

    def cell(policy: str, sigma: float, bits: int) -> str:
        p = found.get((policy, bits, sigma))
        return "" if p is None else f"{p['mean']:.1f}" + (f" ± {p['std']:.1f}" if sigma else "")

    rows = [
        [policy, *(cell(policy, sigma, bits) for sigma, bits in columns)]
        for policy in dict.fromkeys(p["policy"] for p in points)
    ]
    note = (
        f"{setting['table_chips']} programmed chips, {setting['table_images']} test images; ideal cells: one answer. "
        "Ranges fitted to all layers at once."
    )
    return markdown(["ADC range", *(f"sigma {s:g}, {b} bits" for s, b in columns)], rows) + "\n\n" + note


def fewer_bits() -> str:
    result = read("experiments/results/partial_sums.json")
    found, setting = result["fewer_bits"], result["setting"]
    if not found:
        return UNMEASURED
    rows = [
        [
            RECIPES.get(name.split(", ")[0], name.split(", ")[0]),
            name.split(", ")[1],
            f"{p['accuracy_mean']:.1f} ± {p['accuracy_std']:.1f} ({p['accuracy_worst']:.1f})",
            f"{p['energy_J'] * 1e6:.2f}",
        ]
        for name, p in found.items()
    ]
    note = (
        f"{setting['table_chips']} programmed chips, {setting['images']} test images; ranges per slice and digit, "
        "fitted in turn."
    )
    return markdown(["network", "ADC", "on the chip [%] (worst)", "energy [uJ]"], rows) + "\n\n" + note


def mappings() -> str:
    result = read("experiments/results/partial_sums.json")
    if not result["mappings"]:
        return UNMEASURED
    rows = [
        [
            name,
            f"{p['accuracy_mean']:.1f} ± {p['accuracy_std']:.1f}",
            f"{p['energy_J'] * 1e6:.2f}",
            f"{p['area_m2'] * 1e6:.2f}",
            f"{p['crossbars']}",
            f"{p['depthwise']['conversions'] / 1e6:.2f} M",
            f"{p['depthwise']['energy_J'] * 1e6:.2f}",
        ]
        for name, p in result["mappings"].items()
    ]
    header = [
        "depthwise layers",
        "on the chip [%]",
        "energy [uJ]",
        "area [mm2]",
        "crossbars",
        "their conversions",
        "their energy [uJ]",
    ]
    setting = result["setting"]
    note = (
        f"{setting['adc_bits']}-bit ADC, ranges per slice and digit fitted in turn, crossbars in segments of "
        f"9 rows, {setting['table_chips']} programmed chips, {setting['images']} test images."
    )
    return markdown(header, rows) + "\n\n" + note


def assignment() -> str:
    found = read("experiments/results/partial_sums.json")["assignment"]
    if not found:
        return UNMEASURED
    kinds = list(dict.fromkeys(name.split(", ")[0] for name in found))
    weights = list(dict.fromkeys(name.split(", ")[1] for name in found))
    rows = [[kind, *(f"{found[f'{kind}, {w}']['float_accuracy']:.1f}" for w in weights)] for kind in kinds]
    images = next(iter(found.values()))["images"]
    return (
        markdown(["assignment", *(f"weights {w}" for w in weights)], rows) + f"\n\nAccuracy in %, {images} test images."
    )


def front() -> str:
    result = read("experiments/results/partial_sums.json")
    found = result["recipes"].get("auto")
    if found is None:
        return UNMEASURED
    first = result["summary"]["conventional"]
    rows = [
        [
            f"{p['accuracy']:.1f} ± {p['std']:.1f} ({p['worst']:.1f})",
            f"{p['energy'] * 1e6:.2f}",
            f"{p['energy'] / first['energy_J']:.2f}",
            f"{p['area'] * 1e6:.2f}",
            ", ".join(dict.fromkeys(p["layers"].values())),
            ", ".join(p["overrides"]),
        ]
        for p in sorted(found["front"]["points"], key=lambda p: p["energy"])
    ]
    header = [
        "on the chip [%] (worst)",
        "energy for an inference [uJ]",
        "of conventional",
        "area [mm2]",
        "layers",
        "chip",
    ]
    return (
        markdown(header, rows)
        + f"\n\n{found['settings']['trials']} trials; of conventional: energy for an inference over its."
    )


def speed() -> str:
    result = read("benchmarks/results/mvm.json")
    ratios: dict[str, float] = result["ratios"]
    networks = list(dict.fromkeys(name.split("/")[0] for name in ratios))
    settings = list(dict.fromkeys(name.split("/")[1] for name in ratios if name.count("/") == 1))
    earlier: dict[str, float] = result.get("before", {}).get("ratios", {})

    def shown(key: str) -> str:
        was = f" ({earlier[key]:.1f})" if key in earlier else ""
        return f"{ratios[key]:.1f} x{was}" if key in ratios else ""

    rows = [[setting.replace("_", " "), *(shown(f"{n}/{setting}") for n in networks)] for setting in settings]
    plain = [f"{result['milliseconds_per_image'][f'{n}/plain']:.1f} ms" for n in networks]
    paths = ", ".join(f"{k.split('/')[2]} {v:.1f} x" for k, v in ratios.items() if k.startswith("vgg8/full/"))
    note = (
        f"Path {result['path']} on {result['hardware']['processor']}, batches of {result['images']}; "
        f"peak memory {result['peak_MB']:.0f} MB. VGG-8, full range, by path: {paths}."
    )
    if earlier:
        note = "In brackets: before this version, on the same machine. " + note
    many = read("benchmarks/results/chips.json")
    first, last = many["points"][0], many["points"][-1]
    note += (
        f" {last['chips']} programmed chips one after the other, {many['images']} images each: "
        f"{last['cpu_seconds'] / last['chips']:.1f} s a chip ({first['cpu_seconds']:.1f} s the first), "
        f"peak memory {last['peak_MB']:.0f} MB."
    )
    chips = read("benchmarks/results/programming.json")["settings"]
    faulty, whole = chips["and faults"], chips["pairs of cells: and readback, 2 rewrites, remap, flip"]
    note += (
        f" Writing a VGG-16 chip with programming error and faults: {faulty['next_cpu_s']:.1f} s; with pairs of cells, "
        f"readback, rewrites, remapping and flips too: {whole['next_cpu_s']:.1f} s "
        f"({whole['first_cpu_s']:.1f} s the first)."
    )
    return markdown(["setting", *networks], [["plain fp32, an image", *plain], *rows]) + "\n\n" + note


def training() -> str:
    result = read("benchmarks/results/training.json")
    names = {
        "training_step/plain_bf16": "plain bf16",
        "training_step/ideal_cells": "on the chip, ideal cells",
        "training_step/chip_every_8": "programming error, new chip every 8 steps",
        "training_step": "programming error, new chip every step",
        "training_step/two_tiles": "the same, two row tiles of each layer converted",
        "training_step/read_noise": "programming error and read noise, all converted",
    }
    ratios, earlier = result["ratios"], result.get("before", {}).get("ratios", {})
    rows = [
        [text, f"{ratios[key]:.1f} x", f"{earlier[key]:.1f} x" if key in earlier else ""]
        for name, text in names.items()
        if (key := f"vgg8/{name}") in ratios
    ]
    seconds = result["milliseconds_per_step"]["plain"] / 1e3
    note = (
        f"A step of {result['batch']} images takes {seconds:.1f} s in plain fp32, CPU time on one thread. On the chip, "
        f"gradients and what stays digital are computed in {result['precision'].removesuffix('-mixed')}, which is how "
        "recipes train here; before this version in fp32."
    )
    return markdown(["one training step of VGG-8", "over plain fp32", "before"], rows) + "\n\n" + note


def threads() -> str:
    result = read("benchmarks/results/threads.json")
    earlier: dict[str, float] = result["before"]["speedups"]
    kinds = {
        "forward": "ideal cells",
        "programmed": "programmed",
        "new_chip": "a chip written and asked",
        "training_step": "a training step",
    }
    rows: list[list[str]] = []
    for name, batch in dict.fromkeys(tuple(key.split("/")[:2]) for key in result["speedups"]):
        keys = [f"{name}/{batch}/{kind}" for kind in kinds]
        one = result["milliseconds"][keys[0]]["1"]
        times = [
            f"{result['speedups'][key]:.2f} ({earlier[key]:.2f})" if key in result["speedups"] else "" for key in keys
        ]
        rows.append([f"{name}, {batch}", f"{one:.1f} ms", *times])
    note = (
        f"How many times as fast two threads are as one; in brackets before this version. Wall time, "
        f"{result['hardware']['cores']} cores, nothing else running."
    )
    return markdown(["network, images", "one thread, ideal cells", *kinds.values()], rows) + "\n\n" + note


def install() -> str:
    result = read("benchmarks/results/install.json")
    extras = {"train": "train, optimize, demo, remapped columns", "data": "parquet tables, the Hugging Face hub"}
    extras |= {"export": "ONNX", "all": "all of these"}
    rows = [
        [
            f"`.[{size['extra']}]`" if size["extra"] else "`.`",
            extras.get(size["extra"], "import, evaluate, sweep, cost, study, compare, integers and conductances"),
            f"{size['download_MB']:.0f} MB",
            f"{size['installed_MB']:.0f} MB",
        ]
        for size in result["sizes"]
    ]
    return markdown(["pip install", "for", "downloaded, in all", "on the disk, in all"], rows)


def growth() -> str:
    result = read("benchmarks/results/growth.json")
    exponents, networks = result["exponents"], result["networks"]
    rows = [
        [
            name,
            f"{each['weights'] / 1e6:.1f} M",
            f"{each['macs'] / 1e9:.2f} G",
            *(f"{each['seconds'][step]:.2f} s" for step in ("convert", "calibrate", "program", "cost", "forward")),
            f"{result['memory_over_weights'][name]:.1f}",
        ]
        for name, each in networks.items()
    ]
    told = "; ".join(f"{name} {value:.2f}" for name, value in exponents.items())
    note = f"Exponents: {told}. CPU time on one thread, one image."
    header = ["network", "weights", "MACs", "convert", "calibrate", "program", "cost", "forward", "memory / weights"]
    return markdown(header, rows) + "\n\n" + note


def calibration() -> str:
    result = read("benchmarks/results/calibration.json")
    new, old = result["ratios"], result["before"]["ratios"]
    settings = list(dict.fromkeys(key.rsplit("/", 1)[1] for key in new))

    def shown(key: str) -> str:
        return f"{new[key]:.1f} x" + (f" ({old[key]:.0f})" if key in old else "")

    rows = [
        [name.replace("/", ", "), *(shown(f"{name}/{kind}") for kind in settings)]
        for name in dict.fromkeys(key.rsplit("/", 1)[0] for key in new)
    ]
    note = (
        "Times a plain fp32 forward pass over the same images, CPU time on one thread; in brackets before this version."
    )
    return markdown(["network, images", *settings], rows) + "\n\n" + note


def calibration_accuracy() -> str:
    result = read("benchmarks/results/calibration.json")
    new, old = result["accuracy"], result["before"]["accuracy"]

    def mean(x: list[float]) -> str:
        return f"{statistics.mean(x):.1f}"

    def row(key: str) -> list[str]:
        run, granularity, bits = key.split("/")
        a, b = new[key]["accuracy"], old[key]["accuracy"]
        apart = [x - y for x, y in zip(a, b, strict=True)]
        error = statistics.stdev(apart) / len(apart) ** 0.5
        return [run, bits, granularity, mean(a), mean(b), f"{statistics.mean(apart):+.1f} ± {error:.1f}", str(len(a))]

    apart = [statistics.mean(new[k]["accuracy"]) - statistics.mean(old[k]["accuracy"]) for k in new]
    spread = statistics.stdev(apart) / len(apart) ** 0.5
    images = ", ".join(f"{count} of {run}" for run, count in result["test_images"].items())
    note = (
        f"Accuracy [%] on the first {images} test images, ideal cells, offset columns, ranges from sets of "
        f"{result['images_of_a_set']} training images; ± is the standard error over the sets, which both share. "
        f"All rows: {statistics.mean(apart):+.2f} ± {spread:.2f} points. "
        "At 4 bits ranges hang on a few images."
    )
    header = ["network", "ADC bits", "one range for each", "now", "before", "difference", "sets"]
    return markdown(header, [row(key) for key in new]) + "\n\n" + note


def adaptation() -> str:
    result = read("experiments/results/adaptation.json")
    setting, points = result["setting"], result["points"]
    conditions = list(dict.fromkeys(point["condition"] for point in points))
    found = {(point["switches"], point["condition"]): point for point in points}

    def cell(switches: str, condition: str) -> str:
        point = found.get((switches, condition))
        return "" if point is None else f"{point['mean']:.1f} ± {point['std']:.1f} ({point['worst']:.1f})"

    names = {p["switches"]: p["switches"].replace("recentre", "bias correction") for p in points}
    rows = [[shown, *(cell(name, c) for c in conditions)] for name, shown in names.items()]
    note = (
        f"Accuracy in %, mean ± std (worst) of {setting['chips']} programmed chips, {setting['images']} test images; "
        f"{100 * setting['test_accuracy']:.1f} % in floating point."
    )
    return markdown(["switches", *conditions], rows) + "\n\n" + note


def writing() -> str:
    result = read("experiments/results/writing.json")
    points = {(p["condition"], p["way"]): p for p in result["points"]}
    conditions, names = (list(dict.fromkeys(key[place] for key in points)) for place in (0, 1))

    def cells(name: str) -> Iterator[str]:
        for condition in conditions:
            p = points[condition, name]
            yield f"{p['rms']:.2f} ± {p['rms_std']:.2f} ({p['largest']:.0f})"
            yield f"{p['writes']:.2f} ({p['again']:.2f})"

    header = ["written", *(text for c in conditions for text in (f"{c}: rms (largest)", "writes (again)"))]
    side, std, seeds = (result["setting"][key] for key in ("side", "std", "seeds"))
    note = (
        "Error of a weight of 8 bits, weight units, and writes of cells a weight, in brackets those that were not a "
        f"cell's first: {side} x {side} weights with a standard deviation of {std:.0f} in pairs of 2-bit cells, "
        f"centred; mean ± std of {len(seeds)} draws. Writes of verified cells are expected ones; a cell that is not "
        "close after 101 stays as it is."
    )
    return markdown(header, [[name, *cells(name)] for name in names]) + "\n\n" + note


def crimp() -> str:
    result = read("experiments/results/crimp.json")
    networks = result["summary"]
    conditions = {"faults_eps0.1": "faults, sigma 0.1", "eps0.5": "no faults, sigma 0.5"}

    def cells(n: dict[str, Any], key: str) -> list[str]:
        p, once, at_once = n[key], n.get(f"{key}_once"), n[f"{key}_at_once"]["chips"]
        few = [p["chips"][: len(at_once)], once["chips"] if once else [], at_once]
        if not n["chip"]["mitigation"].get("rewrites"):
            few[:2] = [], few[0]
        means = (f"{sum(chips) / len(chips):.1f}" if chips else "-" for chips in few)
        return [f"{p['mean']:.1f} ± {p['std']:.1f} ({p['worst']:.1f})", ", ".join(means)]

    rows = [
        [
            name,
            f"{n['float_accuracy']:.1f}",
            f"{n['before']['mean']:.1f} ({len(n['before']['chips'])})",
            f"{n['clean_accuracy']:.1f}",
            *(text for key in conditions for text in cells(n, key)),
            f"{n['sparsity']:.1f}",
            f"{n['crossbars_before']} -> {n['crossbars_after']}",
            *(f"{n[key]:.1f}, {n[f'{key}_16bit']:.1f}" for key in ("power_ratio", "area_ratio")),
            _epochs(n),
        ]
        for name, n in networks.items()
    ]
    header = [
        "network",
        "float [%]",
        "before, faults [%] (chips)",
        "integers [%]",
        *(title for text in conditions.values() for title in (f"{text} [%] (worst)", "again, once, at once")),
        "sparsity [%]",
        "crossbars",
        "computing power",
        "area",
        "epochs: float + phases + settling + chip",
    ]
    power, area, power16, area16 = (
        result[f"{key}_geometric_mean"]
        for key in ("power_ratio", "area_ratio", "power_ratio_16bit", "area_ratio_16bit")
    )
    note = (
        "Power and area: how many times less than before, where weights are of 8 bits, and where they are of 16, as "
        f"those of ISAAC are. Geometric means over {', '.join(result['geometric_mean_of'])}: "
        f"{power:.1f} and {power16:.1f}, {area:.1f} and {area16:.1f}. "
        "onnxruntime gives other integers than our interpreter on "
        + ", ".join(
            f"{n['onnx']['different']} of {n['onnx']['images']} images ({name})" for name, n in networks.items()
        )
        + ". Evaluated on "
        + ", ".join(f"{n['images']} test images ({name})" for name, n in networks.items())
        + ". Scales and biases: "
        + "; ".join(f"{kind}: {', '.join(names)}" for kind, names in _integers(networks).items())
        + "."
    )
    return markdown(header, rows) + "\n\n" + note


def _integers(networks: dict[str, Any]) -> dict[str, list[str]]:
    """Which networks have which integers."""
    found: dict[str, list[str]] = {}
    for name, n in networks.items():
        weights, inputs = n["chip"]["weights"], n["chip"]["inputs"]
        kind = f"weights {weights['rounding']}, inputs {inputs['rounding']}, biases of {weights['bias_bits']} bits"
        found.setdefault(kind, []).append(name)
    return found


CRIMP = {
    "lenet5": {"float": 99.21, "faults_eps0.1": 99.21 - 98.60, "sparsity": 94.89, "power": 430},
    "vgg16": {"float": 93.28, "faults_eps0.1": 93.28 - 91.09, "eps0.5": 93.28 - 90.31, "sparsity": 88.25, "power": 36},
    "resnet56": {
        "float": 93.34,
        "faults_eps0.1": 93.34 - 92.08,
        "eps0.5": 93.34 - 91.88,
        "sparsity": 51.36,
        "power": 15,
    },
}
"""accuracy in floating point, its drops, points, and sparsities, %, of Huai et al. 2023; computing power as read off
their figure"""


def published() -> str:
    networks = read("experiments/results/crimp.json")["summary"]

    def row(name: str, n: dict[str, Any]) -> list[str]:
        theirs = CRIMP[n.get("after") or name]
        drops = [
            f"{n[key]['drop']:.2f} / {theirs[key]:.2f}" if key in theirs else f"{n[key]['drop']:.2f} / not given"
            for key in ("faults_eps0.1", "eps0.5")
        ]
        power = f"{n['power_ratio']:.1f}, {n['power_ratio_16bit']:.1f} / {theirs['power']}"
        return [
            name,
            f"{n['float_accuracy']:.1f} / {theirs['float']:.1f}",
            *drops,
            f"{n['sparsity']:.2f} / {theirs['sparsity']:.2f}",
            power,
        ]

    header = [
        "ours / published",
        "float [%]",
        "drop, faults, sigma 0.1",
        "drop, sigma 0.5",
        "sparsity [%]",
        "computing power",
    ]
    ours = {name: n for name, n in networks.items() if (n.get("after") or name) in CRIMP}
    again = [name for name, n in ours.items() if n["chip"]["mitigation"].get("rewrites")]
    note = (
        f"Cells are written again where that pays in {', '.join(again) or 'none'}; each once in the others. "
        "Measured on " + ", ".join(f"{n['images']} test images ({name})" for name, n in ours.items()) + "."
    )
    return markdown(header, [row(name, n) for name, n in ours.items()]) + "\n\n" + note


def ablation() -> str:
    points = read("experiments/results/crimp.json")["ablation"]
    if "whole recipe" not in points or len(points) < 2:
        return UNMEASURED
    whole = points["whole recipe"]

    def row(name: str, p: dict[str, Any]) -> list[str]:
        """One network."""
        return [
            name,
            f"{p['clean_accuracy']:.1f}",
            f"{p['mean']:.1f} ± {p['std']:.1f} ({p['worst']:.1f})",
            "" if p is whole else f"{p['mean'] - whole['mean']:+.1f}",
            f"{100 * p['sparsity']:.1f}",
            str(p["crossbars_after"]),
        ]

    others = sorted((p["mean"], name) for name, p in points.items() if p is not whole)
    rows = [row("whole recipe", whole), *(row(name, points[name]) for _, name in others)]
    o = whole["options"]
    note = (
        f"ResNet-20, {whole['mean'] + whole['drop']:.1f} % in floating point; {len(whole['chips'])} programmed chips, "
        f"{o['images']} test images. {o['epochs']} epochs of phases, {o['settle_epochs']} of settling and "
        f"{o['chip_epochs']} on the chip, of {o['epoch_images']} images each; another chip every "
        f"{o['reprogram_every']} steps."
    )
    header = ["", "integers [%]", "faults, sigma 0.1 [%] (worst)", "against the whole", "sparsity [%]", "crossbars"]
    return markdown(header, rows) + "\n\n" + note


def _epochs(network: dict[str, Any]) -> str:
    epochs, options = network["epochs"], network["options"]
    counts = [epochs["crimp"], options.get("settle_epochs", 0), epochs["chip"]]
    if network["after"]:
        return f"those of {network['after']}, then " + " + ".join(map(str, counts))
    short = options.get("epoch_images")
    return " + ".join(map(str, [epochs["float"], *counts])) + (f", the last three of {short:,} images" if short else "")


def ranking() -> str:
    result = read("experiments/results/ranking.json")
    points = result["points"]
    dense = result["power_W"]
    rows = [
        [
            f"{p['unit']}{'s' if p['unit'] in ('row', 'column') else ''}",
            p["rank"],
            f"{100 * p['sparsity']:.0f}",
            f"{p['accuracy']:.1f}",
            str(p["crossbars"]),
            f"{dense / p['power_W']:.2f}",
        ]
        for p in points
    ]
    note = (
        f"{result['setting']['run']}, {result['float']:.1f} % before, {result['crossbars']} crossbars; accuracy on "
        f"{result['setting']['images']} test images, batch-norm statistics re-estimated, nothing trained."
    )
    header = ["what goes", "ranked by", "weights gone [%]", "accuracy [%]", "crossbars left", "power, times less"]
    return markdown(header, rows) + "\n\n" + note


def adc_models() -> str:
    meanings = {
        "isaac": "one paper's: ISAAC Table I (2 mW at 1.28 GS/s, 8 bits), over bits as `100 b + 0.001 * 4^b`",
        "survey": "the better published: regression over the Murmann survey (arXiv:2404.06553; coefficients of "
        "hwcomponents-adc, MIT)",
        "median": "the median published: least absolute deviations through the same survey "
        "(`experiments/adc_survey.py`; data BSD 3-clause)",
        "zigzag": "one tool's: ZigZag-IMC, `(100 b + 0.001 * 4^b) fF * V^2` at 28 nm, capacitances going with the node",
        "table": "the conversion in the chip's own cost table",
    }
    found = read("experiments/results/adc_survey.json")

    def share(model: str, what: str) -> str:
        if model not in found:
            return ""
        point = found[model][what]
        return f"{100 * point['share_that_takes_less']:.0f} % ({point['median_over_model']:.1f} x)"

    rows = [[f"`{m}`", meaning, share(m, "energy"), share(m, "area")] for m, meaning in meanings.items()]
    note = (
        f"Of {found['median']['energy']['designs']} published Nyquist ADCs of 4 to 10 effective bits, 10 MS/s to 10 "
        "GS/s, 10 to 140 nm: how many take less than the model says of an ADC like them, and in brackets the median of "
        "theirs over the model's."
    )
    return markdown(["`adc.model`", "what it is", "energy: less", "area: less"], rows) + "\n\n" + note


def surrogate() -> str:
    result = read("experiments/results/surrogate.json")
    setting, found, rows = result["setting"], result["summary"], list[list[str]]()
    networks = list(dict.fromkeys(p["network"] for p in result["points"]))
    for name in [*networks, "all"]:
        own = [p for p in result["points"] if name in ("all", p["network"])]
        held = [p for p in own if p["holds"]]
        near = [sum(abs(p["difference"]) <= n * p["exact_error"] for p in held) for n in (1, 2)]
        worst = max((p["difference"] for p in held), key=abs)
        mean = sum(p["difference"] for p in held) / len(held)
        rms = (sum(p["difference"] ** 2 for p in held) / len(held)) ** 0.5
        row = [str(len(own)), str(len(held)), *map(str, near), f"{mean:+.1f}", f"{rms:.1f}", f"{worst:+.1f}"]
        rows.append([name, *row])
    bad = max((p["difference"] for p in result["points"] if not p["holds"]), key=abs, default=0.0)
    header = ["network", "points", "hold", "within 1 standard error", "within 2", "mean difference", "rms", "largest"]
    note = (
        f"Bits of the ADC, range policies and sigma of programming error 0 and 0.1; {setting['images']} test images, "
        f"{setting['chips']} chips where cells err. Differences in points of accuracy, over the points that hold; the "
        f"largest of those that do not is {bad:+.1f}. Over the {found['held']} points that hold, the sum of squares of "
        f"differences in standard errors of the exact accuracy is {found['chi_square']}; in standard errors of the "
        f"difference itself, of the same images and chips, {found['within_the_standard_error_of_the_difference']} lie "
        f"within one and {found['within_two_of_the_difference']} within two, and the sum is "
        f"{found['chi_square_of_the_difference']}."
    )
    return markdown(header, rows) + "\n\n" + note


def surrogate_training() -> str:
    result = read("experiments/results/surrogate_training.json")
    setting, found = result["setting"], result["difference"]
    times = {kind: [p["cpu_s"] for p in result["points"] if p["simulation"] == kind] for kind in ("exact", "surrogate")}
    rows = [
        [kind, f"{result[kind]['mean']:.2f} ± {result[kind]['std']:.2f}", f"{sum(cpu) / len(cpu):.1f} s"]
        for kind, cpu in times.items()
    ]
    note = (
        f"{setting['network']} on {setting['data']}, rram-22nm with {', '.join(setting['keys'])}: {setting['epochs']} "
        f"epochs, the last {setting['exact_epochs']} exact with the surrogate; {result['before']:.2f} % before; "
        f"{len(times['exact'])} trainings of each kind, {setting['chips']} chips. Difference {found['mean']:+.2f} ± "
        f"{found['standard_error']:.2f} points (standard error). CPU time is of the whole recipe with its evaluations."
    )
    return markdown(["simulation", "on chips %", "CPU time"], rows) + "\n\n" + note


def surrogate_speed() -> str:
    ratios = read("benchmarks/results/surrogate.json")["ratios"]
    networks = list(dict.fromkeys(key.split("/")[0] for key in ratios))
    kinds = [f"{what}/{word}" for what in ("evaluation", "training") for word in ("fp32", "bf16")]
    rows = [[name, *(f"{ratios[f'{name}/{kind}']:.2f}" for kind in (*kinds, "evaluation/exact"))] for name in networks]
    return markdown(["network", *(kind.replace("/", ", ") for kind in kinds), "exact evaluation, fp32"], rows)


def goals() -> str:
    note = (
        "Times over a plain pass or step of the same network, CPU seconds, or how many times as fast two threads are; "
        "CPU time on one thread but for those. Before: an earlier version on the same machine; of the surrogate, its "
        "first version. Limit: what conversions of VGG-8 take at 4.3 GHz if permutations alone bound them "
        "(docs/kernels.md), over the plain pass or step, and the share of it that is reached. Not measured: GPUs."
    )
    return markdown(targets.HEADER, targets.rows()) + "\n\n" + note


def coverage() -> str:
    result = read("benchmarks/results/coverage.json")
    notes = [
        "Random weights, constant parameters randomized, batch norms with the statistics of the batch that is asked, "
        "which also sets the ranges. "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + ". Errors: root mean square over the answers' deviation; plain quantization: 8-bit weights, symmetric by "
        "channel, 8-bit inputs, affine by tensor. Seconds: CPU time of one thread, medians.",
        *coverage_tables.notes(result["models"]),
    ]
    return "\n\n".join([markdown(*coverage_tables.summary(result["models"])), *notes])


def coverage_less() -> str:
    return markdown(*coverage_tables.less(read("benchmarks/results/coverage.json")["models"]))


def language() -> str:
    result = read("experiments/results/language_model.json")
    rows = result["rows"]

    def cell(key: str) -> str:
        if key not in rows:
            return "not measured"
        chips = rows[key]["chips"]
        return f"{statistics.mean(chips):.3f} ± {statistics.stdev(chips):.3f}"

    def row(encoding: str, bits: int) -> list[str]:
        plain = f"{encoding}, {bits} bits, none"
        energy = f"{1e6 * rows[plain]['energy_J']:.1f}"
        return [encoding, str(bits), cell(plain), cell(f"{encoding}, {bits} bits, on the chip"), energy]

    first = next(iter(rows.values()))
    note = (
        f"Perplexity per byte of {result['windows']} windows of 128 bytes of text kept from training, mean ± std of "
        f"{len(first['chips'])} chips (rram-22nm, programming error {result['sigma']:g}, one range for each slice and "
        f"digit). Without a chip {first['float']:.2f}; "
        f"{100 * first['digital_share']:.0f} % of the multiplications are digital. Energy is that of a window."
    )
    header = ["encoding", "ADC bits", "untrained for the chip", "trained on the chip", "energy [uJ]"]
    return markdown(header, [row(e, b) for e in ("offset", "pair") for b in (8, 6, 5)]) + "\n\n" + note


def language_layers() -> str:
    result = read("experiments/results/language_model.json")
    found = result.get("sensitivity")
    if found is None:
        return UNMEASURED
    kinds: dict[str, list[float]] = {}
    for name, error in found.items():
        kinds.setdefault(name.split(".", 2)[-1] if name.startswith("blocks") else name, []).append(error)
    ranked = sorted(kinds.items(), key=lambda item: -statistics.mean(item[1]))
    rows = [[kind, *(f"{error:.1e}" for error in (statistics.mean(e), max(e)))] for kind, e in ranked]
    first = list(found)[:3]
    note = f"Offset columns, 6 ADC bits, 3 chips, 64 windows. Most sensitive: {', '.join(first)}."
    return markdown(["layer of a block", "error, mean of the blocks", "worst"], rows) + "\n\n" + note


TABLES = (
    goals,
    adc_models,
    conventional,
    variation,
    recipes,
    policies,
    fewer_bits,
    mappings,
    assignment,
    front,
    speed,
    training,
    threads,
    growth,
    install,
    calibration,
    calibration_accuracy,
    adaptation,
    writing,
    crimp,
    published,
    ablation,
    ranking,
    surrogate,
    surrogate_training,
    surrogate_speed,
    coverage,
    coverage_less,
    language,
    language_layers,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is out of date")
    options = parser.parse_args()
    stale: list[str] = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        old = new = path.read_text()
        for make in TABLES:
            pattern = rf"(<!-- table: {make.__name__} -->\n).*?(<!-- end -->)"
            new = re.sub(pattern, lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", new, flags=re.DOTALL)
        if new != old:
            stale.append(path.name)
            if not options.check:
                path.write_text(new)
    if options.check and stale:
        sys.exit(f"{', '.join(stale)}: not what the results say; run experiments/tables.py")


if __name__ == "__main__":
    main()
