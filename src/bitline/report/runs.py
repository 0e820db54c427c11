"""Evaluations of several runs, and what keeps them from being compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitline.chip.description import check
from bitline.errors import ChipError, DataError
from bitline.files import AFTER, BEFORE, RECIPE, read_json
from bitline.report import facts, text
from bitline.report.facts import Evaluation

_WORDS = ("name", "about", "doi", "deviations")


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
        paths: run directories, or files that ``bitline evaluate --json`` wrote.

    Raises:
        DataError: fewer than two, no such run, a run without an evaluation, a damaged file, or other data.
    """
    if len(paths) < 2:
        raise DataError(f"{len(paths)} run to compare; give two or more")
    entries = [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    first = entries[0]
    for entry in entries[1:]:
        for key in ("name", "split"):
            mine, theirs = (facts.part(e.evaluation, "data").get(key) for e in (entry, first))
            if mine != theirs:
                raise DataError(
                    f"{first.name} was evaluated on data {key} {theirs!r}, {entry.name} on {mine!r}; their accuracies "
                    "do not compare: evaluate them on the same data"
                )
    return entries


def _read(path: Path, name: str) -> Entry:
    if path.is_file():
        return Entry(name, "evaluated", _evaluation(path))
    if not path.is_dir():
        raise DataError(f"no such run directory: {path}")
    if not (path / AFTER).is_file():
        raise DataError(
            f"{path} has no {AFTER}; make it with: bitline evaluate {path} --chip NAME --json {path / AFTER}"
        )
    recipe = str(read_json(path / RECIPE).get("recipe", "recipe")) if (path / RECIPE).is_file() else "trained"
    before = _evaluation(path / BEFORE) if (path / BEFORE).is_file() else None
    return Entry(name, recipe, _evaluation(path / AFTER), before)


def _evaluation(path: Path) -> Evaluation:
    found = read_json(path)
    absent = [key for key in ("accuracy", "cost", "layers") if key not in found]
    if absent:
        raise DataError(f"{path} is no evaluation: it has no {', '.join(absent)}")
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    """Name each run by its directory, and by its parents too where names meet."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(found[-depth:]) for found in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({i + 1})" for i, path in enumerate(paths)]


def differences(entries: Sequence[Entry]) -> list[str]:
    """Name everything but the network in which the evaluations differ; empty where they compare as they are."""
    told: list[dict[str, Any]] = [_conditions(entry.evaluation) for entry in entries]
    said: list[str] = []
    for key in dict.fromkeys(key for conditions in told for key in conditions):
        values = [text.plain(conditions.get(key)) for conditions in told]
        if len(set(values)) > 1:
            by_value: dict[str, list[str]] = {}
            for value, entry in zip(values, entries, strict=True):
                by_value.setdefault(value, []).append(entry.name)
            said.append(f"{key}: " + "; ".join(f"{value} in {', '.join(names)}" for value, names in by_value.items()))
    return said


def _conditions(evaluation: Evaluation) -> dict[str, Any]:
    chip = {key: value for key, value in _with_defaults(facts.part(evaluation, "chip")).items() if key not in _WORDS}
    return {
        "images": facts.part(evaluation, "data").get("count"),
        "seeds of the chips": _seeds(evaluation.get("seeds")),
        **{f"chip, {key}": value for key, value in facts.settings(chip)},
        "bitline": evaluation.get("bitline"),
    }


def _with_defaults(chip: Mapping[str, Any]) -> Mapping[str, Any]:
    """A chip with the keys that its evaluation is too old to have; as it is where it is no chip."""
    try:
        return check(dict(chip)).model_dump(mode="json")
    except ChipError:
        return chip


def _seeds(seeds: Any) -> str:
    known = list(seeds or [])
    if len(known) > 2 and known == list(range(known[0], known[0] + len(known))):
        return f"{known[0]} to {known[-1]}"
    return text.plain(known)


def row(entry: Entry, first: Entry) -> dict[str, Any]:
    """Return the figures of one run.

    Args:
        entry: the run.
        first: the run that equal useful work is measured by.

    Returns:
        Accuracies in percent, energies in joule per image; ``work_efficiency`` is images per joule over `first`.
    """
    return {"run": entry.name, "recipe": entry.recipe, **figures(entry.evaluation, first.evaluation)}


def figures(evaluation: Evaluation, first: Evaluation) -> dict[str, Any]:
    """Return the figures of one evaluation; see `row`."""
    accuracy, cost, layers = (
        facts.accuracy(evaluation),
        facts.part(evaluation, "cost"),
        facts.rows(evaluation, "layers"),
    )
    convolutions = [
        int(r["row_tiles"]) for r in layers if str(r.get("kind", "")).startswith("conv") and "row_tiles" in r
    ]
    energy, unit = text.finite(cost.get("energy_J")), text.finite(facts.part(first, "cost").get("energy_J"))
    return {
        **{key: accuracy.get(key) for key in ("float", "ideal_integer", "mean", "std", "worst")},
        "chips": len(facts.chips(evaluation)),
        "row_tiles": max(convolutions, default=None),
        "conversions": cost.get("conversions", sum(int(r.get("conversions", 0)) for r in layers)),
        "macs": cost.get("macs"),
        "energy_J": energy,
        "tops_per_watt": cost.get("tops_per_watt"),
        "work_efficiency": unit / energy if energy and unit else None,
        "area_m2": cost.get("area_m2"),
        "latency_s": cost.get("latency_s"),
    }


def gains(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return what each recipe changed of the network it began with, on the chips of its own evaluations.

    Returns:
        For each run that has both evaluations: ``before`` and ``after`` (accuracy on chips, %), ``points``, and
        ``conversions``, ``energy`` (after over before) and ``work_efficiency`` (images per joule, after over before).
    """
    found: list[dict[str, Any]] = []
    for entry in entries:
        if entry.before is not None:
            old, new = figures(entry.before, entry.before), figures(entry.evaluation, entry.before)
            before, after = (_reached(each) for each in (old, new))
            found.append(
                {
                    "run": entry.name,
                    "recipe": entry.recipe,
                    "before": before,
                    "after": after,
                    "points": after - before if after is not None and before is not None else None,
                    "conversions": _ratio(new["conversions"], old["conversions"]),
                    "energy": _ratio(new["energy_J"], old["energy_J"]),
                    "work_efficiency": new["work_efficiency"],
                    "tops_per_watt": _ratio(new["tops_per_watt"], old["tops_per_watt"]),
                }
            )
    return found


def _reached(record: Mapping[str, Any]) -> float | None:
    return text.finite(record["mean"]) if record["mean"] is not None else text.finite(record["ideal_integer"])


def _ratio(a: object, b: object) -> float | None:
    over, under = text.finite(a), text.finite(b)
    return over / under if over is not None and under else None
