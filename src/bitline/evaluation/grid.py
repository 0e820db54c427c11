"""One network on every combination of some chip keys, point by point, kept as they are finished."""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from bitline.chip.description import Chip
from bitline.chip.files import replace
from bitline.chip.records import fingerprint
from bitline.cost.model import price
from bitline.errors import DataError, ExportError
from bitline.evaluation import shown
from bitline.evaluation.figures import Metric, Real
from bitline.evaluation.on_chip import calibrated, converted
from bitline.evaluation.record import Data, Simulated, Variant
from bitline.evaluation.result import Result, validated
from bitline.evaluation.score import score
from bitline.evaluation.settings import Settings
from bitline.evaluation.task import Task
from bitline.evaluation.variants import sweep
from bitline.files import read_json
from bitline.nn import placement, set_chip

FILE = "sweep.json"
MOST_POINTS = 10_000


class Sweep(Result):
    """One network on chips that differ in a few keys: how well it answers beside what it costs."""

    format: Literal[1] = 1
    """of the file"""
    bitline: str
    """version that measured"""
    chip: Chip
    """whose keys vary"""
    model: str
    network: str
    """hash of its weights"""
    data: Data
    metric: Metric
    calibration: str
    """what the ranges were set on, in words"""
    simulation: Simulated
    seeds: tuple[int, ...]
    """of the programmed chips at each point"""
    vary: dict[str, tuple[str, ...]]
    """values of each key"""
    float: Real
    """figure of the network without a chip"""
    variants: tuple[Variant, ...]
    """the points, in the order of the grid; fewer than the grid has where the sweep is not finished"""

    def __str__(self) -> str:
        return shown.words(self)

    @property
    def best(self) -> tuple[Variant, ...]:
        """Points that no other beats in both figure and energy, by rising energy."""
        sign = 1 if self.metric.better == "higher" else -1
        best: list[Variant] = []
        for variant in sorted(self.variants, key=lambda v: (v.energy_J, -sign * v.mean)):
            if not best or sign * variant.mean > sign * best[-1].mean:
                best.append(variant)
        return tuple(best)


@dataclass(frozen=True)
class Place:
    """Where finished points are kept.

    Args:
        folder: None: nowhere.
        resume: whether to go on with the sweep that is there.
    """

    folder: Path | None
    resume: bool = False

    def check(self) -> None:
        """Refuse a folder that holds something else, or nothing to go on with.

        Raises:
            DataError: it does.
        """
        if self.folder is None:
            if self.resume:
                raise DataError("resume needs the folder of a sweep: out (--out)")
            return
        if self.resume and not (self.folder / FILE).is_file():
            raise DataError(f"{self.folder} holds no {FILE} to go on with")
        if not self.resume and self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise DataError(f"{self.folder} is not empty; resume=True (--resume) goes on with the sweep in it")

    def found(self, begun: Sweep) -> tuple[Variant, ...]:
        """Return the points that are finished.

        Args:
            begun: the sweep, without any point.

        Raises:
            DataError: what is there is another sweep, or damaged.
        """
        if self.folder is None or not self.resume:
            return ()
        before = validated(Sweep, read_json(self.folder / FILE), f"{self.folder / FILE} is no sweep")
        for key in ("chip", "network", "data", "metric", "calibration", "simulation", "seeds", "vary", "bitline"):
            if getattr(before, key) != getattr(begun, key):
                raise DataError(f"{self.folder} holds another sweep: its {key} differs; choose another folder")
        return before.variants

    def keep(self, measured: Sweep) -> None:
        """Write the points finished so far."""
        if self.folder is not None:
            measured.to_json(self.folder / FILE)


def points(vary: Mapping[str, Sequence[object]]) -> list[list[str]]:
    """List the combinations of values, as ``KEY=VALUE``; the last key varies fastest.

    Raises:
        DataError: none, a key without values, one value twice, or too many combinations.
    """
    if not vary:
        raise DataError("nothing varies; give for example {'adc.bits': [4, 5, 6]} (--vary adc.bits=4,5,6)")
    count = 1
    for key, values in vary.items():
        texts = [_text(value) for value in ([] if isinstance(values, str) else values)]
        if not texts or len(set(texts)) < len(texts):
            raise DataError(f"values of {key} are {values!r}; expected a list of values, all different")
        count *= len(texts)
    if count > MOST_POINTS:
        raise DataError(f"the sweep has {count} points; allowed: {MOST_POINTS}")
    sides = [[f"{key}={_text(value)}" for value in values] for key, values in vary.items()]
    return [list(keys) for keys in itertools.product(*sides)]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def measure(
    model: nn.Module,
    task: Task,
    chip: Chip,
    settings: Settings,
    vary: Mapping[str, Sequence[object]],
    place: Place,
    *,
    name: str,
    mapping: Mapping[str, str] | None = None,
    ranges: Path | None = None,
    done: Callable[[Variant], None] | None = None,
) -> Sweep:
    """Measure every point of a grid; see `bitline.sweep`."""
    every = points(vary)
    chips = [replace(chip, *keys) for keys in every]  # refuses what is no chip
    if settings.chips < 1:
        raise DataError(f"chips is {settings.chips}; allowed: 1 or more")
    place.check()
    on_chip = converted(model, task, chip, settings, mapping, ranges)
    for changed in {fingerprint(each): each for each in chips}.values():
        set_chip(on_chip.model, changed)  # refuses what does not fit
        price(placement(on_chip.model))
    set_chip(on_chip.model, chip)
    begun = Sweep(
        bitline=version("bitline"),
        chip=chip,
        model=name,
        network=_hash(model),
        data=task.data,
        metric=task.metric.record,
        calibration=task.calibrated_on,
        simulation=settings.simulation,
        seeds=tuple(settings.seeds),
        vary={key: tuple(_text(value) for value in values) for key, values in vary.items()},
        float=score(on_chip.plain, task),
        variants=(),
    )
    finished = {variant.overrides: variant for variant in place.found(begun)}
    left = [keys for keys in every if tuple(keys) not in finished]
    if ranges is not None or chip.weights.bias_bits is not None:
        calibrated(on_chip, ranges)

    def so_far() -> Sweep:
        known = tuple(finished[tuple(keys)] for keys in every if tuple(keys) in finished)
        return begun.model_copy(update={"variants": known})

    def keep(variant: Variant) -> None:
        finished[variant.overrides] = variant
        place.keep(so_far())
        if done is not None:
            done(variant)

    if place.folder is not None:
        _folder(place.folder)
    sweep(on_chip, chip, left, done=keep)
    return so_far()


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot write {folder}: {error.strerror or error}") from error


def _hash(model: nn.Module) -> str:
    """Return a hash of the weights of a network."""
    digest = hashlib.blake2b(digest_size=8)
    for key, value in model.state_dict().items():
        if hasattr(value, "detach"):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
