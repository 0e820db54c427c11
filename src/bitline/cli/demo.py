"""``bitline demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitline.recipes import Recipe
    from bitline.train import TrainConfig

CHIP = "example-128"
CONVENTIONAL = (
    "crossbar.rows=64",
    "crossbar.active_rows=64",
    "adc.bits=4",
    "adc.granularity=layer",
    "cell.read_noise={kind='none'}",
)
ADC_BITS = (4, 5, 6)
RECIPES: dict[str, dict[str, Any]] = {"group": {}, "separable": {"mapping": {"depthwise": "digital"}}, "psum-aware": {}}


def command(
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(help="Training epochs of the network.")] = 15,
    chips: Annotated[int, typer.Option(help="Programmed chips.")] = 10,
    seed: Annotated[int, typer.Option(help="Of weights and training.")] = 0,
) -> None:
    """Train a small VGG-8 on handwritten digits, put it on an RRAM chip, and win back what partial sums cost.

    [bold]Example[/]: bitline demo --out runs/demo
    """
    from bitline.cli.output import check_outputs
    from bitline.cli.stop import stoppable
    from bitline.lock import locked
    from bitline.recipes import checked as checked_recipe
    from bitline.train import checked

    training = checked(model="vgg8", data="digits", width=0.125, epochs=epochs, seed=seed, out=out / "network")
    shared: dict[str, Any] = {
        "run": training.run_dir,
        "chip": CHIP,
        "overrides": CONVENTIONAL,
        "chips": chips,
        "batch_size": 32,
        "test_images": 100,
        "seed": seed,
        "chip_epochs": 3,
        "granularity": "slice_digit",
    }
    recipes: list[Recipe] = []
    for recipe, settings in RECIPES.items():
        floating = 0 if recipe == "psum-aware" else 6
        recipes.append(checked_recipe(**shared, recipe=recipe, epochs=floating, out=out / recipe, **settings))
    check_outputs(out / "demo.json", out / "conventional.html", out / "compare.html")
    with locked(out), stoppable("run the same command again"):
        _demo(training, recipes, chips, out)


def _demo(training: TrainConfig, recipes: Sequence[Recipe], chips: int, out: Path) -> None:
    """Run the demonstration in a folder that no other process uses."""
    import time

    from rich.console import Console

    from bitline import data as datasets
    from bitline.chip import files as chips_files
    from bitline.evaluation import Settings, Variant, cheapest, evaluate, put_on_chip
    from bitline.evaluation import sweep as measure
    from bitline.files import write_json
    from bitline.models.files import load_run
    from bitline.recipes.run import optimize
    from bitline.report import compare, html, terminal
    from bitline.report.runs import read
    from bitline.train.run import train

    console, began = Console(highlight=False), time.perf_counter()
    console.rule("1  a network: VGG-8, an eighth as wide, on handwritten digits")
    run = train(training, if_exists="overwrite")
    network, digits = load_run(run).model, datasets.load("digits")

    console.rule("2  on a conventional chip: 64 rows, 4-bit ADCs with one range a layer, 5 % variation")
    chip = chips_files.load(CHIP, CONVENTIONAL)
    before = evaluate(network, digits, chip, Settings(chips=chips), name="vgg8 width 0.125")
    write_json(out / "conventional.json", before.to_json())
    terminal.print_evaluation(before, console)

    console.rule("3  other ADCs: more bits, or ranges of their own for each slice and digit")
    on_chip = put_on_chip(network, digits, chip, Settings(chips=min(3, chips)))
    overrides = [
        [f"adc.bits={bits}", f"adc.granularity={granularity}"]
        for granularity in ("layer", "slice_digit")
        for bits in ADC_BITS
    ]
    with console.status("") as status:

        def done(variant: Variant) -> None:
            status.update(f"{variant.label}: {variant.mean:.1f} %")

        variants = measure(on_chip, chip, overrides, done=done)
    terminal.print_sweep(variants, console)
    console.print(f"least energy within one point of the best: [bold]{cheapest(variants, within=1.0).label}[/]")

    console.rule("4  the same chip, another network: partial sums avoided, or known in training")

    def say(line: str) -> None:
        console.print(line, style="dim")

    folders = [out / "conventional.json", *(optimize(each, if_exists="overwrite", say=say) for each in recipes)]

    console.rule("what happened")
    compared = compare.comparison(entries := read(folders))
    terminal.print_sheet(compare.summary(compared), console)
    for line in compare.lead(compared):
        console.print(line, markup=False)
    sweep = [variant.to_json() for variant in variants]
    write_json(out / "demo.json", {"conventional": before.to_json(), "sweep": sweep, "comparison": compared})
    pages = html.write(before, out / "conventional.html", sweep=variants), compare.write(entries, out / "compare.html")
    console.print(f"pages: {pages[0]}, {pages[1]}\nnumbers: {out / 'demo.json'}\n{time.perf_counter() - began:.0f} s")
