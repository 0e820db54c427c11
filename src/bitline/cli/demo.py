"""``bitline demo``."""

from pathlib import Path
from typing import Annotated, Any

import typer

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
    import time

    from rich.console import Console

    from bitline import data as datasets
    from bitline.chip import files as chips_files
    from bitline.evaluate import Settings, Variant, cheapest, evaluate, put_on_chip
    from bitline.evaluate import sweep as measure
    from bitline.files import write_json
    from bitline.models.files import load_run
    from bitline.recipes import checked as checked_recipe
    from bitline.recipes.run import optimize
    from bitline.report import compare, html, terminal
    from bitline.report.runs import read
    from bitline.train import checked
    from bitline.train.run import train

    console, began = Console(highlight=False), time.perf_counter()
    console.rule("1  a network: VGG-8, an eighth as wide, on handwritten digits")
    training = checked(model="vgg8", data="digits", width=0.125, epochs=epochs, seed=seed, out=out / "network")
    run = train(training, if_exists="overwrite")
    network, digits = load_run(run).model, datasets.load("digits")

    console.rule("2  on a conventional chip: 64 rows, 4-bit ADCs with one range a layer, 5 % variation")
    chip = chips_files.load(CHIP, CONVENTIONAL)
    before = evaluate(network, digits, chip, Settings(chips=chips), name="vgg8 width 0.125")
    terminal.print_evaluation(before, console)
    write_json(out / "conventional.json", before.to_json())

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
    folders = [out / "conventional.json"]
    for recipe, settings in RECIPES.items():
        values: dict[str, Any] = {"epochs": 6, "chip_epochs": 3, "granularity": "slice_digit", **settings}
        if recipe == "psum-aware":
            values["epochs"] = 0
        config = checked_recipe(
            run=run,
            recipe=recipe,
            chip=CHIP,
            overrides=CONVENTIONAL,
            chips=chips,
            batch_size=32,
            test_images=100,
            seed=seed,
            out=out / recipe,
            **values,
        )
        folders.append(optimize(config, if_exists="overwrite", say=lambda line: console.print(line, style="dim")))

    console.rule("what happened")
    compared = compare.comparison(entries := read(folders))
    terminal.print_sheet(compare.summary(compared), console)
    for line in compare.lead(compared):
        console.print(line, markup=False)
    sweep = [variant.to_json() for variant in variants]
    write_json(out / "demo.json", {"conventional": before.to_json(), "sweep": sweep, "comparison": compared})
    pages = html.write(before, out / "conventional.html", sweep=variants), compare.write(entries, out / "compare.html")
    console.print(f"pages: {pages[0]}, {pages[1]}\nnumbers: {out / 'demo.json'}\n{time.perf_counter() - began:.0f} s")
