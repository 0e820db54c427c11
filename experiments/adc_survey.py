"""Claim: half of the published stand-alone ADCs take more energy and area than model `median` says, half less.

Least absolute deviations through the Nyquist ADCs in CMOS of B. Murmann's "ADC Performance Survey 1997-2025"
(https://github.com/bmurmann/ADC-survey, ISSCC and VLSI, release of 2025-06-09; BSD 3-clause, data/adc_survey.LICENSE):

    ln E = constant + per_bit ENOB + per_node ln(node / 32 nm) + per_rate max(0, ln(rate / corner))

and the same for the area; ENOB = (SNDR - 1.76 dB) / 6.02 dB. The corner is that of a grid that leaves the least
deviation. Designs: 3 to 10.5 effective bits, 10 MS/s to 10 GS/s, 10 to 140 nm. Seconds on a laptop.

    python experiments/adc_survey.py [--check] [--survey ADCsurvey.xlsx]

writes src/bitline/cost/tables/_adc-median.toml from data/adc_survey.csv, and results/adc_survey.json: how many of those
designs take less than each ADC model says of their bits, node and rate. --survey makes the data anew from the survey's
workbook first (needs openpyxl).
"""

import argparse
import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import linprog

ROOT = Path(__file__).parent
DATA = ROOT / "data" / "adc_survey.csv"
TABLE = ROOT.parent / "src/bitline/cost/tables/_adc-median.toml"
RESULT = ROOT / "results" / "adc_survey.json"
COLUMNS = ("venue", "year", "doi", "node_um", "sndr_dB", "rate_Hz", "power_W", "area_mm2")
CORNERS = (1e8, 2e8, 3e8, 5e8, 7e8, 1e9, 2e9, 3e9, 5e9, 7e9, 1e10)
BITS, RATES, NODES = (3, 10.5), (1e7, 1e10), (10, 140)


def extract(workbook: Path) -> None:
    """Keep what the fit needs of the Nyquist ADCs in CMOS."""
    from openpyxl import load_workbook  # not a dependency

    names = ("YEAR", "DOI", "TECHNOLOGY", "SNDR_plot [dB]", "fsnyq [Hz]", "P [W]", "AREA [mm^2]")
    with DATA.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        sheets = load_workbook(workbook, data_only=True)
        for venue in ("ISSCC", "VLSI"):
            head, *rows = sheets[venue].iter_rows(values_only=True)
            for row in rows:
                year, doi, *numbers = (row[head.index(name)] for name in names)
                number = [value if isinstance(value, int | float) else None for value in numbers]
                if row[head.index("TYPE")] == "NQ" and None not in number[:4]:
                    out.writerow([venue, year, doi, *("" if v is None else f"{v:.6g}" for v in number)])


def designs() -> np.ndarray:
    """Effective bits, node [nm], rate [Hz], energy [pJ], area [um2] of each selected ADC, (designs, 5)."""
    rows = []
    with DATA.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            bits = (float(row["sndr_dB"]) - 10 * math.log10(1.5)) / (20 * math.log10(2))
            node, rate = 1e3 * float(row["node_um"]), float(row["rate_Hz"])
            if all(a <= v <= b for v, (a, b) in ((bits, BITS), (rate, RATES), (node, NODES))):
                area = 1e6 * float(row["area_mm2"] or "nan")
                rows.append((bits, node, rate, 1e12 * float(row["power_W"]) / rate, area))
    return np.array(rows)


def least_deviation(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients with the least sum of absolute deviations, and its mean."""
    n, k = x.shape
    eye = np.eye(n)
    bounds = [(None, None)] * k + [(0, None)] * 2 * n
    found = linprog(np.r_[np.zeros(k), np.ones(2 * n)], A_eq=np.c_[x, eye, -eye], b_eq=y, bounds=bounds)
    return found.x[:k], found.fun / n


def fit(bits: np.ndarray, node: np.ndarray, rate: np.ndarray, value: np.ndarray) -> dict[str, float]:
    """Fit one law; its quartiles are what a quarter and three quarters of the designs have over it."""
    tried = []
    for corner in CORNERS:
        x = np.c_[np.ones(len(bits)), bits, np.log(node / 32), np.maximum(0, np.log(rate / corner))]
        coefficients, deviation = least_deviation(x, np.log(value))
        tried.append((deviation, corner, coefficients, np.log(value) - x @ coefficients))
    _, corner, coefficients, rest = min(tried, key=lambda each: each[0])
    low, high = np.exp(np.percentile(rest, [25, 75]))
    names = ("constant", "per_bit", "per_node", "per_rate")
    law = dict(zip(names, map(float, coefficients), strict=True))
    return {"designs": len(bits), "corner": corner, **law, "lower_quartile": float(low), "upper_quartile": float(high)}


def text() -> str:
    """The table, as TOML."""
    bits, node, rate, energy, area = designs().T
    known = ~np.isnan(area)
    laws = {
        "energy": ("pJ of a conversion", fit(bits, node, rate, energy)),
        "area": ("um2 of an ADC", fit(bits[known], node[known], rate[known], area[known])),
    }
    lines = [
        "# Median of the Nyquist ADCs in CMOS of B. Murmann, ADC Performance Survey 1997-2025,",
        "# https://github.com/bmurmann/ADC-survey (ISSCC and VLSI; BSD 3-clause).",
        "# Written by experiments/adc_survey.py:",
        "# ln value = constant + per_bit bits + per_node ln(node / 32 nm) + per_rate max(0, ln(rate / corner)).",
    ]
    for name, (unit, law) in laws.items():
        lines += ["", f"[{name}]  # {unit}", *(f"{key} = {value:.6g}" for key, value in law.items())]
    return "\n".join(lines) + "\n"


def compare() -> dict[str, object]:
    """Share of the designs of 4 effective bits or more that take less than a model says, and the median of their ratio.

    Between whole bits a model is a straight line, the value logarithmic.
    """
    from bitline.chip import load, replace
    from bitline.cost.adc import MODELS, adc_cost
    from bitline.cost.table import load as load_table

    table = load_table("isaac-32nm")
    rows = [row for row in designs() if 4 <= row[0] < 10]
    found: dict[str, object] = {}
    for model in MODELS:
        if model == "table":
            continue
        ratios: list[tuple[float, float]] = []
        for bits, node, rate, energy, area in rows:
            chip = replace(load("isaac-32nm"), f"node={node:g} nm", f"adc.sample_rate={rate:g} Hz", "vdd=0.9 V")
            low, high = (adc_cost(model, replace(chip, f"adc.bits={int(bits) + i}"), table) for i in (0, 1))
            part = bits % 1
            ratios.append(
                (
                    1e-12 * energy / (low.energy ** (1 - part) * high.energy**part),
                    1e-12 * area / (low.area ** (1 - part) * high.area**part),
                )
            )
        for name, column in zip(("energy", "area"), np.array(ratios).T, strict=True):
            known = column[~np.isnan(column)]
            less = float(np.mean(known < 1))
            entry = {"designs": len(known), "share_that_takes_less": less, "median_over_model": float(np.median(known))}
            found.setdefault(model, {})[name] = entry  # pyright: ignore[reportIndexIssue]
    return found


def main() -> None:
    """Write the table, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--survey", type=Path)
    args = parser.parse_args()
    if args.survey:
        extract(args.survey)
    if args.check:
        sys.exit(TABLE.read_text("utf-8") != text())
    TABLE.write_text(text(), "utf-8")
    RESULT.write_text(json.dumps(compare(), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
