"""Claim: kernels and crossbars can go that cost no table, if what the loss would gain without them ranks them.

Half-width VGG-8 on CIFAR-10 (JPEG q75), pruned in one shot on crimp-32nm in pairs of cells (16 weight columns), not
trained afterwards but for the statistics of its batch norms. Accuracy on --images test images. Factors are |gamma|, and
those of crossbars, all ones before training, tie and fall back to the norm of the weights. Beside them single rows and
columns of crossbars, by magnitude, whose sparsity tables are priced with the crossbars that they leave.

    python experiments/ranking.py [experiments/networks/vgg8-half]
"""

import argparse
import itertools
from pathlib import Path

import torch
from torch.optim.swa_utils import update_bn

from bitline import chip as chips
from bitline import data as datasets
from bitline.compress.prune.crossbar_block import CrossbarBlocks
from bitline.compress.prune.fine_grained import SEGMENTS, fine_grained
from bitline.compress.prune.kernel_group import KernelGroups
from bitline.compress.prune.repack import repack
from bitline.compress.prune.sparsity import crossbars
from bitline.cost.computing import component_table
from bitline.evaluation import accuracy
from bitline.files import write_json
from bitline.models.files import load_run
from bitline.recipes.crimp import RANK_BATCH, RANK_IMAGES
from bitline.train.hardware import describe, git_commit

RESULT = Path(__file__).parent / "results" / "ranking.json"
CHIP = chips.load("crimp-32nm", ("weights.encoding=pair",))
SPARSITIES = (0.15, 0.3, 0.5, 0.7)


def power(count: int, *, tables: bool = False) -> float:
    """Computing power of so many crossbars, W, with their share of sparsity tables."""
    table = component_table()
    wanted = ("crossbars", "sparsity_tables") if tables else ("crossbars",)
    return count * sum(part.power for part in table.parts if part.name in wanted) / table.crossbars_per_macro


def main() -> None:
    """Prune in one shot, and test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=Path(__file__).parent / "networks" / "vgg8-half")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = load_run(options.run)
    data = datasets.load(run.record.data)
    example = next(data.batches("test", batch_size=2, limit=2))[0]
    labelled = list(data.batches("train", batch_size=RANK_BATCH, limit=RANK_IMAGES))
    statistics = [x for x, _ in data.batches("train", batch_size=128, limit=RANK_IMAGES)]
    points: list[dict[str, float | str]] = []

    def measure(unit: str, sparsity: float, rank: str, model: torch.nn.Module, left: int) -> None:
        update_bn(statistics, model)
        point: dict[str, float | str] = {
            "unit": unit,
            "rank": rank,
            "sparsity": sparsity,
            "crossbars": left,
            "power_W": power(left, tables=unit in SEGMENTS),
            "accuracy": accuracy(model, data, images=options.images, batch_size=250),
        }
        points.append(point)
        print(point, flush=True)

    for unit, sparsity, rank in itertools.product(("kernels", "crossbars"), SPARSITIES, ("factor", "loss")):
        model = load_run(options.run).model.train()
        factors = KernelGroups(model, example, CHIP) if unit == "kernels" else CrossbarBlocks(model, example, CHIP)
        if rank == "loss":
            factors.measure_importance(labelled)
        factors.zero(factors.target(sparsity))
        if isinstance(factors, CrossbarBlocks):
            factors.fold()
        else:
            model = repack(model, example, CHIP).model
        measure(unit, sparsity, rank, model.train(), crossbars(model, CHIP, example))
    for unit, sparsity in itertools.product(SEGMENTS, SPARSITIES):
        model = load_run(options.run).model.train()
        found = fine_grained(model, example, CHIP, sparsity, unit)
        with torch.no_grad():
            for name, mask in found.masks.items():
                model.get_parameter(f"{name}.weight").mul_(mask)
        measure(unit, found.sparsity, "magnitude", model, found.crossbars)
    dense = crossbars(run.model, CHIP, example)
    setting = {"run": options.run.name, "images": options.images, "ranked_on": RANK_IMAGES, "batch": RANK_BATCH}
    result = {
        "crossbars": dense,
        "power_W": power(dense),
        "points": points,
        "setting": setting,
        "float": accuracy(run.model, data, images=options.images, batch_size=250),
        "chip": CHIP.model_dump(mode="json"),
        "hardware": describe(),
        "commit": git_commit(),
    }
    write_json(options.result, result)


if __name__ == "__main__":
    main()
