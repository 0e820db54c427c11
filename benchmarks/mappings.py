"""Claim: how a depthwise layer is laid out moves its area by a factor of hundreds, and its energy by about ten.

One 3 x 3 depthwise convolution of 256 channels on 16 x 16 positions, priced under every mapping: no training, no data,
seconds on any machine. Area is the layer's share of full tiles. strip-22nm is rram-22nm with bitline segments; every
mapping but strip is priced on rram-22nm.

    python benchmarks/mappings.py [--json [FILE]] [--write]

``--write`` renews benchmarks/results/mappings.json and the table in docs/mapping.md.
"""

import argparse
import re
from pathlib import Path
from typing import Any

from output import add_json_option, write

from bitline.chip import load, replace
from bitline.cost.model import price
from bitline.files import write_json, write_text
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place
from bitline.mapping.strategies import STRATEGIES

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks/results/mappings.json", ROOT / "docs/mapping.md"
SIZE, CHANNELS = 16, 256
LAYER = Matmul("depthwise", "conv2d", 9, 1, CHANNELS, SIZE**2, CHANNELS * SIZE**2, depthwise=True)
_TABLE = re.compile(r"(<!-- mappings -->\n).*?(\n<!-- end -->)", re.DOTALL)


def measure() -> dict[str, Any]:
    """Price the layer under every mapping."""
    rows: list[dict[str, Any]] = []
    for strategy in STRATEGIES:
        chip = load("strip-22nm" if strategy == "strip" else "rram-22nm")
        mapping = {"*": strategy}
        placement = place([LAYER], chip, mapping)
        cost = price(placement)
        layer = cost.layers[0]
        per_tile = chip.system.crossbars_per_macro * chip.system.macros_per_tile
        full = replace(chip, f"system.tiles={-(-max(1, placement.crossbars) // per_tile)}")
        rows.append(
            {
                "mapping": strategy,
                "chip": chip.name,
                "utilization": layer.utilization,
                "crossbars": layer.crossbars,
                "row_tiles": layer.row_tiles,
                "conversions": layer.conversions,
                "wordline_drives": layer.events.wordlines,
                "steps": layer.steps,
                "energy_J": layer.energy_J,
                "area_m2": price(place([LAYER], full, mapping)).layers[0].area_m2,
                "latency_s": layer.latency_s,
            }
        )
    return {"layer": {"kernel": [3, 3], "channels": CHANNELS, "positions": SIZE**2}, "mappings": rows}


def table(result: dict[str, Any]) -> str:
    """Lay the result out in Markdown."""
    head = [
        "mapping",
        "cells used",
        "crossbars",
        "steps",
        "conversions",
        "wordline drives",
        "energy",
        "latency",
        "area",
    ]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in result["mappings"]:
        digital = not row["crossbars"]
        analog = (
            ["", "", "", "0", "0"]
            if digital
            else [
                f"{100 * row['utilization']:.3g} %",
                str(row["crossbars"]),
                str(row["steps"]),
                f"{row['conversions'] / 1e6:.2f} M",
                f"{row['wordline_drives'] / 1e6:.1f} M",
            ]
        )
        lines.append(
            [
                row["mapping"],
                *analog,
                f"{row['energy_J'] * 1e6:.2f} µJ",
                f"{row['latency_s'] * 1e6:.0f} µs",
                f"{row['area_m2'] * 1e6:.3f} mm²",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(text: str, result: dict[str, Any]) -> str:
    """Put the table into the text of docs/mapping.md."""
    return _TABLE.sub(lambda match: match[1] + table(result) + match[2], text)


def main() -> None:
    """Price, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json_option(parser)
    parser.add_argument("--write", action="store_true", help="renew the result file and the table of the page")
    options = parser.parse_args()
    result = measure()
    if options.json != "-":
        print(table(result))
    write(result, options.json)
    if options.write:
        write_json(RESULTS, result)
        write_text(PAGE, page(PAGE.read_text(), result))


if __name__ == "__main__":
    main()
