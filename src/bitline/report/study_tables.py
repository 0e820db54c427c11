"""What a study of partial sums measured, as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from bitline.report import text
from bitline.report.tables import Cell, Columns, Head, Sheet, of

Study = Mapping[str, Any]


def layers(study: Study) -> Sheet:
    """Every layer alone: row tiles, SQNR by cause, accuracy with it alone on the chip."""
    records = study.get("layers") or []
    table = Columns()
    sqnr, accuracy = "SQNR of its output", "accuracy, alone on the chip"
    table.words(Head("layer", numeric=False), of(records, "layer"))
    table.figures(Head("rows"), of(records, "rows"), text.number)
    table.figures(Head("groups"), of(records, "groups"), text.number)
    table.figures(Head("row tiles"), of(records, "row_tiles"), text.number)
    for key, name in (("adc", "ADC"), ("programming", "programming"), ("both", "both")):
        values = [record["sqnr_dB"].get(key) for record in records]
        table.add(Head(name, "dB", sqnr), [Cell(text.decimal(v, 1), text.finite(v)) for v in values])
    table.add(
        Head("ideal cells", "%", accuracy),
        [Cell(text.decimal(record["alone"]["adc"]), record["alone"]["adc"]) for record in records],
    )
    means = [record["alone"].get("mean") for record in records]
    spreads = [text.spread(mean, record["alone"].get("std")) for mean, record in zip(means, records, strict=True)]
    table.add(Head("programmed", "%", accuracy), [Cell(t, text.finite(m)) for t, m in zip(spreads, means, strict=True)])
    return table.sheet("Each layer alone")


def tiles(study: Study) -> Sheet:
    """Every point of the experiment on row tiles."""
    records = study.get("tiles") or []
    table = Columns()
    table.words(Head("layer", numeric=False), of(records, "layer"))
    table.figures(Head("wordlines at once"), of(records, "rows"), text.number)
    table.figures(Head("row tiles"), of(records, "row_tiles"), text.number)
    table.figures(Head("LSB", "levels", meaning="median over the layer's ranges"), of(records, "lsb"), text.number)
    for key, name in (("power", "measured"), ("predicted", "predicted")):
        figures = text.aligned([1e3 * record[key] for record in records])
        cells = [Cell(t, record[key]) for t, record in zip(figures, records, strict=True)]
        table.add(Head(name, "10⁻³", "error / signal power"), cells)
    ratios = [record["power"] / record["predicted"] if record["predicted"] > 0 else None for record in records]
    table.add(Head("measured / predicted"), [Cell(text.decimal(ratio), ratio) for ratio in ratios])
    return table.sheet("Error power at one LSB")


def grid(study: Study) -> Sheet:
    """Every chip of the grid."""
    records = study.get("grid") or []
    table = Columns()
    table.words(Head("ranges", numeric=False), of(records, "ranges"))
    table.figures(Head("ADC bits"), of(records, "bits"), text.number)
    table.figures(Head("rows"), of(records, "rows"), text.number)
    _accuracies(table, records)
    if any("simulation" in record for record in records):
        table.words(Head("simulated", numeric=False), of(records, "simulation"))
    table.physical(Head("energy"), of(records, "energy_J"), "J")
    table.figures(Head("conversions"), of(records, "conversions"), text.number)
    table.physical(Head("latency"), of(records, "latency_s"), "s")
    table.physical(Head("area"), of(records, "area_m2"), "m2")
    table.ratio(Head("efficiency", "TOPS/W"), of(records, "tops_per_watt"))
    return table.sheet("Every chip of the grid")


def heights(study: Study) -> Sheet:
    """The best crossbar height for each ADC."""
    records = study.get("best_heights") or []
    table = Columns()
    table.words(Head("ranges", numeric=False), of(records, "ranges"))
    table.figures(Head("ADC bits"), of(records, "bits"), text.number)
    groups = (("most accurate", "most_accurate"), ("least energy within one point", "cheapest"))
    for group, key in groups:
        points = [record[key] for record in records]
        table.add(Head("rows", "", group), [Cell(text.number(p["rows"]), p["rows"]) for p in points])
        reached = [p.get("mean", p["adc"]) for p in points]
        table.add(Head("accuracy", "%", group), [Cell(text.decimal(value), value) for value in reached])
        energies = [p["energy_J"] for p in points]
        column = text.column(energies, "J")
        cells = [Cell(t, value) for t, value in zip(column.texts, energies, strict=True)]
        table.add(Head("energy", column.unit, group), cells)
    return table.sheet("Best crossbar height for each ADC")


def training(study: Study) -> Sheet:
    """Each way to train on the same chips."""
    records = study.get("training") or []
    table = Columns()
    table.words(Head("training", numeric=False), of(records, "training"))
    table.words(Head("network", numeric=False), of(records, "name"))
    table.words(Head("ADC ranges", numeric=False), of(records, "ranges"))
    table.figures(Head("float", "%"), of(records, "float"), text.decimal)
    table.figures(Head("exact integers", "%"), of(records, "ideal_integer"), text.decimal)
    _accuracies(table, records)
    table.figures(Head("worst", "%"), of(records, "worst"), text.decimal)
    if any(record.get("trained_for") for record in records):
        conditions = ["; ".join(record.get("trained_for") or []) or "the same chip" for record in records]
        table.add(Head("trained for", numeric=False, prose=True), [Cell(words, words) for words in conditions])
    return table.sheet("The same network, trained knowing more and more of the chip")


def _accuracies(table: Columns, records: Sequence[Mapping[str, Any]]) -> None:
    table.figures(Head("ideal cells", "%"), of(records, "adc"), text.decimal)
    means = [text.finite(record.get("mean")) for record in records]
    if any(mean is not None for mean in means):
        cells = [Cell(text.spread(m, r.get("std")), m) for m, r in zip(means, records, strict=True)]
        table.add(Head("programmed", "%"), cells)
