"""The stages that recipes are made of: each a run directory of its own below the recipe's, evaluated before and after.

A killed recipe goes on with the stage it was in.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from bitline import manifest, seeds
from bitline.chip.description import Chip
from bitline.data import DataSet
from bitline.evaluation import Settings, accuracy, assess
from bitline.evaluation.on_chip import check_priced
from bitline.files import (
    AFTER,
    BEFORE,
    CHIP,
    CONFIG,
    METRICS,
    ON_CHIP,
    RANGES,
    RECORD,
    UNTRAINED,
    WEIGHTS,
    read_json,
    write_json,
)
from bitline.models.files import Run, load_run
from bitline.network.copy import copied
from bitline.recipes.files import Deployment, Say, copy
from bitline.recipes.records.base import Recipe
from bitline.recipes.records.on_chip import OnChip
from bitline.train import TrainConfig
from bitline.train import checked as checked_training
from bitline.train.hardware import torch_device
from bitline.train.rundir import finished as finished_training
from bitline.train.rundir import prepare as prepare_training
from bitline.units import pretty

_SAID = {BEFORE: "before", UNTRAINED: "new structure, untrained", AFTER: "after"}


@dataclass(frozen=True)
class Stages:
    """What the stages of a recipe share.

    Args:
        config: of the recipe.
        chip: that the network is to run on.
        data: that it was trained on.
        out: run directory of the recipe.
        say: told what begins and what came of it.
        progress: show bars.
        teacher: whose scores are targets in every training.
        trust_code: run the Python file that a run directory names.
    """

    config: Recipe
    chip: Chip
    data: DataSet
    out: Path
    say: Say
    progress: bool
    teacher: Run
    trust_code: bool = False

    def load(self, folder: Path) -> Run:
        """Load the network of a run directory, here that of a stage."""
        return load_run(folder, trust_code=self.trust_code)

    def training(self, stage: str, run: Run, *, epochs: int, lr: float, **more: Any) -> TrainConfig:
        """Return how a stage trains a network."""
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
            "device": config.device,
            "threads": config.threads,
            "precision": config.precision,
            "checkpoint_every": config.checkpoint_every,
            "out": self.out / stage,
        }
        return checked_training(**{**values, **more})

    def training_on_chip(self, run: Run, config: OnChip, *, epochs: int) -> TrainConfig:
        """Return how weights are trained on the chip.

        Args:
            run: the network.
            config: of the recipe.
            epochs: of this stage.
        """
        return self.training(
            ON_CHIP, run, epochs=epochs, lr=config.chip_lr, optimizer="adam", weight_decay=0.0, schedule="onecycle"
        )

    def train(self, train: TrainConfig, run: Callable[[TrainConfig, bool], None], *, how: str = "") -> Path:
        """Run a stage unless it is finished, and return its run directory.

        Args:
            train: of the stage.
            run: trains; told how, and whether it goes on from a checkpoint.
            how: more to say of its epochs.
        """
        if not finished_training(train.run_dir):
            saved = prepare_training(train.run_dir, train, "resume")
            self.say(f"training, {train.run_dir.name}: {train.epochs} epochs{how}")
            run(saved or train, saved is not None)
        return train.run_dir

    def score(self, network: nn.Module) -> dict[str, Any]:
        """Return the metrics of a network that was not trained."""
        share = accuracy(network, self.data, batch_size=250) / 100
        return {"data": self.data.title, "test_accuracy": share, "test_images": len(self.data.test_labels)}

    def keep(self, last: Path) -> None:
        """Make the recipe's directory a run directory of its last stage, and evaluate it."""
        copy(last, self.out, (WEIGHTS, RECORD, CONFIG))
        stages = {path.parent.name: read_json(path) for path in sorted(self.out.glob(f"*/{METRICS}"))}
        write_json(self.out / CHIP, self.chip.model_dump(mode="json"))
        if last == self.out / ON_CHIP:
            copy(last, self.out, (CHIP, RANGES))
        deployment = Deployment.of(self.out)
        assert deployment is not None
        write_json(self.out / METRICS, {**read_json(last / METRICS), "stages": stages})
        self.measure(AFTER, self.load(last), deployment.chip)
        manifest.write(self.out)

    def measure(self, name: str, run: Run, chip: Chip) -> None:
        """Evaluate a network and write the evaluation."""
        path, config = self.out / name, self.config
        if path.is_file():
            return
        chip, mapping, ranges = self._deployment(chip, name)
        settings = replace(self.settings, bias_correction=name == AFTER and config.corrects_biases)
        if name == BEFORE:
            settings = replace(settings, chips=min(settings.chips, config.chips_before or settings.chips))
        device = torch_device(config.device)
        model = run.model if device.type == "cpu" else copied(run.model).to(device)
        evaluation = assess(
            model, self.data, chip, settings, name=run.record.label, mapping=mapping or None, ranges=ranges
        )
        evaluation.to_json(path)
        a = evaluation.accuracy
        self.say(
            f"{_SAID[name]}: float {a.float:.2f} %, on the chip {a.mean:.2f} ± {a.std:.2f} %, "
            f"{pretty(evaluation.cost.energy_J, 'J')} an image"
        )

    def check_priced(self, model: nn.Module, chip: Chip, name: str = AFTER) -> None:
        """Refuse a network that does not fit on the chip that an evaluation is to be on, or has no price there."""
        chip, mapping, _ = self._deployment(chip, name)
        check_priced(model, self.data, chip, self.settings, mapping or None)

    def _deployment(self, chip: Chip, name: str) -> tuple[Chip, dict[str, str], Path | None]:
        """What an evaluation puts its network on: chip, mapping, trained ranges."""
        if name == BEFORE:
            return self._of_origin(chip)
        return chip, self.config.mapping, self.out / RANGES if chip.adc.policy == "trained" else None

    def _of_origin(self, chip: Chip) -> tuple[Chip, dict[str, str], Path | None]:
        """The chip for the network to start from, and the mapping and trained ranges that it has for it."""
        origin = Deployment.of(self.config.run)
        if origin is None:
            return chip, {}, None
        own = origin.chip.adc
        adc = {"policy": own.policy, "granularity": own.granularity, "range": own.range}
        same = chip.model_copy(update={"adc": chip.adc.model_copy(update=adc)})
        known = origin.ranges and same == origin.chip
        return (same, origin.mapping, origin.ranges) if known else (chip, origin.mapping, None)

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
