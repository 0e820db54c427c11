"""Claim: pricing a network on a chip takes well under half a second once bitline is imported.

CPU time of finding the layers of ResNet-56, placing them on a chip and pricing them under every ADC model: the first
run, which also reads the cost table, and the median of several.

    python benchmarks/cost.py [--json] [--model resnet56] [--chip rram-22nm] [--repeats 5]
"""

import argparse
import json
import statistics
import time

from bitline.chip import load
from bitline.cost.model import price
from bitline.mapping.place import place
from bitline.models import build
from bitline.network.trace import matmuls

LIMIT_S = 0.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="resnet56")
    parser.add_argument("--chip", default="rram-22nm")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    model, chip = build(args.model), load(args.chip)
    total: list[float] = []
    pricing: list[float] = []
    for _ in range(args.repeats):
        start = time.process_time()
        placement = place(matmuls(model, (3, 32, 32)), chip)
        middle = time.process_time()
        cost = price(placement)
        end = time.process_time()
        total.append(end - start)
        pricing.append(end - middle)
    result = {
        "model": args.model,
        "chip": args.chip,
        "layers": len(cost.layers),
        "conversions": cost.conversions,
        "cpu_s": {"first": total[0], "median": statistics.median(total), "price_only": statistics.median(pricing)},
        "limit_s": LIMIT_S,
        "within_limit": max(total) < LIMIT_S,
    }
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{args.model} on {args.chip}: {len(cost.layers)} layers, {cost.conversions:,} conversions")
    print(f"  first run {total[0] * 1e3:.0f} ms, median {statistics.median(total) * 1e3:.0f} ms of CPU")
    print(f"  of these, pricing {statistics.median(pricing) * 1e3:.1f} ms; limit {LIMIT_S * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
