"""Evaluations of several runs, and what keeps them from being compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitline import manifest
from bitline.errors import DataError
from bitline.evaluation.files import load
from bitline.evaluation.record import Evaluation
from bitline.files import AFTER, BEFORE, RECIPE, near, read_json
from bitline.report import chip_sheets, text


@dataclass(frozen=True)
class Entry:
    """One run that is compared.

    Args:
        name: of the run.
        recipe: that made it; ``"trained"`` for a plain run.
        evaluation: of the network as it is.
        before: of the network that the recipe began with; None for a plain run.
    """

    name: str
    recipe: str
    evaluation: Evaluation
    before: Evaluation | None = None


def read(paths: Sequence[Path]) -> list[Entry]:
    """Read the evaluations of runs.

    Args:
        paths: run directories, or files of ``bitline evaluate --json``.

    Raises:
        DataError: fewer than two, no such run, a run without an evaluation, a damaged file, or other data or
            another metric.
    """
    if len(paths) < 2:
        raise DataError(f"{len(paths)} run to compare; give two or more")
    entries = [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    first = entries[0]
    for entry in entries[1:]:
        for key in ("name", "split"):
            mine, theirs = (getattr(each.evaluation.data, key) for each in (entry, first))
            if mine != theirs:
                raise DataError(
                    f"{first.name} was evaluated on data {key} {theirs!r}, {entry.name} on {mine!r}; their accuracies "
                    "do not compare: evaluate them on the same data"
                )
        mine, theirs = entry.evaluation.metric, first.evaluation.metric
        if mine != theirs:
            raise DataError(
                f"{first.name} was evaluated by {theirs.label}, {entry.name} by {mine.label}; these do not compare: "
                "evaluate them by the same metric"
            )
    return entries


def _read(path: Path, name: str) -> Entry:
    if path.is_file():
        return Entry(name, "evaluated", load(path))
    evaluation = load(evaluation_of(path))
    recipe = str(read_json(path / RECIPE).get("recipe", "recipe")) if (path / RECIPE).is_file() else "trained"
    before = load(path / BEFORE) if (path / BEFORE).is_file() else None
    return Entry(name, recipe, evaluation, before)


def evaluation_of(path: Path) -> Path:
    """Return the file of an evaluation: that of a run directory, or the path itself.

    Raises:
        DataError: no such run, or one that was not evaluated.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        what = "evaluation file" if path.suffix == ".json" else "run directory"
        raise DataError(f"no such {what}: {path}{near(path)}")
    if not (path / AFTER).is_file():
        raise DataError(f"{path} has no {AFTER}; make it with: bitline evaluate {path} --chip NAME")
    manifest.check(path)
    return path / AFTER


def _names(paths: Sequence[Path]) -> list[str]:
    """Name each run by its directory, and by its parents too where names meet."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({i + 1})" for i, path in enumerate(paths)]


def differences(entries: Sequence[Entry]) -> list[str]:
    """Name everything but the network in which the evaluations differ; empty where they compare as they are."""
    return conditions(entries) + [f"chip, {line}" for line in _lines(chips(entries), entries)]


def conditions(entries: Sequence[Entry]) -> list[str]:
    """Name what differs between the evaluations besides network and chip."""
    every = [_conditions(entry.evaluation) for entry in entries]
    values = {key: tuple(text.plain(one[key]) for one in every) for key in every[0]}
    return _lines({key: each for key, each in values.items() if len(set(each)) > 1}, entries)


def chips(entries: Sequence[Entry]) -> dict[str, tuple[str, ...]]:
    """Return the chip keys in which the evaluations differ, as written for each."""
    return chip_sheets.differences([entry.evaluation.chip for entry in entries])


def same_network(entries: Sequence[Entry]) -> bool:
    """Tell whether one network was evaluated every time, so that its chips are what is compared."""
    plain = ("trained", "evaluated")  # of a run directory, and of a file
    every = {
        (each.evaluation.model, each.evaluation.accuracy.float, "" if each.recipe in plain else each.recipe)
        for each in entries
    }
    return len(every) == 1 and bool(chips(entries))


def _lines(values: Mapping[str, Sequence[str]], entries: Sequence[Entry]) -> list[str]:
    lines: list[str] = []
    for key, each in values.items():
        by_value: dict[str, list[str]] = {}
        for value, entry in zip(each, entries, strict=True):
            by_value.setdefault(value, []).append(entry.name)
        lines.append(f"{key}: " + "; ".join(f"{value} in {', '.join(names)}" for value, names in by_value.items()))
    return lines


def _conditions(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "images": evaluation.data.count,
        "seeds of the chips": _seeds(evaluation.seeds),
        "simulation of accuracies": evaluation.simulation.kind,
        "biases corrected on each chip": evaluation.bias_correction,
        "bitline": evaluation.bitline,
    }


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return text.plain(seeds)


def row(entry: Entry, first: Entry) -> dict[str, Any]:
    """Return the figures of one run.

    Args:
        entry: the run.
        first: the run that equal useful work is measured by.

    Returns:
        Accuracies in percent, energies in joule for an inference; ``work_efficiency`` is that of `first` over that of
        the run.
    """
    return {"run": entry.name, "recipe": entry.recipe, **figures(entry.evaluation, first.evaluation)}


def figures(evaluation: Evaluation, first: Evaluation) -> dict[str, Any]:
    """Return the figures of one evaluation; see `row`."""
    accuracy, cost = evaluation.accuracy, evaluation.cost
    convolutions = [layer.row_tiles for layer in evaluation.layers if layer.kind.startswith("conv")]
    return {
        "float": accuracy.float,
        "ideal_integer": accuracy.ideal_integer,
        "mean": accuracy.mean,
        "std": accuracy.std,
        "worst": accuracy.worst,
        "chips": len(accuracy.chips),
        "row_tiles": max(convolutions, default=None),
        "conversions": cost.conversions,
        "macs": cost.macs,
        "energy_J": cost.energy_J,
        "tops_per_watt": cost.tops_per_watt,
        "work_efficiency": _ratio(first.cost.energy_J, cost.energy_J),
        "area_m2": cost.area_m2,
        "latency_s": cost.latency_s,
    }


def gains(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return what each recipe changed of the network it began with, on the chips of its own evaluations.

    Returns:
        For each run that has both evaluations: ``before`` and ``after`` (accuracy on chips, %, or what else was
        measured), ``points`` (how much better it became), and ``conversions``, ``energy`` for an inference (after
        over before) and ``work_efficiency`` (energy, before over after).
    """
    changes: list[dict[str, Any]] = []
    for entry in entries:
        if entry.before is not None:
            old, new = entry.before, entry.evaluation
            before, after = old.accuracy.on_chip, new.accuracy.on_chip
            changes.append(
                {
                    "run": entry.name,
                    "recipe": entry.recipe,
                    "before": before,
                    "after": after,
                    "points": new.metric.lost(after, before),
                    "conversions": _ratio(new.cost.conversions, old.cost.conversions),
                    "energy": _ratio(new.cost.energy_J, old.cost.energy_J),
                    "work_efficiency": _ratio(old.cost.energy_J, new.cost.energy_J),
                    "tops_per_watt": _ratio(new.cost.tops_per_watt, old.cost.tops_per_watt),
                }
            )
    return changes


def _ratio(over: float, under: float) -> float | None:
    return over / under if under else None
