"""Tables of which networks convert, from benchmarks/results/coverage.json."""

import statistics
from collections.abc import Iterator
from typing import Any

_WORSE = 1.1
"""times the error of plain quantization"""
_SAME = 1e-3
"""an error that is no worse than another, whatever their ratio"""


def summary(models: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what is found, by library."""
    header = [
        "library",
        "networks",
        "families",
        "convert and answer",
        "MACs on crossbars [%], median (least)",
        "of products by weights",
        ">= 99 % of these",
        "error at 8 bits over plain quantization, median (worst)",
        "with zero points of inputs",
        "error in floating point, worst",
        "seconds over a forward: convert, calibrate",
    ]
    rows: list[list[str]] = []
    for source in sorted({each["source"] for each in models}):
        tried = [each for each in models if each["source"] == source and runs(each)]
        good = [each for each in tried if each["converted"]]
        if not good:
            continue
        shares, weighted = ([100 * each[key] for each in good] for key in ("mac_share", "weighted_share"))
        ratios, zero = (
            [each[key] / max(each["affine_error"], 1e-9) for each in good] for key in ("error", "error_zero_point")
        )
        times = [
            statistics.median(each[key] / max(each["forward_s"], 0.01) for each in good)
            for key in ("convert_s", "calibrate_s")
        ]
        rows.append(
            [
                source,
                str(len(tried)),
                str(len({each["family"] for each in tried})),
                f"{len(good)}",
                f"{statistics.median(shares):.1f} ({min(shares):.1f})",
                f"{statistics.median(weighted):.1f} ({min(weighted):.1f})",
                str(sum(share >= 99 for share in weighted)),
                f"{statistics.median(ratios):.2f} ({max(ratios):.2f})",
                f"{statistics.median(zero):.2f} ({max(zero):.2f})",
                f"{max(each['float_error'] for each in good):.1e}",
                f"{times[0]:.0f}, {times[1]:.0f}",
            ]
        )
    return header, rows


def runs(model: dict[str, Any]) -> bool:
    """Whether a network runs by itself on what it was given."""
    return model["converted"] or model["failed_at"] not in ("start", "make")


def less(models: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the families with less than 99 % of their products by weights on crossbars."""
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in models:
        if each["converted"]:
            families.setdefault((each["source"], each["family"]), []).append(each)
    rows: list[list[str]] = []
    for (source, family), members in families.items():
        least = min(members, key=lambda each: each["weighted_share"])
        if least["weighted_share"] < 0.99:
            why = [part for part in least["digital"] if part["macs"] >= 0.01 * least["macs"]]
            reasons = "; ".join(f"{part['what']} ({100 * part['macs'] / least['macs']:.0f} %)" for part in why)
            shares = [f"{100 * least[key]:.1f}" for key in ("weighted_share", "mac_share")]
            rows.append([source, family, least["name"], *shares, reasons])
    return [
        "library",
        "family",
        "network",
        "by weights, on crossbars [%]",
        "of all",
        "what is digital (of all)",
    ], sorted(rows, key=lambda row: (row[0], float(row[3])))


def notes(models: list[dict[str, Any]]) -> Iterator[str]:
    """What does not convert, what errs more than it should, and what counts otherwise than it says."""
    failed = [each for each in models if not each["converted"] and runs(each)]
    yield (
        "Not converted: "
        + ("; ".join(f"{n['name']} ({n['failed_at']}: {n['failure']})" for n in failed) or "none")
        + "."
    )
    alone = [each for each in models if not runs(each)]
    if alone:
        yield (
            "Not tried, since they do not run by themselves here: "
            + "; ".join(f"{n['name']} ({n['failure']})" for n in alone)
            + "."
        )
    good = [each for each in models if each["converted"]]
    for key, how in (("error", ""), ("error_zero_point", ", with zero points")):
        worse = [e for e in good if e[key] > _WORSE * e["affine_error"] and e[key] - e["affine_error"] > _SAME]
        worst = sorted(worse, key=lambda each: -each[key] / each["affine_error"])
        yield (
            f"Errors at 8 bits{how} that exceed those of plain quantization by more than a tenth: {len(worse)} of "
            f"{len(good)}"
            + (": " if worst else "")
            + ", ".join(f"{e['name']} ({e[key]:.3f} for {e['affine_error']:.3f})" for e in worst)
            + "."
        )
    other = [each for each in good if each["disagree"]]
    yield (
        "Counts that disagree: "
        + ("; ".join(f"{n['name']} ({', '.join(n['disagree'])})" for n in other) or "none")
        + "."
    )
