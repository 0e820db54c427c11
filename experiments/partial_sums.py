"""Claim: at 4-bit ADCs partial sums cost a conventional VGG-8 tens of points, and co-optimization wins them back.

A network that avoids them (group), crossbars deployment for one that does (separable), or training that knows of them
(psum-aware), for less energy. Network: half-width VGG-8 trained on CIFAR-10 (JPEG q75), experiments/networks/vgg8-half,
start and teacher of every recipe. Chip: rram-22nm (128 x 128, 8-bit weights on 2-bit cells, 8-bit inputs one bit at a
time, offset encoding) with 4-bit ADCs, one range a layer, and log-normal programming error 0.05. The same programmed
chips (--chips) and test images (--images) for all; --epochs of training at most, --chip-epochs of them on the chip
where the recipe trains there. Hardware, runtime, n, mean and std: written into the result.

    python experiments/partial_sums.py experiments/networks/vgg8-half [--only group separable]

Every step is a run directory below --out, or a point of the result; a run that was stopped goes on where it was.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bitline import chip as chips
from bitline import data as datasets
from bitline.evaluation import Evaluation, Settings, accuracy, assess, load, put_on_chip, sweep
from bitline.files import AFTER, BEFORE, FRONT, METRICS, UNTRAINED, read_json, write_json
from bitline.models.files import load_run
from bitline.recipes import Recipe, checked
from bitline.recipes.files import Deployment
from bitline.recipes.run import optimize
from bitline.recipes.structure import restructure
from bitline.train.hardware import describe, git_commit

RESULT = Path(__file__).parent / "results" / "partial_sums.json"
CHIP, BITS, SIGMA = "rram-22nm", 4, 0.05
LAYER = (f"adc.bits={BITS}", f"cell.programming.sigma={SIGMA}", "adc.granularity=layer")
FIRST = {"features.conv1.0": "digital"}
"""images are signed and a patch of one is nearly constant: the first layer loses most at 4 bits and costs little"""
DIGITAL = {"depthwise": "digital", **FIRST}
"""the mapping of least energy: see `mappings` in the result, which has them all"""
SLICE_DIGIT = (*LAYER[:2], "adc.granularity=slice_digit")
PAIRS = "weights.encoding=pair"
"""two cells a weight, subtracted before the conversion: as many conversions on twice the cells"""
SEGMENTED = (*SLICE_DIGIT, "crossbar.segment_rows=9")
OWN = {"granularity": "slice_digit", "reprogram_every": 0, "chip_lr": 3e-5, "range_lr": 3e-3}
VARY = ("structure", "height", "adc_bits", "columns_per_adc", "encoding", "input_bits", "weight_bits")
RECIPES: dict[str, dict[str, Any]] = {
    "group": {"recipe": "group", "mapping": FIRST, **OWN},
    "separable": {"recipe": "separable", **OWN, "mapping": DIGITAL},
    "psum_aware": {"recipe": "psum-aware", **OWN, "chip_lr": 2e-5},
    "psum_aware_digital_first": {"recipe": "psum-aware", "mapping": FIRST, **OWN, "chip_lr": 2e-5, "chip_epochs": 2},
    "psum_aware_pairs": {"recipe": "psum-aware", "overrides": (*LAYER, PAIRS), **OWN, "chip_lr": 2e-5},
    "group_mix": {"recipe": "group", "mix": True, "mapping": FIRST, **OWN},
    "conventional": {"recipe": "conventional"},
    "quantization_aware": {"recipe": "quantization-aware", "chip_lr": 3e-5},
    "psum_aware_layer": {"recipe": "psum-aware", **OWN, "granularity": "layer"},
    "psum_aware_column": {"recipe": "psum-aware", **OWN, "granularity": "column"},
    "auto": {"recipe": "auto", "mapping": DIGITAL, **OWN, "vary": VARY, "trials": 25, "front": 1},
}
"""in the order of their worth to the claim; the range of a layer, slice and digit is learnt but where said otherwise"""
MAPPINGS = ("naive", "packed", "strip", "digital")
POLICIES = {
    "full": ("adc.policy=full",),
    "calibrated / layer": ("adc.granularity=layer",),
    "calibrated / slice": ("adc.granularity=slice",),
    "calibrated / slice and digit": ("adc.granularity=slice_digit",),
    "calibrated / column": ("adc.granularity=column",),
    "pairs, calibrated / layer": ("adc.granularity=layer", PAIRS),
    "pairs, calibrated / slice and digit": ("adc.granularity=slice_digit", PAIRS),
}
FEWER_BITS = (3,)
"""where ranges per slice and digit fail too"""


class Study:
    """The result file and what fills it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.origin = load_run(options.run)
        self.data = datasets.load(self.origin.record.data)
        self.settings = Settings(chips=options.chips, images=options.images, cause_chips=1)
        self.setting: dict[str, Any] = {
            "network": options.run.name,
            "chip": CHIP,
            "overrides": list(LAYER),
            "adc_bits": BITS,
            "sigma": SIGMA,
            "seeds": self.settings.seeds,
            "images": options.images,
            "epochs": options.epochs,
            "chip_epochs": options.chip_epochs,
            "table_chips": options.table_chips,
            "table_images": options.table_images,
        }
        self.result: dict[str, Any] = {"setting": self.setting, **{key: {} for key in SECTIONS}}
        if options.result.is_file():
            earlier = read_json(options.result)
            if earlier["setting"] == self.setting:
                self.result |= earlier

    def take(self, section: str, name: str, value: Any) -> None:
        """Keep what was measured, and write the result; of its file, what other processes measured meanwhile stays."""
        self.result[section][name] = value
        path = self.options.result
        if path.is_file() and (other := read_json(path))["setting"] == self.setting:
            for key in SECTIONS:
                self.result[key] |= other.get(key, {})
            self.result[section][name] = value
        self.save()

    def save(self) -> None:
        """Write the result whole or not at all."""
        path = self.options.result
        self.result |= {"hardware": describe(), "commit": git_commit(), "summary": self.summary()}
        write_json(path, self.result)
        if "conventional" in self.result["summary"] and self.result["table"]:
            draw(self.result, path.with_suffix(".svg"))

    def config(self, name: str) -> Recipe:
        """Return the configuration of a recipe."""
        given = {"overrides": LAYER, **RECIPES[name]}
        total, on_chip = self.options.epochs, given.pop("chip_epochs", self.options.chip_epochs)
        if given["recipe"] == "conventional":
            epochs = {"epochs": total}
        elif given["recipe"] in ("psum-aware", "quantization-aware"):
            epochs = {"epochs": 0, "chip_epochs": on_chip}
        else:
            epochs = {"epochs": total - on_chip, "chip_epochs": on_chip}
        return checked(
            run=self.options.run,
            chip=CHIP,
            **epochs,
            chips=self.options.chips,
            images=self.options.images,
            threads=self.options.threads,
            checkpoint_every=50,
            out=self.options.out / name,
            **given,
        )

    def recipe(self, name: str) -> None:
        """Run one recipe and take up what came of it."""
        config = self.config(name)
        folder = optimize(config, if_exists="resume", say=lambda line: print(f"{name}: {line}", flush=True))
        found = {
            key: load(folder / file)
            for key, file in (("before", BEFORE), ("untrained", UNTRAINED), ("after", AFTER))
            if (folder / file).is_file()
        }
        taken = {key: point(evaluation) for key, evaluation in found.items()} | {
            "run": folder.name,
            "settings": config.model_dump(mode="json", exclude={"run", "out", "data_dir", "threads"}),
            "training_s": {path.parent.name: read_json(path).get("seconds") for path in folder.glob(f"*/{METRICS}")},
        }
        if (folder / FRONT).is_file():
            taken["front"] = read_json(folder / FRONT)
        self.take("recipes", name, taken)

    def mappings(self) -> None:
        """Put the separable network on the chip under each mapping, ranges fitted in turn."""
        run = load_run(self.options.out / "separable")
        chip = chips.load(CHIP, SEGMENTED)
        for name in MAPPINGS:
            if name not in self.result["mappings"]:
                settings = Settings(
                    chips=self.options.table_chips, images=self.options.images, cause_chips=1, in_turn=True
                )
                found = assess(run.model, self.data, chip, settings, mapping={**FIRST, "depthwise": name})
                deep = [layer for layer in found.layers if layer.groups > 1 or layer.strategy != "dense"]
                parts = ("conversions", "energy_J", "area_m2", "crossbars")
                share = {key: sum(getattr(layer, key) for layer in deep) for key in parts}
                print(f"mapping {name}: {found.accuracy.mean:.1f} %, {share}", flush=True)
                self.take("mappings", name, point(found) | {"depthwise": share})

    def untrained(self) -> None:
        """Fit the ranges of the conventional network in turn, in pairs too; take its first layer off the crossbars."""
        for name, overrides, in_turn in (
            ("slice and digit, in turn, first layer digital", SLICE_DIGIT, True),
            ("first layer digital", LAYER, False),
            ("slice and digit, in turn", SLICE_DIGIT, True),
            ("pairs, slice and digit, in turn", (*SLICE_DIGIT, PAIRS), True),
        ):
            if name not in self.result["untrained"]:
                settings = replace(self.settings, in_turn=in_turn)
                mapping = FIRST if name.endswith("digital") else None
                found = assess(self.origin.model, self.data, chips.load(CHIP, overrides), settings, mapping=mapping)
                print(f"{name}: {found.accuracy.mean:.1f} %", flush=True)
                self.take("untrained", name, point(found))

    def assignment(self) -> None:
        """Group the channels in each way, without any training."""
        batches = [x for x, _ in self.data.batches("train", batch_size=64, limit=512)]
        chip = chips.load(CHIP, LAYER)
        for kind in ("best", "diagonal", "shuffle"):
            for refit in (False, True):
                name = f"{kind}, {'refitted' if refit else 'taken over'}"
                if name not in self.result["assignment"]:
                    config = self.config("group").model_copy(update={"assignment": kind, "refit": refit})
                    found = restructure(self.origin.model, batches, chip, config)
                    reached = accuracy(found.model, self.data, images=2000, batch_size=250)
                    print(f"{name}: {reached:.1f} %", flush=True)
                    kept = {layer.name: layer.kept[kind] for layer in found.report.layers}
                    self.take("assignment", name, {"float_accuracy": reached, "images": 2000, "kept": kept})

    def table(self) -> None:
        """Measure the unaware network over ADC bits, range policy and programming error."""
        settings = Settings(chips=self.options.table_chips, images=self.options.table_images, cause_chips=1)
        base = chips.load(CHIP)
        on_chip = put_on_chip(self.origin.model, self.data, base, settings)
        for sigma, bits, (policy, overrides) in itertools.product((0.05, 0.0, 0.1), (4, 5, 6, 3), POLICIES.items()):
            name = f"{policy}, {bits} bits, sigma {sigma:g}"
            if name not in self.result["table"]:
                cells = "cell.programming={kind='ideal'}" if sigma == 0 else f"cell.programming.sigma={sigma}"
                (variant,) = sweep(on_chip, base, [[*overrides, f"adc.bits={bits}", cells]])
                content = variant.to_json()
                kept = {key: content[key] for key in ("chips", "mean", "std", "worst", "energy_J", "tops_per_watt")}
                print(f"{name}: {variant.mean:.1f} %", flush=True)
                self.take("table", name, {"policy": policy, "bits": bits, "sigma": sigma, **kept})

    def fewer_bits(self) -> None:
        """Put the trained networks on ADCs of fewer bits, ranges fitted in turn, and nothing trained again."""
        settings = Settings(chips=self.options.table_chips, images=self.options.images, cause_chips=1, in_turn=True)
        runs = {"conventional": self.options.run} | {
            name: self.options.out / name for name in ("group", "separable", "psum_aware", "psum_aware_pairs")
        }
        for bits, (name, folder) in itertools.product(FEWER_BITS, runs.items()):
            key = f"{name}, {bits} bits"
            if key not in self.result["fewer_bits"]:
                deployment = Deployment.of(folder)
                chip = chips.load(CHIP, SLICE_DIGIT) if deployment is None else deployment.chip
                chip = chips.replace(chip, f"adc.bits={bits}", "adc.policy=calibrated")
                mapping = None if deployment is None else deployment.mapping or None
                found = assess(load_run(folder).model, self.data, chip, settings, mapping=mapping)
                print(f"{key}: {found.accuracy.mean:.1f} %", flush=True)
                self.take("fewer_bits", key, point(found))

    def overrides(self, recipe: str) -> list[str]:
        """What a recipe changes of the preset, and its search beside that."""
        front = self.result["recipes"][recipe].get("front", {"points": (), "kept": ""})
        found = (p["overrides"] for p in front["points"] if p["run"] == front["kept"])
        return [*RECIPES[recipe].get("overrides", LAYER), *next(found, ())]

    def summary(self) -> dict[str, Any]:
        """The figures of the claim."""
        recipes, found = self.result["recipes"], dict[str, Any]()
        offset = [name for name in recipes if PAIRS not in RECIPES[name].get("overrides", ())]
        if not offset:  # nothing that started from the conventional scheme
            return found
        before = recipes[offset[0]]["before"]
        found["float"] = {"accuracy": before["float"]}
        found["conventional"] = {key: before[key] for key in SUMMARY} | {"run": self.options.run.name}
        for name, recipe in CLAIMED.items():
            if recipe in recipes:
                after = recipes[recipe]["after"]
                found[name] = {key: after[key] for key in SUMMARY} | {
                    "run": recipes[recipe]["run"],
                    "overrides": self.overrides(recipe),
                    "points_over_conventional": after["accuracy_mean"] - found["conventional"]["accuracy_mean"],
                    "images_per_joule_over_conventional": found["conventional"]["energy_J"] / after["energy_J"],
                    "points_below_float": found["float"]["accuracy"] - after["accuracy_mean"],
                    "row_tiles_in_convolutions": after["row_tiles_in_convolutions"],
                }
        if "auto" in found:
            front = recipes["auto"]["front"]["points"]
            found["auto"]["front_no_worse"] = [
                name
                for name, other in found.items()
                if "energy_J" in other and name != "auto" and any(_no_worse(p, other) for p in front)
            ]
        return found


SECTIONS = ("recipes", "untrained", "mappings", "assignment", "table", "fewer_bits")
CLAIMED = {
    "group": "group",
    "separable": "separable",
    "psum_aware": "psum_aware_pairs",
    "psum_aware_offset": "psum_aware",
    "psum_aware_offset_digital_first": "psum_aware_digital_first",
    "auto": "auto",
}
SUMMARY = ("accuracy_mean", "accuracy_std", "accuracy_worst", "tops_per_watt", "energy_J", "area_m2")


def _no_worse(mine: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a point of a front is nowhere worse."""
    return (
        mine["accuracy"] >= other["accuracy_mean"]
        and mine["energy"] <= other["energy_J"]
        and mine["area"] <= other["area_m2"]
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Plot accuracy over energy for every recipe, and over ADC bits for every range policy."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bitline"
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    before = [("conventional", result["summary"]["conventional"])]
    if "psum_aware_pairs" in result["recipes"]:
        before.append(("conventional, pairs", result["recipes"]["psum_aware_pairs"]["before"]))
    after = [(name.replace("_", " "), recipe["after"]) for name, recipe in result["recipes"].items()]
    for name, p in (*before, *after):
        left.errorbar(1e6 * p["energy_J"], p["accuracy_mean"], p["accuracy_std"], marker="o", ms=5, capsize=3)
        right_of = not any(  # unless another point is close there
            0 < 1e6 * (q["energy_J"] - p["energy_J"]) < 2 and abs(q["accuracy_mean"] - p["accuracy_mean"]) < 3
            for _, q in (*before, *after)
        )
        left.annotate(
            name,
            (1e6 * p["energy_J"], p["accuracy_mean"]),
            (6 if right_of else -6, -3),
            textcoords="offset points",
            fontsize=8,
            ha="left" if right_of else "right",
        )
    sigma = result["setting"]["sigma"]
    for policy in POLICIES:
        mine = sorted(
            (p for p in result["table"].values() if (p["policy"], p["sigma"]) == (policy, sigma)),
            key=lambda p: p["bits"],
        )
        right.errorbar(
            [p["bits"] for p in mine],
            [p["mean"] for p in mine],
            [p["std"] for p in mine],
            marker="o",
            ms=4,
            capsize=3,
            label=policy,
        )
    for axes in (left, right):
        axes.axhline(result["summary"]["float"]["accuracy"], color="grey", lw=1, ls="--")
        axes.grid(alpha=0.3)
    bits = result["setting"]["adc_bits"]
    left.set(xlabel="energy [uJ/image]", ylabel="accuracy [%]", title=f"recipes, {bits}-bit ADC, sigma {sigma}")
    left.set_xlim(0, 1.35 * max(1e6 * p["energy_J"] for _, p in (*before, *after)))
    right.set(xlabel="ADC bits", title=f"nothing trained for the chip, sigma {sigma}", xticks=[3, 4, 5, 6])
    right.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def point(evaluation: Evaluation) -> dict[str, Any]:
    """Take from an evaluation what the claim is about."""
    a, layers = evaluation.accuracy, evaluation.layers
    return {
        "float": a.float,
        "ideal_integer": a.ideal_integer,
        "chips": list(a.chips),
        "accuracy_mean": a.mean,
        "accuracy_std": a.std,
        "accuracy_worst": a.worst,
        **{key: getattr(evaluation.cost, key) for key in ("tops_per_watt", "energy_J", "area_m2", "latency_s")},
        "conversions": sum(layer.conversions for layer in layers),
        "crossbars": sum(layer.crossbars for layer in layers),
        "row_tiles_in_convolutions": max((x.row_tiles for x in layers if x.kind == "conv2d"), default=0),
        "commit": evaluation.commit,
    }


def main() -> None:
    """Measure what the result does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of bitline train")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="recipes, untrained, mappings, assignment, table ...")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--chip-epochs", type=int, default=1)
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--table-chips", type=int, default=5)
    parser.add_argument("--table-images", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/partial_sums"))
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    study = Study(options)
    steps: dict[str, Callable[[], None]] = {name: lambda name=name: study.recipe(name) for name in RECIPES}
    steps |= {"untrained": study.untrained, "mappings": study.mappings}
    steps |= {"fewer_bits": study.fewer_bits, "table": study.table, "assignment": study.assignment}
    steps |= {"summary": study.save}
    unknown = [name for name in options.only or () if name not in steps]
    if unknown:
        parser.error(f"no step {unknown[0]!r}; steps: {', '.join(steps)}")
    for name in options.only or steps:
        steps[name]()
    print(json.dumps(study.summary(), indent=1))


if __name__ == "__main__":
    main()
