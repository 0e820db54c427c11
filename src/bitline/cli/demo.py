"""``bitline demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitline.cli.output import Json

if TYPE_CHECKING:
    from torch import nn

    from bitline.chip import Chip
    from bitline.cli.demo_steps import Free, Step
    from bitline.data import DataSet
    from bitline.evaluation import Evaluation
    from bitline.recipes import Recipe
    from bitline.train import TrainConfig

CHIP = "example-128"
CROSSBARS = ("crossbar.rows=64", "crossbar.active_rows=64", "cell.read_noise={kind='none'}")
CONVENTIONAL = (*CROSSBARS, "adc.bits=4", "adc.granularity=layer")
PAIRS = "weights.encoding=pair"
FEWER_BITS = 2
FILES = ("demo.json", "conventional.html", "compare.html")
THREADS = 1
"""so that figures do not hang on how many there are"""
RECIPE: dict[str, Any] = {"recipe": "psum-aware", "epochs": 0, "chip_epochs": 3, "chip_lr": 3e-4}


def command(
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(help="Training epochs of the network.")] = 15,
    chips: Annotated[int, typer.Option(min=2, help="Programmed chips.")] = 10,
    seed: Annotated[int, typer.Option(help="Of weights and training.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again where a demonstration of other options lies.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Put a small network on an RRAM chip: what is lost, what better settings give for nothing, what training adds.

    [bold]Example[/]: bitline demo --out runs/demo
    """
    import contextlib
    import sys

    from bitline.cli.output import check_outputs, give
    from bitline.cli.stop import stoppable
    from bitline.extras import need
    from bitline.lock import locked
    from bitline.recipes import checked as checked_recipe
    from bitline.train import checked
    from bitline.train.hardware import set_threads

    need("bitline demo", "train")
    network: dict[str, Any] = {"model": "vgg8", "data": "digits", "width": 0.125, "epochs": epochs}
    training = checked(**network, seed=seed, threads=THREADS, out=out / "network")
    recipe = checked_recipe(
        **RECIPE,
        run=training.run_dir,
        chip=CHIP,
        overrides=(*CROSSBARS, f"adc.bits={FEWER_BITS}", PAIRS),
        chips=chips,
        chips_before=1,
        batch_size=32,
        test_images=100,
        seed=seed,
        threads=THREADS,
        out=out / RECIPE["recipe"],
    )
    set_threads(THREADS)
    check_outputs(json_file, *(out / name for name in FILES))
    if not overwrite:
        _check_own(out, training, recipe)
    with locked(out), stoppable("run the same command again"):
        with contextlib.redirect_stdout(sys.stderr if json_file == "-" else sys.stdout):
            content = _Demo(training, recipe, chips, out, quiet=json_file == "-").run()
        give(content, json_file, "numbers")


def _check_own(out: Path, training: TrainConfig, recipe: Recipe) -> None:
    """Refuse a folder that holds anything but what the same demonstration has left there.

    Raises:
        DataError: names what else it holds.
    """
    from bitline.errors import DataError
    from bitline.recipes.files import prepare as prepare_recipe
    from bitline.train.rundir import empty, prepare

    prepare(training.run_dir, training, "resume")
    prepare_recipe(recipe.run_dir, recipe, "resume")
    others = [out / name for name in FILES if (out / name).exists()]
    if others and empty(training.run_dir):
        raise DataError(f"{others[0]} is of no demonstration: choose another --out, or replace it with --overwrite")


class _Demo:
    """The demonstration, in a folder that no other process uses."""

    def __init__(self, training: TrainConfig, recipe: Recipe, chips: int, out: Path, *, quiet: bool) -> None:
        from rich.console import Console

        self.training, self.recipe, self.chips, self.out = training, recipe, chips, out
        self.console = Console(highlight=False, stderr=quiet)
        self.steps: list[Step] = []

    def run(self) -> dict[str, Any]:
        """Run all steps, write pages and numbers, and return the numbers."""
        import time

        from bitline import data as datasets
        from bitline.chip import load, replace
        from bitline.models.files import load_run
        from bitline.train.run import train

        began = time.perf_counter()
        self.console.rule("1  a network: VGG-8, an eighth as wide, on digits")
        run = train(self.training, if_exists="overwrite")
        network, digits = load_run(run).model, datasets.load("digits")

        self.console.rule("2  what is lost: 64 rows, 4-bit ADCs, a range a layer")
        chip = load(CHIP, CONVENTIONAL)
        self._say("cells vary by 5 %, one in 500 is stuck; read noise is switched off, to keep the demonstration short")
        conventional = self._add("one range a layer", network, digits, chip, None, shown=True)

        self.console.rule("3  what a better range gives for nothing")
        self._say("the same chip: nothing is trained, nothing costs more; chosen on training images and other chips")
        free = self._best(network, digits, chip)
        ranged = self._add("best ranges", network, digits, free.chip, free, best=conventional)

        self.console.rule("4  what pairs of cells give")
        self._say("a weight is the difference of two cells, so that sums of nothing are nothing; ranges chosen again")
        pairs = self._best(network, digits, replace(chip, PAIRS))
        self._add("pairs of cells", network, digits, pairs.chip, pairs, best=ranged)

        self.console.rule(f"5  where training is needed: {FEWER_BITS}-bit ADCs")
        self._say("fewer bits save energy; first the best that can be had without training, again chosen anew")
        few = self._best(network, digits, replace(chip, PAIRS, f"adc.bits={FEWER_BITS}"))
        best = max(self.steps, key=lambda step: step.evaluation.accuracy.on_chip)
        untrained = self._add(f"{FEWER_BITS} bits, best ranges", network, digits, few.chip, few, best=best)
        self._recipe(untrained)

        self.console.rule("what happened")
        self._tell()
        content = self._write(free)
        self.console.print(f"{time.perf_counter() - began:.0f} s")
        return content

    def _say(self, line: str) -> None:
        self.console.print(line, style="dim", markup=False)

    def _best(self, network: nn.Module, data: DataSet, chip: Chip) -> Free:
        from bitline.cli.demo_steps import best_free

        found = best_free(network, data, chip)
        self._say(f"best of {len(found.tried)} settings: {found.words}")
        return found

    def _add(
        self,
        name: str,
        network: nn.Module,
        data: DataSet,
        chip: Chip,
        free: Free | None,
        *,
        best: Step | None = None,
        shown: bool = False,
    ) -> Step:
        """Evaluate a step on the chips and test images that all steps have."""
        from bitline.evaluation import Settings, assess
        from bitline.report import terminal

        settings = Settings(
            chips=self.chips,
            cause_chips=self.chips if shown else 1,
            in_turn=free is not None and free.in_turn,
            bias_correction=free is not None and free.bias_correction,
        )
        evaluation = assess(network, data, chip, settings, name="vgg8 width 0.125")
        if shown:
            terminal.print_evaluation(evaluation, self.console)
        return self._keep(name, evaluation, best)

    def _keep(self, name: str, evaluation: Evaluation, best: Step | None) -> Step:
        from bitline.cli.demo_steps import Step
        from bitline.report import text

        step = Step(name, evaluation, best)
        self.steps.append(step)
        accuracy = text.spread(evaluation.accuracy.mean, evaluation.accuracy.std)
        gain = "" if best is None else f", {step.gain} points over: {best.name}"
        energy = text.quantity(evaluation.cost.energy_J, "J")
        self.console.print(f"[bold]{name}: {accuracy} %[/]{gain}; {energy} an image")
        return step

    def _recipe(self, untrained: Step) -> None:
        from bitline.evaluation import load
        from bitline.files import AFTER
        from bitline.recipes.run import optimize

        self._say(
            f"recipe {self.recipe.name()}: {RECIPE['chip_epochs']} epochs with the chip's partial sums in training"
        )
        folder = optimize(self.recipe, if_exists="overwrite", say=lambda _: None)
        name = f"{FEWER_BITS} bits, {self.recipe.name()} training"
        self._keep(name, load(folder / AFTER), untrained)

    def _tell(self) -> None:
        """Say what came of it, from the numbers alone."""
        from bitline.cli.demo_steps import outcome, table
        from bitline.report import terminal

        terminal.print_sheet(table(self.steps), self.console)
        for line in outcome(self.steps, self.recipe.name(), FEWER_BITS):
            self.console.print(line, markup=False)
        count = self.steps[0].evaluation.data.count
        self._say(
            f"{self.chips} programmed chips and {count} test images, the same in all steps; each network trained once"
        )

    def _write(self, free: Free) -> dict[str, Any]:
        from bitline.cli.output import write
        from bitline.report import compare, html
        from bitline.report.runs import Entry

        entries = [Entry(step.name, "untrained", step.evaluation) for step in self.steps[:-1]]
        entries.append(Entry(self.steps[-1].name, self.recipe.name(), self.steps[-1].evaluation))
        content = {
            "steps": [
                {
                    "name": step.name,
                    "over": None if step.best is None else step.best.name,
                    "gain": None if step.gain is None else {"points": step.gain.points, "error": step.gain.error},
                    "evaluation": step.evaluation.to_json(),
                }
                for step in self.steps
            ],
            "tried": [variant.model_dump(mode="json") for variant in free.tried],
            "comparison": compare.comparison(entries),
        }
        write(str(self.out / "demo.json"), content)
        pages = (
            html.write(self.steps[0].evaluation, self.out / "conventional.html", sweep=free.tried),
            compare.write(entries, self.out / "compare.html"),
        )
        self.console.print(f"pages: {pages[0]}, {pages[1]}\nnumbers: {self.out / 'demo.json'}")
        return content
