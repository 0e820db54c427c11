"""Lesson 2 in words: whether crossbar height and ADC bits must be chosen together."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from bitline.study.fit import differ
from bitline.study.grid import WITHIN, best_heights, cheapest
from bitline.study.subject import reached


def sentences(study: Mapping[str, Any]) -> list[str]:
    """Say what the grid shows."""
    points: list[Mapping[str, Any]] = study.get("grid") or []
    images = int(study["data"]["count"])
    sentences = [together(points, images), taller(points, images), policies(points, images), best(points)]
    return [text for text in sentences if text]


def together(points: Sequence[Mapping[str, Any]], images: int) -> str | None:
    """Say whether the best height depends on the ADC, beyond what so many images can tell."""
    adcs = best_heights(points)
    if len({adc["bits"] for adc in adcs}) < 2:
        return None
    for a, b in combinations(adcs, 2):
        if a["ranges"] == b["ranges"] and _prefers(points, a, b, images) and _prefers(points, b, a, images):
            return (
                f"Crossbar height and ADC bits have to be chosen together: with {range_words(a['ranges'])} the most "
                f"accurate height is {_rows(a)} at {a['bits']} bits and {_rows(b)} at {b['bits']} bits."
            )
    clear = [adc for adc in adcs if _matters(points, adc, images)]
    if not clear:
        return f"No crossbar height is more accurate than another at the same ADC beyond what {images} images can tell."
    heights = sorted({_rows(adc) for adc in clear})
    if len(clear) == 1:
        return (
            f"The height clearly matters with one ADC of {len(adcs)} only ({clear[0]['bits']} bits, "
            f"{range_words(clear[0]['ranges'])}), where {heights[0]} rows are the most accurate."
        )
    if len(heights) == 1:
        return (
            f"Wherever the crossbar height clearly matters ({len(clear)} of {len(adcs)} ADCs), {heights[0]} rows are "
            "the most accurate, whatever the ADC."
        )
    cheap = {_rows(adc, "cheapest") for adc in adcs}
    return (
        f"The height matters with {len(clear)} of {len(adcs)} ADCs, but no two ADCs of one range policy clearly want "
        "different ones"
        + (
            f"; the cheapest height within {WITHIN:g} point does change with the ADC ({_listed(cheap)} rows)."
            if len(cheap) > 1
            else "."
        )
    )


def taller(points: Sequence[Mapping[str, Any]], images: int) -> str | None:
    """Say what a taller crossbar does at the same ADC to energy and accuracy."""
    rows = sorted({point["rows"] for point in points})
    if len(rows) < 2:
        return None
    pairs = [
        (low, high)
        for low in points
        for high in points
        if (low["rows"], high["rows"]) == (rows[0], rows[-1])
        and all(low[key] == high[key] for key in ("ranges", "bits"))
    ]
    if not pairs:
        return None
    ratios = [high["energy_J"] / low["energy_J"] for low, high in pairs]
    lost = sum(reached(high) < reached(low) and differ(reached(high), reached(low), images) for low, high in pairs)
    won = sum(reached(high) > reached(low) and differ(reached(high), reached(low), images) for low, high in pairs)
    least, most = min(ratios), max(ratios)
    span = f"{least:.2f}" if f"{least:.2f}" == f"{most:.2f}" else f"{least:.2f} to {most:.2f}"
    return (
        f"From {rows[0]} to {rows[-1]} rows at the same ADC, energy becomes {span} times what it was; accuracy clearly "
        f"falls with {lost} and clearly rises with {won} of {len(pairs)} ADCs."
    )


def policies(points: Sequence[Mapping[str, Any]], images: int) -> str | None:
    """Say how much the range policy decides, where it decides most."""
    by_chip: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for point in points:
        by_chip.setdefault((point["bits"], point["rows"]), []).append(point)
    spans = [
        (max(at, key=reached), min(at, key=reached)) for at in by_chip.values() if len({p["ranges"] for p in at}) > 1
    ]
    if not spans:
        return None
    high, low = max(spans, key=lambda pair: reached(pair[0]) - reached(pair[1]))
    at = f"at {high['bits']} bits and {high['rows']} rows"
    if not differ(reached(high), reached(low), images):
        return f"The range policy decides nothing that {images} images can tell; the widest gap is {at}."
    return (
        f"The range policy decides most {at}: {reached(low):.2f} % with {range_words(low['ranges'])}, "
        f"{reached(high):.2f} % with {range_words(high['ranges'])}."
    )


def best(points: Sequence[Mapping[str, Any]]) -> str | None:
    """Name the cheapest chip within a point of the most accurate."""
    if len(points) < 2:
        return None
    top = max(points, key=lambda point: (reached(point), -point["energy_J"]))
    cheap = cheapest(points)
    sentence = f"The most accurate chip of the grid, {_chip(top)}, reaches {reached(top):.2f} %"
    if cheap is top or cheap["energy_J"] == top["energy_J"]:
        return f"{sentence} and is also the cheapest within {WITHIN:g} point of it."
    return (
        f"{sentence}; the cheapest within {WITHIN:g} point of it, {_chip(cheap)}, reaches {reached(cheap):.2f} % at "
        f"{cheap['energy_J'] / top['energy_J']:.2f} times the energy."
    )


def _prefers(
    points: Sequence[Mapping[str, Any]], adc: Mapping[str, Any], other: Mapping[str, Any], images: int
) -> bool:
    """Whether an ADC is clearly better at its own best height than at that of another ADC."""
    mine, theirs = adc["most_accurate"], _at(points, adc, _rows(other))
    return theirs is not None and reached(mine) > reached(theirs) and differ(reached(mine), reached(theirs), images)


def _matters(points: Sequence[Mapping[str, Any]], adc: Mapping[str, Any], images: int) -> bool:
    worst = min((p for p in points if (p["ranges"], p["bits"]) == (adc["ranges"], adc["bits"])), key=reached)
    return differ(reached(adc["most_accurate"]), reached(worst), images)


def _at(points: Sequence[Mapping[str, Any]], adc: Mapping[str, Any], rows: int) -> Mapping[str, Any] | None:
    wanted = (adc["ranges"], adc["bits"], rows)
    return next((point for point in points if (point["ranges"], point["bits"], point["rows"]) == wanted), None)


def _rows(adc: Mapping[str, Any], which: str = "most_accurate") -> int:
    return int(adc[which]["rows"])


def range_words(ranges: str) -> str:
    """Write a range policy of the grid as words."""
    if ranges == "full":
        return "the full range"
    return f"a range for each {ranges.replace('_digit', ' and digit')}"


def _chip(point: Mapping[str, Any]) -> str:
    return f"{point['rows']} rows, {point['bits']} bits, {range_words(point['ranges'])}"


def _listed(values: set[int]) -> str:
    return ", ".join(map(str, sorted(values)))
