"""The study of partial sums: three lessons, measured on a trained network.

The questions follow Y. Wu et al., HPEC 2021 (doi 10.1109/HPEC49654.2021.9622798), of which only the abstract is public:
how they are asked here is our reconstruction.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bitline.chip.description import Chip
from bitline.errors import DataError
from bitline.evaluation.score import Tick
from bitline.lock import locked
from bitline.nn import crossbar_layers
from bitline.study import grid, layers, lesson_tiles, tiles, training
from bitline.study.findings import findings
from bitline.study.plan import Plan
from bitline.study.record import Record
from bitline.study.runs import Network, chip_for
from bitline.study.subject import Subject
from bitline.train.hardware import git_commit


@dataclass(frozen=True)
class Runs:
    """The network under study, and the same one trained otherwise.

    Args:
        unaware: trained without the chip.
        quantization_aware: trained with the chip's integers; None: not measured.
        psum_aware: trained with the chip's partial sums; None: not measured.
    """

    unaware: Network
    quantization_aware: Network | None = None
    psum_aware: Network | None = None

    @property
    def by_training(self) -> dict[str, Network]:
        """Those that are given, by what their training knew."""
        all_ = zip(training.TRAININGS, (self.unaware, self.quantization_aware, self.psum_aware), strict=True)
        return {what: network for what, network in all_ if network is not None}


@dataclass(frozen=True)
class _Step:
    """One point: its lesson, what tells it from the others of the lesson, and how to measure it."""

    lesson: str
    key: dict[str, Any]
    measure: Callable[[], dict[str, Any]]
    passes: int
    """over the test images"""

    def __str__(self) -> str:
        return f"{self.lesson}: {', '.join(str(value) for value in self.key.values())}"


def partial_sums(runs: Runs, chip: Chip, plan: Plan, path: Path, *, resume: bool = False) -> dict[str, Any]:
    """Measure the three lessons, each point written as soon as it is known.

    Args:
        runs: the trained networks.
        chip: that the study is about; the grid varies its crossbar height and ADC.
        plan: what to vary, and how thoroughly to measure.
        path: JSON file that holds everything measured.
        resume: go on with a file that was made with the same settings.

    Returns:
        The content of the file: ``layers``, ``tiles`` and their ``exponents`` (lesson 1), ``estimates`` by a surrogate
        where the plan says so, ``grid`` and its ``best_heights`` (lesson 2), ``training`` (lesson 3),
        ``not_measured``, ``findings``, and what all of it depends on.

    Raises:
        DataError: the file is of another study, or not to be resumed, or another process uses its folder.
        ChipError: a chip of the grid that cannot exist.
        MappingError: a chip of the grid that is too small.
    """
    with locked(path.parent):
        return _partial_sums(runs, chip, plan, path, resume=resume)


def _partial_sums(runs: Runs, chip: Chip, plan: Plan, path: Path, *, resume: bool) -> dict[str, Any]:
    """Measure in a folder that no other process uses."""
    plan.settings.check(runs.unaware.data)
    record = Record.open(path, _head(runs, chip, plan), resume=resume)
    if not record.content.get("finished"):
        for network in runs.by_training.values():
            chip_for(network, chip)  # refuses other formats before anything slow is done
        with _ticking(plan, _images(runs.unaware, plan)) as (tick, show):
            _measure(record, Subject(runs.unaware, chip, plan, tick), runs, show)
        record.content["finished"] = True
    record.content["exponents"] = lesson_tiles.exponents(record.points("tiles"))
    record.content["best_heights"] = grid.best_heights(record.points("grid"))
    record.content["not_measured"] = [*_not_measured(runs, chip, plan), *_estimated(record.points("grid"))]
    record.content["findings"] = [vars(finding) for finding in findings(record.content)]
    record.write()
    return record.content


def _measure(record: Record, subject: Subject, runs: Runs, show: "Show") -> None:
    """Measure every point that the record lacks."""
    commits: list[str | None] = record.content.setdefault("commits", [])
    commit = git_commit() or None
    if commit not in commits:
        commits.append(commit)
    missing = [step for step in _steps(subject, runs, record) if not record.has(step.lesson, step.key)]
    if any(step.lesson == "grid" for step in missing):
        grid.check(subject)
    for number, step in enumerate(missing):
        show(str(step), sum(other.passes for other in missing[number:]), number, len(missing))
        record.add(step.lesson, step.key | step.measure())


def _head(runs: Runs, chip: Chip, plan: Plan) -> dict[str, Any]:
    network = runs.unaware
    return {
        "study": "partial sums",
        "bitline": version("bitline"),
        "model": network.name,
        "data": {"name": network.data.title, "split": "test", "count": _images(network, plan)},
        "chip": chip.model_dump(mode="json"),
        "seeds": plan.settings.seeds,
        "settings": {
            **plan.decides,
            "chip": chip.model_dump(mode="json"),
            "data": network.data.title,
            "weights": {what: run.digest for what, run in runs.by_training.items()},
        },
    }


def _images(network: Network, plan: Plan) -> int:
    most = len(network.data.test_images)
    if plan.images is not None and not 1 <= plan.images <= most:
        raise DataError(f"images is {plan.images}; allowed: 1 to {most}, the test images of {network.data.title}")
    if plan.layer_images > most:
        raise DataError(f"layer_images is {plan.layer_images}; allowed: 1 to {most}, the test images")
    return plan.images or most


def _steps(subject: Subject, runs: Runs, record: Record) -> list[_Step]:
    """List every point of the study."""
    plan, chip = subject.plan, subject.chip
    each = 1 + plan.chips
    names = list(crossbar_layers(subject.on(chip).model))
    pricer = grid.Pricer(subject)
    steps = [_Step("layers", {"layer": name}, partial(layers.measure, subject, name), each) for name in names]
    steps += [
        _Step("tiles", {"layer": name, "rows": rows}, partial(tiles.measure, subject, name, rows), 0)
        for name in names
        for rows in plan.tile_rows
    ]
    steps += [
        _Step("training", {"training": what}, partial(training.measure, network, chip, plan, subject.tick), each + 2)
        for what, network in runs.by_training.items()
    ]
    estimates = record.points("estimates") if plan.simulation == "surrogate" else []
    if plan.simulation == "surrogate":
        steps += [_Step("estimates", key, partial(grid.estimate, subject, **key), each) for key in grid.keys(plan)]
    measure = partial(grid.measure, subject, pricer, estimates)
    return steps + [_Step("grid", key, partial(measure, **key), each) for key in grid.keys(plan)]


def _not_measured(runs: Runs, chip: Chip, plan: Plan) -> list[str]:
    """Name what is left out, and why."""
    absent = [what for what in training.TRAININGS if what not in runs.by_training]
    sentences = [f"lesson 3, {what} training: no run was given" for what in absent]
    if not (plan.rows and plan.bits and plan.ranges):
        sentences.append("lesson 2: the grid has no point")
    if not plan.tile_rows:
        sentences.append("lesson 1, row tiles at one LSB: no numbers of rows were given")
    elif chip.adc.policy == "lossless":
        sentences.append("lesson 1, row tiles at one LSB: the ADC of this chip is lossless, so no conversion errs")
    if not plan.chips:
        sentences.append("programmed chips: none was asked for")
    return sentences


def _estimated(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which points of the grid are estimates; nothing where all are simulated exactly."""
    count = sum(point.get("simulation") == "surrogate" for point in points)
    if not count:
        return []
    return [
        f"lesson 2: {count} of {len(points)} chips are not simulated exactly: estimates of a surrogate, which puts "
        f"them more than {grid.WITHIN + grid.SLACK:g} points below another height with the same ADC"
    ]


Show = Callable[[str, int, int, int], None]


@contextmanager
def _ticking(plan: Plan, images: int) -> Generator[tuple[Tick, Show]]:
    """Show a bar of the images to go, and which point is being measured."""
    if not plan.progress:
        yield (lambda _: None), (lambda _what, _passes, _number, _points: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")
        total = 0

        def show(what: str, passes: int, number: int, points: int) -> None:
            nonlocal total
            total = total or passes * images
            progress.update(
                task,
                description=f"point {number + 1} of {points}  {what}",
                total=total,
                completed=total - passes * images,
            )

        yield (lambda count: progress.advance(task, count)), show
