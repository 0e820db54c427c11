"""CRIMP from its first phase to its last: prune kernels, drop them, prune crossbars, adapt to the chip."""

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from torch import Tensor

from bitline.compress.prune.repack import repack
from bitline.compress.prune.sparsity import crossbars as crossbars_of
from bitline.compress.prune.sparsity import sparsity, weights
from bitline.files import CROSSBARS, KERNELS, LEFT, PACKED, PRUNING, read_json, write_json
from bitline.models.files import Run
from bitline.recipes.crimp import Phase, Zerorize, write_left
from bitline.recipes.files import write_run
from bitline.recipes.records.crimp import Crimp
from bitline.recipes.stages import Stages
from bitline.train.rundir import finished


@dataclass(frozen=True)
class Pruning:
    """The phases of the recipe.

    Args:
        stages: that they are made of; their chip is the one that the recipe makes of the chip it is given.
        config: of the recipe.
    """

    stages: Stages
    config: Crimp

    def run(self, origin: Run) -> Path:
        """Prune a network, adapt it to the chip, and return the run directory of the last stage."""
        return self._adapt(self._prune(origin))

    def _prune(self, origin: Run) -> Path:
        """Prune kernels, then crossbars, each in zerorize-recover training, and drop what was freed in between."""
        config, stages, last = self.config, self.stages, self.config.run
        whole = weights(origin.model)
        switches: dict[Phase, bool] = {"kernels": config.kernel_groups, "crossbars": config.crossbar_blocks}
        phases: list[Phase] = [phase for phase, on in switches.items() if on]
        for number, phase in enumerate(phases):
            epochs = config.epochs // len(phases) + (number < config.epochs % len(phases))
            run = stages.load(last)
            share = config.kernel_share if number == 0 and len(phases) == 2 else 1.0
            left = (1 - config.sparsity) ** share * whole
            target = max(0.0, 1 - left / weights(run.model))
            train = stages.training(phase, run, epochs=epochs, lr=config.lr)
            capped = phase == "kernels" or number > 0  # crossbars take over from kernels; nothing from crossbars
            stage = self._stage(phase, run, target, capped=capped)
            last = stages.train(train, lambda train, resumed, stage=stage: stage.run(train, resumed=resumed))
            if phase == "kernels":
                last = self._pack(last)
        self._write_pruning(origin, stages.load(last))
        return last

    def _pack(self, last: Path) -> Path:
        """Drop the kernels that are zero."""
        stages, folder = self.stages, self.stages.out / PACKED
        if not finished(folder):
            run = stages.load(last)
            small = repack(run.model, self._example, stages.chip)
            record = run.record.model_copy(update={"rewrites": (*run.record.rewrites, *small.rewrites)})
            write_left(folder, small.report.unchanged)
            write_run(folder, small.model, record, {"seed": self.config.seed}, stages.score(small.model))
        return folder

    def _adapt(self, last: Path) -> Path:
        """Settle in floating point, then train on the chip, after the teacher."""
        config, stages = self.config, self.stages
        epochs = config.settle_epochs + config.epochs_on_chip
        if epochs == 0:
            return last
        run = stages.load(last)
        train = stages.training_on_chip(run, config, epochs=epochs)
        stage = self._stage("chip", run, 0.0)
        return stages.train(train, lambda train, resumed: stage.run(train, resumed=resumed))

    def _stage(self, phase: Phase, run: Run, target: float, *, capped: bool = False) -> Zerorize:
        """Return a phase of the training of a network."""
        config, stages = self.config, self.stages
        network = run.model.train()
        return Zerorize(
            phase, network, run.record, stages.chip, config, stages.data, target, capped, teacher=stages.teacher
        )

    def _write_pruning(self, before: Run, after: Run) -> None:
        """Say what was removed, by weights and by crossbars."""
        config, stages = self.config, self.stages
        crossbars = [crossbars_of(run.model, stages.chip, self._example) for run in (before, after)]
        share = sparsity(before.model, after.model)
        left_of = {stage: left for stage in (KERNELS, PACKED, CROSSBARS) if (left := self._left(stage))}
        content = {
            "sparsity": share,
            "crossbars_before": crossbars[0],
            "crossbars_after": crossbars[1],
            "left": left_of,
        }
        write_json(stages.out / PRUNING, content)
        if not config.phases:
            return
        short = " (all there is: every layer keeps a crossbar)" if share < config.sparsity - 0.01 else ""
        stages.say(f"pruned: {share:.2%} of the weights{short}, {crossbars[0]} -> {crossbars[1]} crossbars")
        for stage, left in left_of.items():
            for why, entries in groupby(sorted(left, key=itemgetter("why")), itemgetter("why")):
                stages.say(f"{stage}: left as they are, {why}: {', '.join(each['name'] for each in entries)}")

    def _left(self, stage: str) -> list[dict[str, str]]:
        """What a stage could not prune, and why."""
        path = self.stages.out / stage / LEFT
        return read_json(path)["left"] if path.is_file() else []

    @property
    def _example(self) -> Tensor:
        return next(self.stages.data.batches("train", batch_size=2, limit=2))[0]
