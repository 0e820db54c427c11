"""Claim: epochs of a surrogate, and then a few exact ones, end as well as exact training throughout.

LeNet-5 on scikit-learn's digits, trained in floating point, then with recipe psum-aware on rram-22nm (5-bit ADC,
programming error, another chip at every step): --epochs epochs on the chip, all exact, or by the surrogate but for the
last --exact-epochs. Accuracy on --chips programmed chips that training has not seen and all test images, exactly
simulated; --seeds trainings of each kind, CPU time beside them.

    python experiments/surrogate_training.py [--epochs 4] [--exact-epochs 2] [--seeds 5]
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from bitline.evaluation import Spread
from bitline.evaluation.files import load
from bitline.files import AFTER, BEFORE, write_json
from bitline.recipes import checked
from bitline.recipes.run import optimize
from bitline.train import checked as checked_training
from bitline.train.hardware import describe, git_commit, set_threads
from bitline.train.run import train

RESULT = Path(__file__).parent / "results" / "surrogate_training.json"
KEYS = ("adc.bits=5", "cell.programming.sigma=0.1")


def main() -> None:
    """Train, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--exact-epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    set_threads(1)
    points: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "lenet5"
        train(checked_training(model="lenet5", data="digits", epochs=20, lr=0.1, batch_size=32, threads=1, out=base))
        for seed in range(options.seeds):
            for simulation in ("exact", "surrogate"):
                out = Path(folder) / f"{simulation}-{seed}"
                start = time.process_time()
                config = checked(
                    recipe="psum-aware", run=base, chip="rram-22nm", overrides=KEYS, chip_epochs=options.epochs,
                    exact_epochs=options.exact_epochs if simulation == "surrogate" else 1, chip_lr=3e-4, batch_size=64,
                    chips=options.chips, chips_before=options.chips, threads=1, seed=seed, simulation=simulation,
                    out=out,
                )  # fmt: skip
                optimize(config)
                after = load(out / AFTER)
                point = {"simulation": simulation, "seed": seed, "accuracy": after.accuracy.mean}
                points.append(point | {"cpu_s": round(time.process_time() - start, 1)})
                print(points[-1], flush=True)
        before = load(out / BEFORE).accuracy.mean
    both = {kind: [p["accuracy"] for p in points if p["simulation"] == kind] for kind in ("exact", "surrogate")}
    differences = Spread.of([b - a for a, b in zip(both["exact"], both["surrogate"], strict=True)])
    result = {
        "before": before,
        "exact": Spread.of(both["exact"]).to_json(),
        "surrogate": Spread.of(both["surrogate"]).to_json(),
        "difference": {"mean": differences.mean, "standard_error": differences.standard_error},
        "points": points,
        "setting": {
            "network": "lenet5", "data": "digits", "epochs": options.epochs, "exact_epochs": options.exact_epochs,
            "chips": options.chips, "keys": list(KEYS),
        },
        "hardware": describe(),
        "commit": git_commit(),
    }  # fmt: skip
    write_json(options.result, result)


if __name__ == "__main__":
    main()
