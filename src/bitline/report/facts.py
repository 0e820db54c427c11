"""What an evaluation says, found once for the page and the terminal alike."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitline.report import text

Evaluation = Mapping[str, Any]

_REST = ("other_chips", "not_attributed")  # what no cause took
OVERRIDES = ("chip overrides", "chip_overrides", "overrides")
COST = (("energy", "energy_J", "J"), ("latency", "latency_s", "s"), ("area", "area_m2", "m2"))


@dataclass(frozen=True)
class Step:
    """One cause and the accuracy before and after it, %; points lost, and their spread over the chips."""

    key: str
    before: float
    after: float
    points: float
    std: float

    @property
    def name(self) -> str:
        """The cause in words."""
        return text.cause(self.key)


@dataclass(frozen=True)
class Quantity:
    """One figure of the cost, and the span that other ADC models give it."""

    name: str
    unit: str
    value: float
    low: float | None
    high: float | None
    note: str

    @property
    def text(self) -> str:
        """The figure with its unit."""
        return self.write(self.value)

    @property
    def span(self) -> str:
        """Lowest to highest over the ADC models, or an empty string."""
        if self.low is None or self.high is None:
            return ""
        low, high = self.write(self.low), self.write(self.high)
        head, _, unit = low.rpartition(" ")
        return f"{head if high.endswith(f' {unit}') else low} to {high}"

    def write(self, value: float) -> str:
        """Write a value in this quantity's unit."""
        return f"{text.number(value)} {self.unit}" if "/" in self.unit else text.quantity(value, self.unit)


def part(evaluation: Evaluation, key: str) -> Mapping[str, Any]:
    """Return a nested record, empty where it is absent."""
    found = evaluation.get(key)
    return found if isinstance(found, Mapping) else {}


def rows(evaluation: Evaluation, key: str) -> list[Mapping[str, Any]]:
    """Return a list of records, empty where it is absent."""
    return list(evaluation.get(key) or [])


def chips(evaluation: Evaluation) -> list[float]:
    """Return the accuracy of each programmed chip, %."""
    return list(part(evaluation, "accuracy").get("chips") or [])


def accuracy(evaluation: Evaluation) -> dict[str, Any]:
    """Return the accuracies, %; mean, spread and worst follow from the chips where they are not written."""
    found, programmed = dict(part(evaluation, "accuracy")), chips(evaluation)
    if programmed:
        found.setdefault("mean", statistics.fmean(programmed))
        found.setdefault("std", statistics.stdev(programmed) if len(programmed) > 1 else 0.0)
        found.setdefault("worst", min(programmed))
    return {key: value for key, value in found.items() if value is not None}


def chip_name(evaluation: Evaluation) -> str:
    """Name the chip."""
    return str(part(evaluation, "chip").get("name", "unnamed chip"))


def title(evaluation: Evaluation) -> str:
    """Name what was evaluated."""
    return f"{evaluation.get('model', 'network')} on {chip_name(evaluation)}"


def data(evaluation: Evaluation) -> str:
    """Name the images: ``cifar10 test, 500 images``."""
    record = part(evaluation, "data")
    name = " ".join(str(record[key]) for key in ("name", "split") if record.get(key))
    count = record.get("count")
    return ", ".join(filter(None, [name, f"{text.number(count)} images" if count is not None else ""]))


def steps(evaluation: Evaluation) -> list[Step]:
    """Return the causes in the order applied; what they leave unexplained comes last, where it would show."""
    start = accuracy(evaluation)
    before = text.finite(start.get("float"))
    found: list[Step] = []
    for record in rows(evaluation, "causes"):
        points, after = text.finite(record.get("points")), text.finite(record.get("accuracy_after"))
        if before is None:  # the first cause starts from what it left plus what it took
            before = (after or 0.0) + (points or 0.0)
        points = before - (after or 0.0) if points is None else points
        after = before - points if after is None else after
        found.append(Step(str(record["cause"]), before, after, points, text.finite(record.get("std")) or 0.0))
        before = after
    mean = text.finite(start.get("mean"))
    if found and before is not None and mean is not None and chips(evaluation) and abs(before - mean) >= 0.005:
        rest = _REST[split_on(evaluation) == len(chips(evaluation))]
        found.append(Step(rest, before, mean, before - mean, 0.0))
    return found


def split_on(evaluation: Evaluation) -> int:
    """Count the chips on which the loss was split by cause."""
    seeds = evaluation.get("cause_seeds")
    return len(chips(evaluation)) if seeds is None else len(seeds)


def quantities(evaluation: Evaluation) -> list[Quantity]:
    """Return energy, latency, area and TOPS/W, each beside what other ADC models make of it."""
    cost, models = part(evaluation, "cost"), adc_models(evaluation)
    found: list[Quantity] = []
    for name, key, unit in (*COST, ("efficiency", "tops_per_watt", "TOPS/W")):
        value = text.finite(cost.get(key))
        if value is not None:
            others = [text.finite(model.get(key)) for model in models.values()]
            known = [other for other in others if other is not None]
            span = (min([value, *known]), max([value, *known])) if known else (None, None)
            found.append(Quantity(name, unit, value, *span, _note(evaluation, key, len(known))))
    return found


def _note(evaluation: Evaluation, key: str, models: int) -> str:
    cost = part(evaluation, "cost")
    if models:
        chosen = cost.get("adc_model")
        return f"across {models} ADC models" + (f"; chosen: {chosen}" if chosen else "")
    if key == "latency_s":
        interval = text.finite(cost.get("interval_s"))
        paced = f"; pipelined, one input every {text.quantity(interval, 's')}" if interval else ""
        return "published ADC models give no speed" + paced
    return "under one ADC model only; published ones differ by 4x"


def adc_models(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Return the whole chip under each ADC model: ``energy_J``, ``area_m2``, ``tops_per_watt`` and so on."""
    return {str(name): dict(model) for name, model in part(part(evaluation, "cost"), "adc_range").items()}


def lead(evaluation: Evaluation) -> list[str]:
    """Say the result in two sentences at most."""
    known, said = accuracy(evaluation), list[str]()
    programmed = chips(evaluation)
    if text.finite(known.get("float")) is not None:
        sentence = f"The float network answers {text.decimal(known['float'])} % of the images right"
        if programmed:
            some = "one programmed chip" if len(programmed) == 1 else f"{len(programmed)} programmed chips"
            sentence += f", {some} {text.spread(known.get('mean'), known.get('std'))} %"
        elif text.finite(known.get("ideal_integer")) is not None:
            sentence += f", an ideal chip in integers {text.decimal(known['ideal_integer'])} %"
        caused = [step for step in steps(evaluation) if step.key not in _REST]
        worst = max(caused, key=lambda step: step.points, default=None)
        if worst is not None and worst.points > 0:
            sentence += f". Most is lost to {'the ' if worst.key == 'adc' else ''}{worst.name}: "
            sentence += f"{text.decimal(worst.points)} points"
        said.append(sentence + ".")
    found = {quantity.name: quantity for quantity in quantities(evaluation)}
    if "energy" in found:
        span = found["energy"].span
        sentence = f"One inference costs {found['energy'].text}" + (f" ({span} across ADC models)" if span else "")
        sentence += f" and {found['latency'].text}" if "latency" in found else ""
        parts = shares(part(part(evaluation, "cost"), "energy_parts"))
        if parts:
            name, share = max(parts.items(), key=lambda item: item[1])
            sentence += f"; {text.label(name)} takes {100 * share:.0f} % of the energy"
        said.append(sentence + ".")
    return said


def shares(parts: Mapping[str, float]) -> dict[str, float]:
    """Return each part over the total, largest first."""
    total = sum(parts.values())
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    return {name: value / total if total else 0.0 for name, value in ordered}


def causes_of_error(evaluation: Evaluation) -> list[str]:
    """Return the causes that add error to any layer, in the order they act."""
    order = ["quantization", "adc", "programming", "faults", "read_noise"]
    found = {key for layer in rows(evaluation, "layers") for key, value in part(layer, "error_parts").items() if value}
    return [key for key in order if key in found] + sorted(found.difference(order))


def settings(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten nested keys: ``adc.bits``."""
    flat: list[tuple[str, Any]] = []
    for key, value in record.items():
        name = f"{prefix}{key}"
        flat += settings(value, f"{name}.") if isinstance(value, Mapping) and value else [(name, value)]
    return flat


def overrides(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chip keys that a sweep changed, flattened."""
    found: dict[str, Any] = {}
    for key in OVERRIDES:
        changed = row.get(key)
        if isinstance(changed, Mapping):
            found.update(settings(changed))
        else:
            found.update(_setting(item) for item in changed or ())
    return found


def short_labels(sweep: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each chip of a sweep in few words: its label, or only what sets it apart where that is long."""
    labels = [str(row.get("label", i)) for i, row in enumerate(sweep)]
    changed = [overrides(row) for row in sweep]
    if max(map(len, labels), default=0) <= 20 or not all(changed):
        return labels
    apart: dict[tuple[str, ...], str] = {}  # keys that change together are told once
    for key in dict.fromkeys(key for found in changed for key in found):
        values = tuple(text.plain(found.get(key)) for found in changed)
        if len(set(values)) > 1:
            apart.setdefault(values, key.rpartition(".")[2])
    return [", ".join(f"{name} {values[i]}" for values, name in apart.items()) for i in range(len(sweep))]


def _setting(item: str) -> tuple[str, Any]:
    """Read ``adc.bits=6``; a value that is no number stays as written."""
    key, _, written = item.partition("=")
    try:
        value = float(written)
    except ValueError:
        return key, written
    return key, int(value) if value.is_integer() else value


def frontier(sweep: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the rows that no other row beats in both accuracy and energy, by rising energy."""
    known: list[tuple[float, float, int]] = []
    for i, row in enumerate(sweep):
        energy, mean = text.finite(row.get("energy_J")), text.finite(row.get("mean"))
        if energy is not None and mean is not None:
            known.append((energy, -mean, i))
    best, kept = float("inf"), list[int]()
    for _, loss, i in sorted(known):
        if loss < best:
            best = loss
            kept.append(i)
    return kept


def absent(evaluation: Evaluation) -> list[str]:
    """Name what this evaluation does not hold, so that a short page is not taken for a whole one."""
    missing: list[str] = []
    if not chips(evaluation):
        missing.append("accuracy of programmed chips: no chip was programmed")
    if not rows(evaluation, "causes"):
        missing.append("loss by cause")
    cost = part(evaluation, "cost")
    if not cost:
        missing.append("cost")
    elif not adc_models(evaluation):
        missing.append("cost under other ADC models")
    layers = rows(evaluation, "layers")
    if not layers:
        missing.append("layers on crossbars")
    analog = [layer for layer in layers if layer.get("strategy") != "digital"]
    without = [str(layer.get("name", "?")) for layer in analog if not part(layer, "partial_sums")]
    if without:
        missing.append(f"partial sums of {'every layer' if len(without) == len(layers) else ', '.join(without)}")
    return missing
