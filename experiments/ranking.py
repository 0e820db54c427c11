"""Claim: what the loss would gain without a kernel or a crossbar ranks them better than their factors do.

Half-width VGG-8 on CIFAR-10 (JPEG q75), pruned in one shot on crimp-32nm in pairs of cells (16 weight columns), not
trained afterwards but for the statistics of its batch norms. Accuracy on --images test images. Factors are |gamma|, and
those of crossbars, all ones before training, tie and fall back to the norm of the weights.

    python experiments/ranking.py [experiments/networks/vgg8-half]
"""

import argparse
import itertools
import json
import os
from pathlib import Path

import torch
from torch.optim.swa_utils import update_bn

from bitline import chip as chips
from bitline import data as datasets
from bitline.compress.crossbar_block import CrossbarBlocks
from bitline.compress.kernel_group import KernelGroups
from bitline.compress.sparsity import crossbars
from bitline.evaluate.accuracy import accuracy
from bitline.models.files import load_run
from bitline.recipes.crimp import RANK_BATCH, RANK_IMAGES
from bitline.train.hardware import describe, git_commit

RESULT = Path(__file__).parent / "results" / "ranking.json"
CHIP = chips.load("crimp-32nm", ("weights.encoding=pair",))
SPARSITIES = (0.15, 0.3, 0.5, 0.7)


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
    for unit, sparsity, rank in itertools.product(("kernels", "crossbars"), SPARSITIES, ("factor", "loss")):
        model = load_run(options.run).model.train()
        factors = KernelGroups(model, example, CHIP) if unit == "kernels" else CrossbarBlocks(model, example, CHIP)
        if rank == "loss":
            factors.weigh(labelled)
        zeroed = factors.zero(factors.target(sparsity))
        update_bn(statistics, model)
        point: dict[str, float | str] = {
            "unit": unit, "sparsity": sparsity, "rank": rank, "zeroed": zeroed.zeroed,
            "accuracy": accuracy(model, data, images=options.images, batch_size=250),
        }  # fmt: skip
        if isinstance(factors, CrossbarBlocks):
            factors.fold()
            point["crossbars"] = crossbars(model, CHIP, example)
        points.append(point)
        print(point, flush=True)
    setting = {"run": options.run.name, "images": options.images, "ranked_on": RANK_IMAGES, "batch": RANK_BATCH}
    found = {
        "float": accuracy(run.model, data, images=options.images, batch_size=250), "points": points, "setting": setting,
        "chip": CHIP.model_dump(mode="json"), "hardware": describe(), "commit": git_commit(),
    }  # fmt: skip
    part = options.result.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(part, options.result)


if __name__ == "__main__":
    main()
