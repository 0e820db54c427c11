"""Claim: one training process makes a network integer-only, sparse by whole crossbars, and sound on faulty cells.

Networks trained on CIFAR-10 (JPEG q75) and LeNet-5 on the digits, then `bitline optimize crimp` on crimp-32nm
(128 x 128, 8-bit weights on 2-bit cells, ADC that rounds to integers), with each weight in a pair of cells where the
options of a network say so. Every accuracy is a direct simulation of --chips programmed chips on --images test images:
with stuck-at faults (9.04 % off, 1.75 % on) and log-normal programming error 0.1, and the same network without faults
at 0.5; and, on five chips, with every cell written once, and with all of them at once instead of in turn with each
read back. What the paper trains for 160 epochs is trained here for as many as the result states.
Hardware, runtime, n, mean, std and worst: written into the result.

    python experiments/crimp.py [--only lenet5 resnet20 ablation]

Every step is a run directory below --out, or a point of the result; a run that was stopped goes on where it was. Float
networks that experiments/networks keeps are not trained again.
"""

import argparse
import fcntl
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bitline import chip as chips
from bitline import data as datasets
from bitline.chip.cell import Faults
from bitline.chip.description import Chip
from bitline.compress.prune.sparsity import placement, sparsity, weights
from bitline.cost.computing import compare, computing, multiplies
from bitline.evaluation import Evaluation, Settings, Spread, assess, load
from bitline.files import AFTER, BEFORE, MANIFEST, METRICS, PRUNING, RECIPE, read_json, write_json
from bitline.models.files import load_run
from bitline.recipes import checked
from bitline.recipes.files import Deployment
from bitline.recipes.run import optimize
from bitline.train import checked as checked_training
from bitline.train.hardware import describe, git_commit
from bitline.train.run import train

RESULT = Path(__file__).parent / "results" / "crimp.json"
KEPT = Path(os.path.relpath(Path(__file__).parent / "networks"))
"""float networks, by their entries here"""
CHIP = "crimp-32nm"
FAULTS = "faults_eps0.1"
"""what the preset has"""
SIGMA = 0.5
"""of the other condition, without faults"""
COMPARED = 5
"""chips whose cells are written at once, or each only once, for comparison"""
PAIRS = ("weights.encoding=pair", "mitigation.remap=true")
"""two cells a weight, so that a working one makes up for a stuck one; the cost of twice the cells is counted; and
kernels in the columns whose stuck cells hurt them least, as a test before programming tells"""
ON_PAIRS: dict[str, Any] = {"overrides": PAIRS, "lr": 0.02, "chip_lr": 1e-3, "reprogram_every": 4, "chips_before": 3}
OFF: dict[str, dict[str, Any]] = {
    "whole recipe": {},
    "no zerorize-recover": {"zerorize": False},
    "no kernel groups": {"kernel_groups": False},
    "no crossbar blocks": {"crossbar_blocks": False},
    "no integers": {"integer": False},
    "no adaptation": {"reprogram_every": 0},
    "no compensation": {"error_compensation": False},
    "no readback": {"readback": False},
    "no distillation": {"distill": 0.0},
    "no L1": {"l1": 0.0},
    "rank by factors": {"rank": "factor"},
}
"""one ingredient off at a time"""
FEW = 5
"""chips of the ablation, the first of those of the whole recipe"""


@dataclass(frozen=True)
class Network:
    """What is trained, how sparse it becomes, and for how long."""

    model: str
    sparsity: float
    data: str = "cifar10"
    width: float = 1.0
    epochs: int = 20
    """of the float network"""
    crimp_epochs: int = 20
    chip_epochs: int = 2
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """of the recipe"""
    float_options: dict[str, Any] = field(default_factory=dict[str, Any])
    """of the float training"""
    after: str = ""
    """the entry whose finished network is pruned further; its float network is the teacher"""


NETWORKS = {
    "lenet5": Network(
        "lenet5",
        0.87,
        data="digits",
        epochs=40,
        crimp_epochs=60,
        chip_epochs=10,
        options={"overrides": PAIRS, "chip_lr": 1e-3, "batch_size": 64},
    ),
    "resnet20": Network(
        "resnet20",
        0.5136,
        epochs=15,
        crimp_epochs=6,
        chip_epochs=1,
        options={
            **ON_PAIRS,
            "zero_start": 0.0,
            "settle_epochs": 6,
            "epoch_images": 12800,
            "reprogram_every": 16,
            "chips_before": 1,
        },
    ),
    "resnet56": Network(
        "resnet56",
        0.5136,
        epochs=10,
        crimp_epochs=2,
        chip_epochs=4,
        float_options={"schedule": "onecycle", "lr": 0.1},
        options={**ON_PAIRS, "settle_epochs": 12, "rounding": "up"},
    ),
    "vgg16": Network(
        "vgg16",
        0.8825,
        epochs=8,
        crimp_epochs=2,
        chip_epochs=1,
        float_options={"schedule": "onecycle", "lr": 0.05},
        options={**ON_PAIRS, "kernel_share": 0.8, "settle_epochs": 5, "chips_before": 1, "reprogram_every": 64},
    ),
    "vgg16_sparser": Network(
        "vgg16",
        0.954,
        after="vgg16",
        crimp_epochs=1,
        chip_epochs=0,
        options={**ON_PAIRS, "kernel_groups": False, "settle_epochs": 3, "chips_before": 1, "reprogram_every": 32},
    ),
}
"""sparsities are the paper's; ResNet-20, which it does not have, takes that of ResNet-56, and LeNet-5 what crossbars of
128 x 128 allow, of which every layer keeps one; the sparser VGG-16 has what a 36th of the power needs; ResNet-20 has a
quick schedule, for comparisons"""


def figures(evaluation: Evaluation, origin: float, count: int | None = None) -> dict[str, Any]:
    """Accuracy of a recipe's network on its first programmed chips, and how far it is below the float network's."""
    chips = list(evaluation.accuracy.chips[:count])
    spread = Spread.of(chips)
    return {**spread.to_json(), "chips": chips, "drop": origin - spread.mean}


def without_faults(chip: Chip) -> Chip:
    """The chip of the other condition."""
    programming = chip.cell.programming.model_copy(update={"sigma": SIGMA})
    cell = chip.cell.model_copy(update={"programming": programming, "faults": Faults()})
    return chip.model_copy(update={"cell": cell})


def once(chip: Chip, *, readback: bool = True) -> Chip:
    """The chip when each cell is written once, and without readback all of them before any is read."""
    mitigation = chip.mitigation.model_copy(update={"readback": readback, "rewrites": 0})
    return chip.model_copy(update={"mitigation": mitigation})


def ideal(folder: Path) -> float:
    """Accuracy of a recipe's network in integers, on cells without errors."""
    return load(folder / AFTER).accuracy.ideal_integer


class Study:
    """The result file and what fills it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.result = self.read()

    def read(self) -> dict[str, Any]:
        """The result as it is by now; several processes may add to it."""
        path = self.options.result
        return read_json(path) if path.is_file() else {"summary": {}, "ablation": {}}

    def save(self, key: str, name: str, found: dict[str, Any]) -> None:
        """Add one entry, and write the result whole or not at all."""
        self.options.result.parent.mkdir(parents=True, exist_ok=True)
        with (self.options.out / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._add(key, name, found | {"hardware": describe(), "commit": git_commit()})

    def _add(self, key: str, name: str, found: dict[str, Any]) -> None:
        self.result = self.read()
        self.result[key][name] = found
        own = [name for name, network in NETWORKS.items() if not network.after]
        self.result["geometric_mean_of"] = [name for name in own if name in self.result["summary"]]
        summary = [self.result["summary"][name] for name in self.result["geometric_mean_of"]]
        for key in ("power_ratio", "area_ratio", "power_ratio_16bit", "area_ratio_16bit"):
            values = [network[key] for network in summary if key in network]
            if values:
                self.result[f"{key}_geometric_mean"] = math.exp(math.fsum(map(math.log, values)) / len(values))
        write_json(self.options.result, self.result)

    def start(self, name: str) -> Path:
        """Return the float network that a recipe starts from; one that is kept must be what would be trained."""
        name = NETWORKS[name].after or name
        network, kept = NETWORKS[name], KEPT / name
        config = checked_training(
            model=network.model,
            width=network.width,
            data=network.data,
            epochs=network.epochs,
            threads=self.options.threads,
            checkpoint_every=100,
            out=kept if kept.is_dir() else self.options.out / name / "float",
            **network.float_options,
        )
        folder = config.run_dir
        return train(config, if_exists="resume" if folder.exists() else "refuse")

    def recipe(self, name: str, label: str, **changes: Any) -> Path:
        """Run the recipe on a network."""
        network, options = NETWORKS[name], self.options
        run, share, teacher = self.start(name), network.sparsity, {}
        if network.after:
            run, teacher = self.recipe(network.after, "crimp"), {"teacher": run}
            share = 1 - (1 - share) * weights(load_run(teacher["teacher"]).model) / weights(load_run(run).model)
        config = checked(
            **{
                "run": run,
                "recipe": "crimp",
                "chip": CHIP,
                "sparsity": share,
                **teacher,
                "epochs": network.crimp_epochs,
                "chip_epochs": network.chip_epochs,
                "chips": options.chips,
                "images": options.images,
                "threads": options.threads,
                "checkpoint_every": 100,
                "out": options.out / name / label,
                **network.options,
                **changes,
            }
        )
        if options.images and options.images > len(datasets.load(network.data).test_images):
            config = config.model_copy(update={"images": None})
        return optimize(config, if_exists="resume", say=lambda line: print(f"{name}, {label}: {line}", flush=True))

    def measured(self, folder: Path, label: str, chip: Chip, chips: int) -> Evaluation:
        """Evaluate a recipe's network on another chip, once."""
        path = folder / f"evaluation_{label}.json"
        if not path.is_file():
            run = load_run(folder)
            data = datasets.load(run.record.data)
            settings = Settings(
                chips=chips, images=min(self.options.images, len(data.test_images)), bias_correction=True, cause_chips=1
            )
            write_json(path, assess(run.model, data, chip, settings, name=run.record.model).to_json())
        return load(path)

    def network(self, name: str) -> None:
        """Take a network from float training to its figures."""
        folder, network = self.recipe(name, "crimp"), NETWORKS[name]
        whole = self.options.out / (network.after or name)
        origin, pruning = load_run(self.start(name)), read_json(folder / PRUNING)
        start = load(whole / "crimp" / BEFORE)
        before = start.accuracy
        deployment = Deployment.of(folder)
        assert deployment is not None
        chip, count = deployment.chip, self.options.chips
        evaluations = {
            FAULTS: load(folder / AFTER),
            "eps0.5": self.measured(folder, "eps0.5", without_faults(chip), count),
            **{
                f"{key}_{name}": self.measured(folder, f"{key}_{name}", once(of, readback=name == "once"), COMPARED)
                for key, of in ((FAULTS, chip), ("eps0.5", without_faults(chip)))
                for name in ("once", "at_once")
            },
        }
        found = {key: figures(evaluation, before.float) for key, evaluation in evaluations.items()}
        prices = self.prices(origin.model, folder, origin.record.data)
        entry = {
            "float_accuracy": before.float,
            "sparsity": 100 * sparsity(origin.model, load_run(folder).model),
            "clean_accuracy": ideal(folder),
            **found,
            **prices,
            "crossbars_after": pruning["crossbars_after"],
            "options": read_json(folder / RECIPE)["settings"],
            "epochs": {
                "float": NETWORKS[network.after or name].epochs,
                "crimp": network.crimp_epochs,
                "chip": network.chip_epochs,
            },
            "after": network.after,
            "images": start.data.count,
            "seeds": list(range(self.options.chips)),
            "training_s": {p.parent.name: read_json(p).get("seconds") for p in folder.glob(f"*/{METRICS}")},
            "onnx": self.onnx(folder),
            "before": before.model_dump(mode="json"),
            "chip": deployment.chip.model_dump(mode="json"),
            "run": str(folder.relative_to(self.options.out)),
        }
        self.save("summary", name, entry)

    def onnx(self, folder: Path) -> dict[str, Any]:
        """Export the integer network and count the images on which onnxruntime gives other integers."""
        out, check = self.options.out / "onnx" / folder.parent.name, str(self.options.onnx_images)
        command = [sys.executable, "-m", "bitline", "export", folder, "--to", "onnx", "--check", check, "--out", out]
        subprocess.run(command, check=True)
        return read_json(out / MANIFEST)["check"]

    def prices(self, before: torch.nn.Module, folder: Path, data: str) -> dict[str, float]:
        """Compare the computing power and area of two networks: crossbars, multipliers and sparsity tables.

        The network before is on the preset, with its 8-bit weights and, as those of ISAAC are, with weights of 16 bits;
        which of them the paper means, it does not say. The one after is on the chip of its recipe: pairs of cells count
        against it.
        """
        after, deployment = load_run(folder).model, Deployment.of(folder)
        assert deployment is not None
        example = next(datasets.load(data).batches("test", batch_size=2, limit=2))[0]
        small = computing(placement(after, deployment.chip, example), fp_multipliers=multiplies(deployment.chip))
        found: dict[str, float] = {}
        for bits, suffix in ((8, ""), (16, "_16bit")):
            whole = placement(before, chips.load(CHIP, (f"weights.bits={bits}",)), example)
            ratios = compare(computing(whole, fp_multipliers=True), small)
            found |= {f"power_ratio{suffix}": ratios.power, f"area_ratio{suffix}": ratios.area}
            found[f"crossbars_before{suffix}"] = whole.crossbars
        return found

    def ablation(self) -> None:
        """Switch one ingredient off at a time."""
        wanted = self.options.ingredients or OFF
        for label, changes in ((label, OFF[label]) for label in wanted):
            if label not in self.result["ablation"]:
                different = {"chips": FEW, **changes} if changes else {}
                folder = self.recipe("resnet20", label.replace(" ", "_") if changes else "crimp", **different)
                found = figures(load(folder / AFTER), load(folder / BEFORE).accuracy.float, FEW)
                found |= read_json(folder / PRUNING) | {
                    "clean_accuracy": ideal(folder),
                    "options": read_json(folder / RECIPE)["settings"],
                }
                self.save("ablation", label, found)


def main() -> None:
    """Measure what the result does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="STEP", help=f"{', '.join(NETWORKS)}, or ablation")
    parser.add_argument(
        "--ingredients", nargs="+", choices=OFF, metavar="ENTRY", help=f"of the ablation: {', '.join(OFF)}"
    )
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--onnx-images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/crimp"))
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    study = Study(options)
    steps: dict[str, Callable[[], None]] = {name: lambda name=name: study.network(name) for name in NETWORKS}
    steps["ablation"] = study.ablation
    unknown = [name for name in options.only or () if name not in steps]
    if unknown:
        parser.error(f"no step {unknown[0]!r}; steps: {', '.join(steps)}")
    for name in options.only or steps:
        steps[name]()
    for name, n in study.result["summary"].items():
        drops = ", ".join(f"{key}: {n[key]['mean']:.2f} ± {n[key]['std']:.2f} %" for key in (FAULTS, "eps0.5"))
        print(f"{name}: float {n['float_accuracy']:.2f} %, integers {n['clean_accuracy']:.2f} %, {drops}")
    for name, p in study.result["ablation"].items():
        print(f"{name}: {p['mean']:.2f} ± {p['std']:.2f} %")


if __name__ == "__main__":
    main()
