"""``bitline demo``."""

from pathlib import Path
from typing import Annotated, Any

import typer

CONVENTIONAL = ("adc.bits=4", "adc.granularity=layer", "cell.programming.sigma=0.1")
ROWS = (128, 64)
ADC_BITS = (4, 5, 6)


def command(
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(help="Training epochs.")] = 30,
    chips: Annotated[int, typer.Option(help="Programmed chips.")] = 10,
    seed: Annotated[int, typer.Option(help="Of weights and chips.")] = 0,
) -> None:
    """Train LeNet-5 on handwritten digits, put it on an RRAM chip, and find a better chip.

    [bold]Example[/]: bitline demo --out runs/demo
    """
    import time

    from rich.console import Console

    from bitline import data as datasets
    from bitline.chip import files as chips_files
    from bitline.cli.output import write_json
    from bitline.evaluate import Settings, cheapest, evaluate, put_on_chip
    from bitline.evaluate import sweep as measure
    from bitline.models.files import load_run
    from bitline.report import html, tables
    from bitline.train import checked
    from bitline.train.run import train

    console, began = Console(), time.perf_counter()
    console.rule("1  a network: LeNet-5 on handwritten digits")
    run = train(
        checked(model="lenet5", data="digits", epochs=epochs, seed=seed, out=out / "network"), if_exists="overwrite"
    )
    network, digits = load_run(run).model, datasets.load("digits")

    console.rule("2  on a conventional chip: coarse ADCs with one range a layer, 10 % variation")
    conventional = chips_files.load("example-128", CONVENTIONAL)
    settings = Settings(chips=chips, seed=seed, calibration_images=256)
    before = evaluate(network, digits, conventional, settings, name="lenet5")
    tables.print_evaluation(before, console)

    console.rule("3  crossbar height and ADC, chosen together")
    on_chip = put_on_chip(network, digits, conventional, Settings(chips=min(3, chips), seed=seed))
    overrides = [
        [f"crossbar.rows={rows}", f"crossbar.active_rows={rows}", f"adc.bits={bits}", f"adc.granularity={granularity}"]
        for granularity in ("layer", "slice_digit") for rows in ROWS for bits in ADC_BITS
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    with console.status("") as status:

        def done(row: dict[str, Any]) -> None:
            status.update(f"{row['label']}: {row['mean']:.1f} %")

        rows = measure(on_chip, conventional, overrides, done=done)
    best = cheapest(rows, within=1.0)
    tables.print_sweep(rows, console)
    console.print(f"least energy within one point of the best: [bold]{best['label']}[/]")

    console.rule("4  on the better chip")
    after = evaluate(network, digits, chips_files.replace(conventional, *best["overrides"]), settings, name="lenet5")
    tables.print_evaluation(after, console)
    write_json({"conventional": before, "sweep": rows, "better": after}, out / "demo.json")
    page = html.write(before, out / "conventional.html", sweep=rows, title="LeNet-5 on a conventional chip")
    better = html.write(after, out / "better.html", sweep=rows, title="LeNet-5 on a better chip")
    lost, kept = before["accuracy"], after["accuracy"]
    console.rule("what happened")
    console.print(
        f"float {lost['float']:.1f} %, conventional chip {lost['mean']:.1f} ± {lost['std']:.1f} %, "
        f"better chip {kept['mean']:.1f} ± {kept['std']:.1f} %, "
        f"energy x {after['cost']['energy_J'] / before['cost']['energy_J']:.2f}"
    )
    console.print(f"pages: {page}, {better}\nnumbers: {out / 'demo.json'}\n{time.perf_counter() - began:.0f} s")
