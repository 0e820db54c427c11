"""Evaluations as the evaluator writes them: VGG-8 in earnest, and nets of any depth."""

import math
from typing import Any

import numpy as np

from bitline.chip import load
from bitline.evaluation import Evaluation, Variant

VGG8 = [
    ("features.0", 27, 128, 1024),
    ("features.3", 1152, 128, 1024),
    ("features.7", 1152, 256, 256),
    ("features.10", 2304, 256, 256),
    ("features.14", 2304, 512, 64),
    ("features.17", 4608, 512, 64),
    ("classifier.0", 8192, 1024, 1),
    ("classifier.3", 1024, 10, 1),
]

ENERGY = {
    "adc": 46,
    "cells": 3,
    "wordlines": 12,
    "shift_add": 9,
    "adder_tree": 4,
    "buffer": 1.1,
    "bus": 14,
    "network": 9,
    "activation": 0.6,
    "leakage": 1.3,
    "pooling": 0.0,
}


def partial_sums(rows: int, seed: int, *, bins: int = 384, samples: int = 200_000) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    active = min(rows, 128)
    sums = np.abs(rng.normal(0.14 * active, 0.09 * active, samples)) * rng.choice([1.0, 0.4, 0.1], samples)
    counts, edges = np.histogram(sums, bins=bins, range=(0, 3 * active))
    high = float(np.quantile(sums, 0.9985))
    return {
        "bin_low": float(edges[0]),
        "bin_width": float(edges[1] - edges[0]),
        "counts": [int(count) for count in counts],
        "range_low": 0.0,
        "range_high": round(high, 2),
        "lsb": round(high / 31, 3),
        "ranges": 32,
    }


def layer(name: str, rows: int, cols: int, positions: int, seed: int) -> dict[str, Any]:
    row_tiles = math.ceil(rows / 128)
    crossbars = row_tiles * math.ceil(cols / 32)
    conversions = positions * 8 * row_tiles * 4 * cols
    wobble = 1 + 0.3 * math.sin(seed)
    energy = conversions * 2.47e-13
    return {
        "name": name,
        "kind": "conv2d" if positions > 1 else "linear",
        "rows": rows,
        "cols": cols,
        "groups": 1,
        "strategy": "dense",
        "row_tiles": row_tiles,
        "crossbars": crossbars,
        "crossbars_removed": 0,
        "steps": 1,
        "utilization": rows * cols * 4 / (crossbars * 128 * 128),
        "conversions": conversions,
        "macs": positions * rows * cols,
        "adc_clip_fraction": 0.0015 * wobble,
        "partial_sum_sqnr_dB": 19.7 + 3.1 * wobble,
        "error_parts": {
            "quantization": 6.1e-5 * wobble,
            "adc": 4.4e-3 * wobble * row_tiles**0.3,
            "programming": 1.3e-3 * wobble,
            "faults": 0.0,
            "read_noise": 2.2e-5 * wobble,
        },
        "energy_J": energy,
        "energy_parts": split(energy, ENERGY),
        "area_m2": crossbars * 2.2e-8,
        "latency_s": positions * 8 * 1.1e-7,
        "partial_sums": partial_sums(rows, seed),
    }


def evaluation(shapes: list[tuple[str, int, int, int]] = VGG8, *, chips: int = 20) -> dict[str, Any]:
    layers = [layer(*shape, seed) for seed, shape in enumerate(shapes)]
    rng = np.random.default_rng(7)
    programmed = [round(float(value), 2) for value in rng.normal(88.4, 0.31, chips)]
    mean = sum(programmed) / len(programmed)
    energy, area = sum(r["energy_J"] for r in layers), sum(r["area_m2"] for r in layers)
    latency = sum(r["latency_s"] for r in layers)
    return {
        "format": 2,
        "bitline": "0.1.0",
        "commit": "4f2c1e9d7b60a5c3e8f1",
        "chip": load("rram-22nm").model_dump(mode="json"),
        "model": "vgg8 width 0.5",
        "ranges": None,
        "data": {"name": "cifar10", "split": "test", "count": 500},
        "seeds": list(range(chips)),
        "bias_correction": False,
        "accuracy": {
            "float": 91.2,
            "ideal_integer": 91.0,
            "chips": programmed,
            "mean": mean,
            "std": float(np.std(programmed, ddof=1)),
            "worst": min(programmed),
        },
        "causes": [
            {"cause": "quantization", "points": 0.2, "std": 0.0, "accuracy_after": 91.0},
            {"cause": "adc", "points": 1.94, "std": 0.0, "accuracy_after": 89.06},
            {"cause": "programming", "points": 89.06 - mean + 0.06, "std": 0.29, "accuracy_after": mean - 0.06},
            {"cause": "read_noise", "points": -0.06, "std": 0.11, "accuracy_after": mean},
        ],
        "cause_seeds": list(range(chips)),
        "simulation": {
            "kind": "exact",
            "images": 0,
            "noisy": {},
            "overflows": 0.0,
            "changed": 0.0,
            "unlike": 0.0,
            "exact_layers": [],
            "holds": True,
        },
        "cost": {
            "chip": "rram-22nm",
            "data": "measured",
            "energy_J": energy,
            "latency_s": latency,
            "interval_s": 0.37 * latency,
            "area_m2": area,
            "tops": 0.846,
            "tops_per_watt": 25.72,
            "unused_area_m2": 0.0,
            "leakage_W": 8.17e-4,
            "macs": sum(r["macs"] for r in layers),
            "conversions": sum(r["conversions"] for r in layers),
            "crossbars": sum(r["crossbars"] for r in layers),
            "crossbars_built": sum(r["crossbars"] for r in layers),
            "tiles": 40,
            "energy_parts": split(energy, ENERGY),
            "area_parts": split(
                area,
                {
                    "adc": 32,
                    "cells": 3.4,
                    "wordlines": 4,
                    "shift_add": 7,
                    "adder_tree": 2,
                    "buffer": 22,
                    "bus": 13,
                    "network": 16,
                },
            ),
            "latency_parts": split(latency, {"read": 83, "merge": 3, "transfer": 14}),
            "adc_range": {
                name: {"energy_J": e * energy, "area_m2": a * area, "tops_per_watt": 25.72 / e, "conversion_J": one}
                | {"adc_energy_J": 0.46 * e * energy, "adc_area_m2": 0.32 * a * area}
                for name, e, a, one in (
                    ("isaac", 2.9, 0.9, 9.05e-13),
                    ("survey", 1.7, 2.6, 4.629e-13),
                    ("zigzag", 1.6, 1.2, 4.06e-13),
                    ("table", 1.0, 1.0, 1.16e-13),
                )
            },
            "adc_model": "table",
            "notes": ["wires between tiles are as long as a tile"],
        },
        "layers": layers,
        "digital": [
            {
                "name": "features.1",
                "op": "BatchNorm2d",
                "why": "folded into the per-channel scale of features.0",
                "macs": 0,
            },
            {"name": "features.6", "op": "MaxPool2d", "why": "no weights", "macs": 0},
        ],
        "folded": {"features.1": "features.0"},
        "timing": {"evaluation_s": 212.4, "accuracy_s": 190.2, "calibration_s": 9.81},
    }


def record(content: dict[str, Any] | None = None) -> Evaluation:
    """The evaluation as the record that it is the content of."""
    return Evaluation.model_validate(evaluation() if content is None else content)


def split(total: float, weights: dict[str, float]) -> dict[str, float]:
    return {name: total * weight / sum(weights.values()) for name, weight in weights.items()}


def deep(count: int) -> list[tuple[str, int, int, int]]:
    return [
        (f"layer{1 + i // 40}.{i // 2 % 20}.conv{1 + i % 2}", 144 << i // 40, 16 << i // 40, 1024) for i in range(count)
    ]


def sweep() -> list[Variant]:
    energies = {4: 27.1e-6, 5: 38.9e-6, 6: 61.0e-6, 7: 104.0e-6}
    accuracies = {4: 71.3, 5: 88.4, 6: 90.1, 7: 90.05}
    return [
        Variant(
            label=f"{bits}-bit ADC",
            overrides=(f"adc.bits={bits}",),
            chips=(accuracies[bits] - 1, accuracies[bits] + 1),
            mean=accuracies[bits],
            std=2.1 / bits,
            worst=accuracies[bits] - 1,
            energy_J=energy,
            latency_s=1.5e-3,
            area_m2=45e-6 + bits * 1e-6,
            tops_per_watt=1e-3 / energy,
            crossbars=3176,
            conversions=157_288_960,
        )
        for bits, energy in energies.items()
    ]
