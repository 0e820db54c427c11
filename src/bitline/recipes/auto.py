"""Search over structure, ADC and crossbar at once for the front of accuracy, energy and area.

Optuna proposes (T. Akiba et al., KDD 2019, doi:10.1145/3292500.3330701). A trial gives every layer that needs partial
sums a structure and the chip a crossbar height, an ADC, a number of columns that share one, an encoding and, if told
to, fewer bits. What it costs is exact; its accuracy is a proxy: some steps of distillation, then training images on
ideal cells, by the surrogate where the recipe says so and it holds. The front of the proxy is trained and evaluated in
full.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.chip.files import replace
from bitline.cost.model import Cost
from bitline.data import DataSet
from bitline.differences import differences
from bitline.errors import BitlineError, DataError
from bitline.evaluation.on_chip import OnChip
from bitline.evaluation.settings import Settings
from bitline.evaluation.task import CALIBRATION_BATCH
from bitline.files import JOURNAL, TRIALS, write_json
from bitline.models.files import Run
from bitline.network.trace import matmuls
from bitline.nn import calibrate, to_crossbar
from bitline.recipes.files import Say
from bitline.recipes.journal import open_journal
from bitline.recipes.records.auto import Auto, Variable
from bitline.recipes.records.mixed import CHOICES
from bitline.recipes.structure import restructure
from bitline.surrogate import answering, measure
from bitline.train.loader import TrainBatches
from bitline.train.module import distillation

KEYS: dict[Variable, tuple[str, ...]] = {
    "height": ("crossbar.rows", "crossbar.active_rows"),
    "adc_bits": ("adc.bits",),
    "columns_per_adc": ("adc.columns_per_adc",),
    "encoding": ("weights.encoding",),
    "input_bits": ("inputs.bits",),
    "weight_bits": ("weights.bits",),
}
"""what of the chip each choice sets"""
VALUES: dict[Variable, tuple[int | str, ...]] = {
    "height": (64, 128, 256, 512),
    "adc_bits": (3, 4, 5, 6),
    "columns_per_adc": (4, 8, 16),
    "encoding": ("offset", "pair"),
    "input_bits": (4, 5, 6, 7, 8),
    "weight_bits": (4, 5, 6, 7, 8),
}
"""of each choice, beside the chip's own"""
GUESSES: tuple[dict[Variable, int | str], ...] = (
    {"encoding": "pair", "height": 512},
    {"encoding": "pair", "height": 512, "columns_per_adc": 4, "input_bits": 6, "weight_bits": 7},
    {"encoding": "pair", "height": 512, "columns_per_adc": 4, "input_bits": 4, "weight_bits": 5},
)
"""where the search looks first, beside the chip as it is. In the difference of a pair what all sums have in common
cancels; the error of one conversion then grows with the square root of the height, there are as many fewer of them as
the height is greater, and errors add up in squares: that of a result stays what it was"""
PROXY_BATCH = 64
"""images in a batch of the distillation before a trial is measured"""
Answered = Literal["exact", "surrogate", "exact, since the surrogate does not hold"]
_TOLD: dict[Answered, str] = {
    "exact": "",
    "surrogate": ", by the surrogate",
    "exact, since the surrogate does not hold": ", exactly: the surrogate does not hold",
}
"""of what answered for a trial"""
_DIRECTIONS = {
    "accuracy": StudyDirection.MAXIMIZE,
    "energy": StudyDirection.MINIMIZE,
    "area": StudyDirection.MINIMIZE,
    "latency": StudyDirection.MINIMIZE,
}


@dataclass
class Search:
    """A search over one trained network.

    Args:
        config: of the recipe ``auto``.
        chip: that trials vary.
        data: that the network was trained on.
        out: run directory.
        origin: the network.
    """

    config: Auto
    chip: Chip
    data: DataSet
    out: Path
    origin: Run

    def __post_init__(self) -> None:
        count = min(self.config.structure_images, len(self.data.train_images))
        self.batches = [x for x, _ in self.data.batches("train", batch_size=CALIBRATION_BATCH, limit=count)]
        shapes = matmuls(self.origin.model, self.batches[0].shape[1:])
        height = self.chip.crossbar.active_rows
        self.layers = [m.name for m in shapes if m.kind == "conv2d" and m.groups == 1 and m.rows > height]
        self.path = self.out / JOURNAL

    def run(self, say: Say) -> list[FrozenTrial]:
        """Make the trials that are missing and return the front of the proxy, cheapest first.

        Raises:
            DataError: nothing to choose, a search of other choices in the run directory, or no trial that can be built.
        """
        if not (self._variables or self._layers):
            raise DataError("nothing to search: no layer needs partial sums, and vary names nothing else")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.out.mkdir(parents=True, exist_ok=True)
        objectives = self.config.objectives
        study = open_journal(self.path, [_DIRECTIONS[name] for name in objectives])
        self._check_choices(study)
        # one that failed, as those of earlier versions did that cannot be built, is asked for again
        earlier = [trial for trial in study.get_trials() if trial.state != TrialState.FAIL]
        choices = [trial.params or trial.system_attrs.get("fixed_params") for trial in earlier]
        for start in self._starts():
            if start not in choices:
                study.enqueue_trial(start)
                choices.append(start)
        while (done := len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED]))) < (
            self.config.trials
        ):
            # of the trial, so that a resumed search goes on as an undisturbed one
            study.sampler = optuna.samplers.TPESampler(seed=self.config.seed + done, multivariate=True)
            trial = study.ask()
            try:
                study.tell(trial, self._trial(trial))
            except BitlineError as error:
                trial.set_user_attr("summary", f"cannot be built: {error}")
                study.tell(trial, state=TrialState.PRUNED)
            say(f"trial {done + 1}/{self.config.trials}: {trial.user_attrs['summary']}")
            write_json(
                self.out / TRIALS,
                {"objectives": list(objectives), "trials": [_plain(t) for t in study.trials if t.state.is_finished()]},
            )
        if not study.best_trials:
            reasons = [t.user_attrs["summary"] for t in study.get_trials(states=[TrialState.PRUNED])]
            raise DataError(f"none of {len(reasons)} trials can be built; the last one {reasons[-1]}")
        best = {str(sorted(t.params.items())): t for t in reversed(study.best_trials)}  # one of each
        return sorted(best.values(), key=lambda t: float(t.user_attrs["energy_J"]))

    def _check_choices(self, study: optuna.Study) -> None:
        """Refuse to go on with a search whose trials chose among other values."""
        mine = {
            "layers": {name: list(CHOICES) for name in self._layers},
            "chip": {key: self._values(key) for key in self._variables},
        }
        if not study.get_trials(deepcopy=False):
            study.set_user_attr("choices", mine)
        elif other := differences(mine, study.user_attrs.get("choices", mine)):
            listed = ", ".join(map(str, other))
            raise DataError(
                f"the search in {self.out} chose among other values; start again with --overwrite: {listed}"
            )

    def _values(self, key: Variable) -> list[Any]:
        """What trials choose from."""
        return sorted({*VALUES[key], _own(self.chip, key)})

    def _starts(self) -> list[dict[str, Any]]:
        """The pure structures on the chip as it is, then guesses with and without groups: where the search begins."""
        own: dict[Variable, int | str] = {key: _own(self.chip, key) for key in self._variables}
        choices = CHOICES if self._layers else CHOICES[:1]
        starts = [(own, choice) for choice in choices]
        for guess in GUESSES:
            guesses: dict[Variable, int | str] = {key: value for key, value in guess.items() if key in own}
            starts += [(own | guesses, choice) for choice in ("dense", "group:1") if guesses and choice in choices]
        return [
            {str(key): value for key, value in chip.items()} | {f"layer {name}": choice for name in self._layers}
            for chip, choice in starts
        ]

    @property
    def _variables(self) -> list[Variable]:
        return [key for key in KEYS if key in self.config.vary]

    @property
    def _layers(self) -> list[str]:
        """Layers whose structure is searched."""
        return self.layers if "structure" in self.config.vary else []

    def _trial(self, trial: optuna.Trial) -> tuple[float, ...]:
        layers = {name: trial.suggest_categorical(f"layer {name}", CHOICES) for name in self._layers}
        overrides = self._overrides(trial)
        if (same := self._same(trial)) is not None:
            for key, value in same.user_attrs.items():
                trial.set_user_attr(key, value)
            return tuple(same.values)
        chip = replace(self.chip, *overrides)
        torch.manual_seed(self.config.seed)
        network = restructure(self.origin.model, self.batches, chip, self.config, layers).model
        self._distil(network)
        accuracy, cost, how = self._on_chip(network, chip)
        values = {"accuracy": accuracy, "energy": cost.energy_J, "area": cost.area_m2, "latency": cost.latency_s}
        trial.set_user_attr("layers", layers)
        trial.set_user_attr("overrides", list(overrides))
        trial.set_user_attr("energy_J", cost.energy_J)
        trial.set_user_attr("accuracy", accuracy)
        trial.set_user_attr("simulation", how)
        words = [
            f"{accuracy:.1f} % (proxy{_TOLD[how]}), {cost.energy_J * 1e6:.3g} uJ, {cost.area_m2 * 1e6:.3g} mm2",
            ", ".join(overrides) or "the chip as it is",
            ", ".join(dict.fromkeys(layers.values())),
        ]
        trial.set_user_attr("summary", "; ".join(filter(None, words)))
        return tuple(values[name] for name in self.config.objectives)

    def _same(self, trial: optuna.Trial) -> FrozenTrial | None:
        """An earlier trial of the same choices."""
        done = trial.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return next((t for t in done if t.params == trial.params), None)

    def _overrides(self, trial: optuna.Trial) -> tuple[str, ...]:
        """What a trial sets on the chip; what it leaves as it is keeps its details."""
        overrides: list[str] = []
        for key in self._variables:
            own = _own(self.chip, key)
            value = trial.suggest_categorical(key, self._values(key))
            overrides += [f"{name}={value}" for name in KEYS[key] if value != own]
        return tuple(overrides)

    def _distil(self, network: nn.Module) -> None:
        """A few steps after the network it came from; no labels."""
        config = self.config
        batches = TrainBatches(
            self.data,
            batch_size=PROXY_BATCH,
            seed=config.seed,
            flip=self.data.channels == 3,
            pad=self.data.image_size // 16,
        )
        optimizer = torch.optim.SGD(network.parameters(), lr=config.lr, momentum=0.9, nesterov=True)
        network.train()
        for step, (images, _) in zip(range(config.proxy_steps), batches, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * (1 - step / config.proxy_steps)
            with torch.no_grad():
                targets = self.origin.model(images)
            loss = distillation(network(images), targets, config.temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()

    @torch.no_grad()
    def _on_chip(self, network: nn.Module, chip: Chip) -> tuple[float, Cost, Answered]:
        """Accuracy on training images with ideal cells, percent, cost, and what answered."""
        model, report = to_crossbar(network, chip, example=self.batches[0][:2], mapping=self.config.mapping or None)
        calibrate(model, self.batches[:1], in_turn=True)
        images, labels = self._proxy_images()
        with self._simulated(model) as how:
            right = sum(
                int((model(x).argmax(1) == y).sum())
                for x, y in zip(images.split(CALIBRATION_BATCH), labels.split(CALIBRATION_BATCH), strict=True)
            )
        return 100 * right / len(labels), OnChip(model, report, network, self.data, Settings()).price(), how

    @contextmanager
    def _simulated(self, model: nn.Module) -> Generator[Answered]:
        """Let a surrogate answer, if the recipe says so and it holds; what is trained is measured exactly."""
        if self.config.simulation == "exact":
            yield "exact"
            return
        surrogate = measure(model, self.batches[:1])
        if not surrogate.holds:
            yield "exact, since the surrogate does not hold"
            return
        with answering(model, surrogate):
            yield "surrogate"

    def _proxy_images(self) -> tuple[Tensor, Tensor]:
        """The last training images."""
        count = self.config.proxy_images
        return self.data.normalize(self.data.train_images[-count:]), self.data.train_labels[-count:]


def _own(chip: Chip, key: Variable) -> Any:
    """The chip's own value of what a trial chooses."""
    value: Any = chip
    for name in KEYS[key][-1].split("."):
        value = getattr(value, name)
    return getattr(value, "kind", value)


def _plain(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "params": trial.params,
        "values": trial.values,
        "layers": trial.user_attrs.get("layers"),
        "overrides": trial.user_attrs.get("overrides"),
        "simulation": trial.user_attrs.get("simulation"),
    }
