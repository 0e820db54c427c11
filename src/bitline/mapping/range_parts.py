"""What of a chip the ranges of inputs and ADCs depend on, and the number that stands for it."""

from typing import Any

from bitline import seeds
from bitline.chip.description import Chip
from bitline.chip.formats import Offset
from bitline.chip.records import canonical, fingerprint


def parts(chip: Chip) -> dict[str, Any]:
    """Everything of a chip that ADC and input ranges depend on, by key."""
    same: dict[str, Any] = {"model": "table", "sample_rate": 1.0, "columns_per_adc": 1}
    if chip.adc.policy == "trained":
        same |= {"calibration": "mse", "percentile": 99.9}
    converter = chip.adc.model_copy(update=same)
    leak = chip.cell.g_min / chip.cell.step if chip.cell.leak == "kept" else 0.0
    encoding = chip.weights.encoding
    if isinstance(encoding, Offset):  # a correction follows the conversion, and changes no range
        encoding = encoding.model_copy(update={"correction": "none"})
    weights = chip.weights.model_copy(update={"bias_bits": None, "encoding": encoding})
    return {
        "adc": converter,
        "inputs": chip.inputs,
        "weights": weights,
        "dac": chip.dac,
        "crossbar": chip.crossbar.whole,
        "cell.bits": chip.cell.bits,
        "cell.leak": leak,
    }


def flat_parts(chip: Chip) -> dict[str, Any]:
    """Everything of a chip that ranges depend on, as plain values by dotted key."""
    flat: dict[str, Any] = {}

    def walk(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
                walk(f"{key}.{name}", inner)
        else:
            flat[key] = value

    for key, value in parts(chip).items():
        walk(key, canonical(value))
    flat.pop("weights.encoding.correction", None)  # follows the conversion, and changes no range
    return flat


def formats(chip: Chip, layout: str = "dense") -> int:
    """Number that stands for everything that calibrated ranges depend on."""
    return seeds.derive(fingerprint(parts(chip), layout))


def formats_before_fingerprints(chip: Chip, layout: str) -> int:
    """The number that `formats` gave when it was made of how records print."""
    return seeds.derive(*map(repr, parts(chip).values()), *([] if layout == "dense" else [layout]))
