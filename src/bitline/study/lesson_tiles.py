"""Lesson 1 in words: whether error grows with the number of row tiles, and where it hurts."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bitline.study.fit import differ, rank_correlation, slope

_NEAR_ONE = 0.15
_CLEAR_RANK = 0.5


def sentences(study: Mapping[str, Any]) -> list[str]:
    """Say what the layers alone and the experiment on row tiles show."""
    layers, tiles = study.get("layers") or [], study.get("tiles") or []
    sentences = [growth(tiles), level(tiles), across(layers), stronger(layers), hurts(study)]
    return [text for text in sentences if text]


def exponents(tiles: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Fit the error power of each layer to a power of its row tiles.

    Returns:
        The exponent by layer; layers without three different numbers of row tiles, or without error, are left out.
    """
    slopes: dict[str, float] = {}
    for name in dict.fromkeys(str(point["layer"]) for point in tiles):
        points = [point for point in tiles if point["layer"] == name]
        exponent = slope([point["row_tiles"] for point in points], [point["power"] for point in points])
        if exponent is not None:
            slopes[name] = exponent
    return slopes


def growth(tiles: Sequence[Mapping[str, Any]]) -> str | None:
    """Say how error power grows with row tiles at one LSB."""
    slopes = list(exponents(tiles).values())
    if not slopes:
        return None
    middle = statistics.median(slopes)
    layers = (
        f"median of {len(slopes)} layers, {min(slopes):.2f} to {max(slopes):.2f}" if len(slopes) > 1 else "one layer"
    )
    if middle <= 0:
        return (
            f"At one LSB the error power of a layer's output does not grow with its row tiles: exponent {middle:.2f} "
            f"({layers})."
        )
    if abs(middle - 1) <= _NEAR_ONE:
        how = "in proportion, as independent errors add up"
    elif middle > 1:
        how = "faster than the 1 of independent errors: those of a result's row tiles go together"
    else:
        how = "more slowly than the 1 of independent errors"
    return (
        "At one LSB the error power of a layer's output grows with the number of its row tiles T as "
        f"T^{middle:.2f} ({layers}), {how}."
    )


def level(tiles: Sequence[Mapping[str, Any]]) -> str | None:
    """Compare the error power measured with T LSB^2 / 12."""
    ratios = list(
        {
            (point["layer"], point["row_tiles"]): point["power"] / point["predicted"]
            for point in tiles
            if point["predicted"] > 0
        }.values()
    )
    if not ratios:
        return None
    middle, near = statistics.median(ratios), sum(0.5 <= ratio <= 2 for ratio in ratios)
    holds = near >= 0.75 * len(ratios)
    return (
        f"T LSB²/12, weighted by digits and slices, {'predicts' if holds else 'does not predict'} it: {near} of "
        f"{len(ratios)} points lie within a factor of two; the error measured is {middle:.2f} times that in the "
        f"median, at most {max(ratios):.2f}, at least {min(ratios):.2f}."
    )


def across(layers: Sequence[Mapping[str, Any]]) -> str | None:
    """Say whether the layers of more row tiles have the lower SQNR on the chip as it is."""
    known = [layer for layer in layers if layer["sqnr_dB"].get("adc") is not None]
    rank = rank_correlation([layer["row_tiles"] for layer in known], [layer["sqnr_dB"]["adc"] for layer in known])
    if rank is None:
        return None
    most = max(known, key=lambda layer: layer["row_tiles"])
    fewest = min(known, key=lambda layer: layer["row_tiles"])
    ends = (
        f"{most['layer']} with {most['row_tiles']} row tiles has {most['sqnr_dB']['adc']:.1f} dB, "
        f"{fewest['layer']} with {fewest['row_tiles']} has {fewest['sqnr_dB']['adc']:.1f} dB"
    )
    if rank <= -_CLEAR_RANK:
        return f"Across layers, more row tiles go with a lower SQNR (rank correlation {rank:.2f}): {ends}."
    if rank >= _CLEAR_RANK:
        return (
            "Across layers, more row tiles go with a higher SQNR, not a lower one "
            f"(rank correlation {rank:.2f}): {ends}."
        )
    return f"Across layers SQNR and row tiles show no clear relation (rank correlation {rank:.2f}): {ends}."


def stronger(layers: Sequence[Mapping[str, Any]]) -> str | None:
    """Count the layers whose output the ADC spoils more than programming does."""
    pairs = [(layer["sqnr_dB"].get("adc"), layer["sqnr_dB"].get("programming")) for layer in layers]
    known = [(adc, cells) for adc, cells in pairs if adc is not None and cells is not None]
    if not known:
        return None
    count = sum(adc < cells for adc, cells in known)
    gap = statistics.median(cells - adc for adc, cells in known)
    return (
        f"The ADC takes more than programming error in {count} of {len(known)} layers; in the median the ADC alone "
        f"leaves {abs(gap):.1f} dB {'less' if gap > 0 else 'more'} than programming error alone."
    )


def hurts(study: Mapping[str, Any]) -> str | None:
    """Name the layer that costs the network most when it alone is on the chip."""
    layers = study.get("layers") or []
    whole = next((point for point in study.get("training") or [] if point["training"] == "unaware"), None)
    if not layers or whole is None:
        return None
    images, exact = int(study["data"]["count"]), float(whole["ideal_integer"])
    worst = min(layers, key=_alone)
    if not differ(exact, _alone(worst), images):
        return (
            f"No layer alone on the chip loses more than {images} images can tell: the worst, {worst['layer']}, leaves "
            f"{_alone(worst):.2f} of {exact:.2f} %."
        )
    most = max(layer["row_tiles"] for layer in layers)
    tall = [layer["layer"] for layer in layers if layer["row_tiles"] == most]
    place = (
        f"which has the most row tiles ({most})"
        if worst["layer"] in tall
        else f"with {worst['row_tiles']} row tiles, and not {tall[0]} with the most ({most})"
    )
    return (
        f"Alone on the chip, {worst['layer']} costs most, {exact - _alone(worst):.2f} of {exact:.2f} points, {place}."
    )


def _alone(layer: Mapping[str, Any]) -> float:
    return float(layer["alone"].get("mean", layer["alone"]["adc"]))
