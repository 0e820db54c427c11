"""From a trained network to one that suits its crossbars: restructure, train in floating point, train on the chip.

Each stage is a run directory of its own below the recipe's, so that a killed recipe goes on with the stage it was in.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bitline import seeds
from bitline.chip.description import Chip
from bitline.compress.prune.repack import repack
from bitline.compress.prune.sparsity import crossbars as crossbars_of
from bitline.compress.prune.sparsity import sparsity, weights
from bitline.data import DataSet, load
from bitline.errors import DataError
from bitline.evaluate import Settings, accuracy, evaluate
from bitline.evaluate.run import CALIBRATION_BATCH
from bitline.files import (
    AFTER,
    BEFORE,
    CHIP,
    CONFIG,
    CROSSBARS,
    FLOAT,
    KERNELS,
    LEFT,
    METRICS,
    ON_CHIP,
    PACKED,
    PRUNING,
    RANGES,
    RECIPE,
    RECORD,
    START,
    UNTRAINED,
    WEIGHTS,
    read_json,
    write_json,
)
from bitline.models.files import Run, load_run
from bitline.network.trace import matmuls
from bitline.recipes.auto import Search, chosen, train_front
from bitline.recipes.config import RecipeConfig
from bitline.recipes.crimp import Phase, Zerorize, chip_of, write_left
from bitline.recipes.files import RESULT, Made, Say, clear, copy, prepare, write_run
from bitline.recipes.on_chip import OnChipTraining
from bitline.recipes.structure import check_layers, restructure
from bitline.train import TrainConfig
from bitline.train import checked as checked_training
from bitline.train.config import Precision
from bitline.train.run import check_counts, train_network
from bitline.train.rundir import IfExists
from bitline.train.rundir import prepare as prepare_training


def optimize(
    config: RecipeConfig, *, if_exists: IfExists = "refuse", say: Say = lambda _: None, progress: bool = False
) -> Path:
    """Run a recipe on a trained network.

    Args:
        config: which network, recipe, chip and how.
        if_exists: a run directory that is already there is refused, resumed with the same configuration (a finished
            one is left as it is), or overwritten.
        say: told what begins and what came of it.
        progress: show bars.

    Returns:
        The run directory: the network as ``bitline train`` leaves it, with ``chip.json``, ``recipe.json``, ADC ranges
        where they were trained, and evaluations of the network it came from, of the new structure before any training
        and of the result, all on the same programmed chips.

    Raises:
        DataError: the run or its directory cannot be used.
        ChipError: no such chip.
        ConversionError: the network does not fit the recipe.
    """
    chip, out = config.load_chip(), config.run_dir
    target = chip_of(chip, config) if config.recipe == "crimp" else chip
    origin = load_run(config.run)
    check_layers(matmuls(origin.model, (origin.record.channels, *(2 * [origin.record.image_size]))), config.layers)
    resumed = prepare(out, config, if_exists)
    if resumed and (out / AFTER).is_file():
        return out
    data = load(origin.record.data, data_dir=config.data_dir, image_size=origin.record.image_size)
    if not resumed:
        _check_settings(config, data)
        clear(out)
    write_json(out / RECIPE, {"recipe": config.recipe, "settings": config.model_dump(mode="json")})
    flow = _Flow(config, chip, data, out, say, progress)
    flow.measure(BEFORE, origin, chip)
    if config.recipe == "auto":
        search = Search(config, chip, data, out)
        front = chosen(search.run(say), config.front, config.proxy_images)
        best = train_front(search, front, lambda c: optimize(c, if_exists="resume", say=say, progress=progress))
        copy(best, out, RESULT)
        return out
    if config.recipe == "crimp":
        flow.chip = target
        last = flow.pruning(origin)
    else:
        last = flow.float_training(flow.start(origin))
    last = flow.chip_training(last)
    flow.keep(last)
    return out


def _check_settings(config: RecipeConfig, data: DataSet) -> None:
    """Refuse at the start what would fail after hours."""
    check_counts(data, batch_size=config.batch_size, epoch_images=config.epoch_images)
    count = len(data.test_images)
    if config.images is not None and config.images > count:
        raise DataError(f"images is {config.images}; allowed: 1 to {count} test images")
    if config.teacher is not None:
        load_run(config.teacher)


class _Flow:
    """The stages of one recipe."""

    def __init__(self, config: RecipeConfig, chip: Chip, data: DataSet, out: Path, say: Say, progress: bool) -> None:
        self.config, self.chip, self.data, self.out, self.say, self.progress = config, chip, data, out, say, progress

    def start(self, origin: Run) -> Path:
        """Restructure the network, unless it keeps its shape."""
        config, folder = self.config, self.out / START
        if config.structure == "dense":
            return config.run
        if not (folder / METRICS).is_file():
            self.say(f"restructuring: {config.structure}")
            count = min(config.structure_images, len(self.data.train_images))
            batches = [x for x, _ in self.data.batches("train", batch_size=CALIBRATION_BATCH, limit=count)]
            layers = config.layers if config.structure == "mixed" else None
            found = restructure(origin.model, batches, self.chip, config, layers)
            self.say(str(found.report))
            record = origin.record.model_copy(update={"rewrites": (*origin.record.rewrites, *found.rewrites)})
            write_run(folder, found.model, record, {"seed": config.seed}, self._score(found.model))
        self.measure(UNTRAINED, load_run(folder), self.chip)
        return folder

    def float_training(self, last: Path) -> Path:
        """Train in floating point after the teacher."""
        if self.config.float_epochs == 0:
            return last
        run = load_run(last)
        train = self._training(FLOAT, run, epochs=self.config.float_epochs, lr=self.config.lr)
        self._stage(
            train,
            lambda train, resumed: train_network(run.model.train(), run.record, train, self.data, resumed=resumed),
        )
        return train.run_dir

    def pruning(self, origin: Run) -> Path:
        """Prune kernels, then crossbars, each in zerorize-recover training, and drop what was freed in between."""
        config, last = self.config, self.config.run
        whole = weights(origin.model)
        wanted: dict[Phase, bool] = {"kernels": config.kernel_groups, "crossbars": config.crossbar_blocks}
        phases: list[Phase] = [phase for phase, on in wanted.items() if on]
        for number, phase in enumerate(phases):
            epochs = config.float_epochs // len(phases) + (number < config.float_epochs % len(phases))
            run = load_run(last)
            share = config.kernel_share if number == 0 and len(phases) == 2 else 1.0
            left = (1 - config.sparsity) ** share * whole
            target = max(0.0, 1 - left / weights(run.model))
            train = self._training(phase, run, epochs=epochs, lr=config.lr, precision=self._exact)
            capped = phase == "kernels" or number > 0  # crossbars take over from kernels; nothing from crossbars
            stage = Zerorize(phase, run.model.train(), run.record, self.chip, config, self.data, target, capped)
            self._stage(train, lambda train, resumed, stage=stage: stage.run(train, resumed=resumed))
            last = train.run_dir
            if phase == "kernels":
                last = self._pack(last)
        self._write_pruning(origin, load_run(last))
        return last

    def _pack(self, last: Path) -> Path:
        """Drop the kernels that are zero."""
        folder = self.out / PACKED
        if not (folder / METRICS).is_file():
            run = load_run(last)
            found = repack(run.model, self._example, self.chip)
            record = run.record.model_copy(update={"rewrites": (*run.record.rewrites, *found.rewrites)})
            write_left(folder, found.report.left)
            write_run(folder, found.model, record, {"seed": self.config.seed}, self._score(found.model))
        return folder

    def _write_pruning(self, before: Run, after: Run) -> None:
        """Say what was removed, by weights and by crossbars."""
        crossbars = [crossbars_of(run.model, self.chip, self._example) for run in (before, after)]
        found: dict[str, Any] = {
            "sparsity": sparsity(before.model, after.model),
            "crossbars_before": crossbars[0],
            "crossbars_after": crossbars[1],
            "left": {stage: left for stage in (KERNELS, PACKED, CROSSBARS) if (left := self._left(stage))},
        }
        write_json(self.out / PRUNING, found)
        if not self.config.phases:
            return
        short = (
            " (all there is: every layer keeps a crossbar)" if found["sparsity"] < self.config.sparsity - 0.01 else ""
        )
        self.say(f"pruned: {found['sparsity']:.2%} of the weights{short}, {crossbars[0]} -> {crossbars[1]} crossbars")
        for stage, left in found["left"].items():
            for why, entries in groupby(sorted(left, key=itemgetter("why")), itemgetter("why")):
                self.say(f"{stage}: left as they are, {why}: {', '.join(each['name'] for each in entries)}")

    def _left(self, stage: str) -> list[dict[str, str]]:
        """What a stage could not prune, and why."""
        path = self.out / stage / LEFT
        return read_json(path)["left"] if path.is_file() else []

    @property
    def _example(self) -> Tensor:
        return next(self.data.batches("train", batch_size=2, limit=2))[0]

    def chip_training(self, last: Path) -> Path:
        """Train on the chip after the teacher."""
        epochs = self.config.settle_epochs + self.config.epochs_on_chip
        if epochs == 0:
            return last
        run = load_run(last)
        train = self._training(
            ON_CHIP,
            run,
            epochs=epochs,
            lr=self.config.chip_lr,
            optimizer="adam",
            precision=self._exact,
            weight_decay=0.0,
            schedule="onecycle",
        )
        stage: OnChipTraining | Zerorize
        if self.config.recipe == "crimp":
            stage = Zerorize("chip", run.model.train(), run.record, self.chip, self.config, self.data, 0.0)
        else:
            stage = OnChipTraining(run.model, run.record, self.chip, self.config, self.data)
        self._stage(train, lambda train, resumed: stage.run(train, resumed=resumed))
        return train.run_dir

    def keep(self, last: Path) -> None:
        """Make the recipe's directory a run directory of its last stage, and evaluate it."""
        copy(last, self.out, (WEIGHTS, RECORD, CONFIG))
        stages = {path.parent.name: read_json(path) for path in sorted(self.out.glob(f"*/{METRICS}"))}
        write_json(self.out / CHIP, self.chip.model_dump(mode="json"))
        if last == self.out / ON_CHIP:
            copy(last, self.out, (CHIP, RANGES))
        made = Made.of(self.out)
        assert made is not None
        write_json(self.out / METRICS, {**read_json(last / METRICS), "stages": stages})
        self.measure(AFTER, load_run(self.out), made.chip)

    def measure(self, name: str, run: Run, chip: Chip) -> None:
        """Evaluate a network and write the evaluation."""
        path = self.out / name
        if path.is_file():
            return
        ranges = self.out / RANGES if chip.adc.policy == "trained" else None
        mapping = self.config.mapping
        if name == BEFORE:
            chip, mapping, ranges = self._as_it_was(chip)
        settings = replace(self.settings, bias_correction=name == AFTER and self.config.corrects_biases)
        if name == BEFORE:
            settings = replace(settings, chips=min(settings.chips, self.config.chips_before or settings.chips))
        evaluation = evaluate(
            run.model, self.data, chip, settings, name=run.record.model, mapping=mapping or None, ranges=ranges
        )
        write_json(path, evaluation.to_json())
        a = evaluation.accuracy
        self.say(
            f"{name}: float {a.float:.2f} %, on the chip {a.mean:.2f} ± {a.std:.2f} %, "
            f"{evaluation.cost.energy_J * 1e6:.3g} uJ"
        )

    def _as_it_was(self, chip: Chip) -> tuple[Chip, dict[str, str], Path | None]:
        """The chip for the network to start from, and the mapping and trained ranges that it has for it."""
        made = Made.of(self.config.run)
        if made is None:
            return chip, {}, None
        adc = {"policy": made.chip.adc.policy, "granularity": made.chip.adc.granularity, "range": made.chip.adc.range}
        same = chip.model_copy(update={"adc": chip.adc.model_copy(update=adc)})
        return (same, made.mapping, made.ranges) if made.ranges and same == made.chip else (chip, made.mapping, None)

    @property
    def settings(self) -> Settings:
        """How thoroughly to evaluate."""
        config = self.config
        return Settings(
            chips=config.chips,
            images=config.images,
            calibration_images=config.calibration_images,
            cause_chips=1,
            progress=self.progress,
        )

    @property
    def _exact(self) -> Precision | None:
        """Precision of training through the chip: converted sums are integers, which bf16 cannot count."""
        config = self.config
        return config.precision if config.recipe == "crimp" and config.simulation == "linear" else "32-true"

    def _training(self, stage: str, run: Run, *, epochs: int, lr: float, **more: Any) -> TrainConfig:
        config = self.config
        values = {
            "model": run.record.model,
            "width": run.record.kwargs.get("width", 1.0),
            "data": run.record.data,
            "data_dir": config.data_dir,
            "image_size": run.record.image_size,
            "epochs": epochs,
            "epoch_images": config.epoch_images,
            "lr": lr,
            "batch_size": config.batch_size,
            "schedule": config.schedule,
            "momentum": config.momentum,
            "weight_decay": config.weight_decay,
            "teacher": config.teacher or config.run,
            "distill": config.distill,
            "temperature": config.temperature,
            "label_smoothing": 0.0,
            "seed": seeds.derive(config.seed, stage),
            "threads": config.threads,
            "precision": config.precision,
            "checkpoint_every": config.checkpoint_every,
            "out": self.out / stage,
        }
        return checked_training(**{**values, **more})

    def _stage(self, train: TrainConfig, run: Callable[[TrainConfig, bool], None]) -> None:
        if (train.run_dir / METRICS).is_file():
            return
        saved = prepare_training(train.run_dir, train, "resume")
        self.say(f"training, {train.run_dir.name}: {train.epochs} epochs")
        run(saved or train, saved is not None)

    def _score(self, network: nn.Module) -> dict[str, Any]:
        share = accuracy(network, self.data, batch_size=250) / 100
        return {"data": self.data.title, "test_accuracy": share, "test_images": len(self.data.test_labels)}
