"""``bitline export``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitline.cli.given import Given, takes
from bitline.cli.output import Json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from bitline.chip import Chip
    from bitline.data import DataSet
    from bitline.integer.network import IntegerNetwork

_SHAPES = ("layers", "workload")
EXAMPLES = """
[bold]Examples[/]

bitline export runs/vgg8-cifar10 --to onnx --chip crimp-32nm --set weights.scale=power_of_two --set inputs.scale=power_of_two --set weights.bias_bits=8

bitline export runs/crimp --to integer   [dim]# a recipe's chip, if its scales are powers of two[/]

bitline export runs/vgg8-cifar10 --to conductances --chip rram-22nm --seed 3

bitline export runs/vgg8-cifar10 --to layers   [dim]# for NeuroSim; workload: for AccelForge and Timeloop[/]
"""  # noqa: E501


@takes(Given)
def command(
    ctx: typer.Context,
    given: Given,
    to: Annotated[str, typer.Option(help="onnx, integer, conductances, layers or workload.")],
    run: Annotated[Path | None, typer.Argument(help="Run directory of bitline train, import or optimize.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write; default: export-... in the run.")] = None,
    chip: Annotated[
        str | None, typer.Option(help="A preset (see bitline chips) or a file; default: the run's, else rram-22nm.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for any chip key; repeatable.")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(help="LAYER or KIND=STRATEGY, for example depthwise=strip, repeatable; or auto[=OBJECTIVE]."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Conductances as programmed on this chip; default: their targets.")
    ] = None,
    check: Annotated[
        int | None,
        typer.Option(help="Test images on which two implementations are compared; 0: none; default: 1000, or all."),
    ] = None,
    accumulator_bits: Annotated[int, typer.Option(help="Widest sum of an integer network, bits.")] = 32,
    calibration_images: Annotated[int, typer.Option(help="Training images that set the ranges.")] = 256,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over the export of another network in --out.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Write a trained network for elsewhere: integer operators, what goes into the crossbars, or shapes of layers.

    Integers (onnx, integer) know layers on crossbars, ReLU, max and average pooling, addition, concatenation of
    channels, flatten, a permutation of channels and dropout. All others take every network. Shapes are a table as
    DNN+NeuroSim reads it (layers), or Einsums of AccelForge and problems of Timeloop (workload).
    """
    from bitline.errors import ExportError, nearest

    allowed = ("onnx", "integer", "conductances", *_SHAPES)
    if to not in allowed:
        raise ExportError(f"--to {to!r}{nearest(to, allowed)}; allowed: {', '.join(allowed)}")
    if seed is not None and to != "conductances":
        raise ExportError(f"--seed {seed} belongs to --to conductances; nothing else has cells")
    from bitline.cli.idle import refuse_idle
    from bitline.cli.imported import run_of
    from bitline.cli.output import check_outputs, give
    from bitline.cli.stop import stoppable
    from bitline.cli.subject import subject
    from bitline.cli.target import target
    from bitline.cost.choose_mapping import resolve
    from bitline.errors import DataError
    from bitline.evaluation import Settings
    from bitline.evaluation.on_chip import calibrated, converted
    from bitline.extras import need
    from bitline.files import MANIFEST, WEIGHTS
    from bitline.integer.trace import trace
    from bitline.lock import locked
    from bitline.models.source import sha256
    from bitline.network.trace import matmuls

    if to == "onnx":
        need("--to onnx", "export")
    run, given = run_of(run, given)
    on = target(run, chip, overrides, mapping)
    cells = "--to conductances writes cells, no sums" if to == "conductances" else None
    shapes = f"--to {to} writes shapes, no numbers" if to in _SHAPES else None
    trained = to == "conductances" and on.ranges is not None and on.chip.weights.bias_bits is None
    refuse_idle(
        ctx,
        {
            "--check": shapes or cells,
            "--accumulator-bits": shapes or cells,
            "--calibration-images": f"the ranges are those that were trained, {on.ranges}" if trained else shapes,
        },
    )
    folder = out or run / f"export-{to}"
    check_folder(folder, run, overwrite=overwrite)
    check_outputs(json_file, folder / MANIFEST)
    with locked(folder), stoppable(f"{folder} is not complete; run the same command again"):
        of = subject(run, given)
        network, dataset = of.model, of.data
        images = len(dataset.test_images)
        check = min(1000, images) if check is None else check
        if not 0 <= check <= images:
            raise DataError(f"--check is {check}; allowed: 0 to {images}, the test images of {dataset.title}")
        chosen = resolve(on.mapping, lambda: matmuls(network, of.image), on.chip)
        settings = Settings(calibration_images=calibration_images)
        on_chip = converted(network, dataset, on.chip, settings, chosen, on.ranges)
        manifest: dict[str, Any] = {"format": to, "run": str(run), "weights_sha256": sha256(run / WEIGHTS)}
        manifest["model"] = of.record.model_dump(mode="json")
        if to in _SHAPES:
            from bitline.cli.export_shapes import write

            manifest |= write(on_chip, folder, to)
            _keep(folder, manifest)
            if not give(manifest, json_file, "manifest"):
                typer.echo(f"{manifest['file']}: {folder}")
            return
        if to != "conductances":
            trace(on_chip.model, next(dataset.batches("train", batch_size=1))[0].to(next(network.parameters()).device))
            _check_powers(on.chip)
        calibrated(on_chip, on.ranges)
        if to == "conductances":
            from bitline.integer import conductances

            manifest |= conductances.write(on_chip.model, folder, seed)
            _keep(folder, manifest)
            if not give(manifest, json_file, "manifest"):
                typer.echo(f"{len(manifest['crossbars'])} blocks of cells: {folder}")
            return
        on_chip.model.cpu()  # integers are computed there
        example = next(dataset.batches("train", batch_size=min(64, calibration_images)))[0]
        manifest |= _integers(on_chip.model, example, dataset, folder, to, check, accumulator_bits)
        manifest["chip"] = on.chip.model_dump(mode="json")
        _keep(folder, manifest)
    printed = give(manifest, json_file, "manifest")
    typer.echo(f"{manifest['file']}: {folder}", err=printed)
    comparison = manifest["check"]
    if comparison is not None:
        if comparison["different"]:
            raise ExportError(
                f"{comparison['different']} of {comparison['images']} images differ; see {folder / 'manifest.json'}"
            )
        typer.echo(
            f"{comparison['images']} images: equal bit for bit, {comparison['accuracy']:.2f} % right", err=printed
        )


def check_folder(folder: Path, run: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds anything but an export of this network.

    Args:
        folder: to write.
        run: that is exported.
        overwrite: take the place of another network's export.

    Raises:
        ExportError: a run directory, files of something else, or another network's export.
        DataError: a damaged manifest.
    """
    from bitline.errors import ExportError
    from bitline.files import MANIFEST, RECORD, WEIGHTS, read_json
    from bitline.models.source import sha256

    if (folder / RECORD).is_file():
        raise ExportError(f"{folder} is a run directory; choose another --out")
    if not folder.is_dir() or run.resolve() in folder.resolve().parents:
        return
    if not (folder / MANIFEST).is_file():
        others = sorted(each.name for each in folder.iterdir() if not _is_written(each))
        if others:
            raise ExportError(f"{folder} is no export (it holds {others[0]}); choose another --out")
        return
    there = read_json(folder / MANIFEST)
    if "format" not in there or "run" not in there:
        raise ExportError(f"{folder} is no export ({MANIFEST} is another one); choose another --out")
    known = there.get("weights_sha256")
    same = known == sha256(run / WEIGHTS) if known else Path(str(there["run"])).resolve() == run.resolve()
    if not (same or overwrite):
        raise ExportError(
            f"{folder} holds an export of another network, {there['run']}; add --overwrite, or choose another --out"
        )


def _is_written(file: Path) -> bool:
    """Tell whether a file may be of an export that was stopped."""
    known = r".+\.onnx|.+\.safetensors|layers\.csv|workload\.yaml|timeloop_\d+\.yaml|\..*"
    return re.fullmatch(known, file.name) is not None


def _files(folder: Path) -> set[Path]:
    """What an export wrote in a folder, beside its manifest."""
    from bitline.files import MANIFEST, read_json

    if not (folder / MANIFEST).is_file():
        return set()
    there = read_json(folder / MANIFEST)
    parts = (*there.get("crossbars", ()), *there.get("layers", ()))
    names = [there.get("file"), *(part.get("file") for part in parts)]
    files = {folder / name for name in names if isinstance(name, str) and Path(name).name == name}
    return {file for file in files if _is_written(file)}


def _keep(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, and remove what an earlier export left that is not in it."""
    from bitline.files import MANIFEST, write_json

    before = _files(folder)
    write_json(folder / MANIFEST, manifest)
    for file in before - _files(folder):
        file.unlink(missing_ok=True)


def _check_powers(chip: Chip) -> None:
    """Raise ChipError where a chip's numbers are not those of an integer network."""
    from bitline.errors import ChipError

    missing = [f"--set {key}.scale=power_of_two" for key in ("weights", "inputs") if _scale(chip, key) == "any"]
    if chip.weights.bias_bits is None:
        missing.append("--set weights.bias_bits=8")
    if missing:
        raise ChipError(f"chip {chip.name} scales by real numbers, an integer network cannot; add {' '.join(missing)}")


def _scale(chip: Chip, key: str) -> str:
    return chip.weights.scale if key == "weights" else chip.inputs.scale


def _integers(
    model: nn.Module, example: Tensor, data: DataSet, folder: Path, to: str, check: int, accumulator_bits: int
) -> dict[str, Any]:
    """Write an integer network, and compare it with another implementation."""
    import hashlib
    import json
    from dataclasses import asdict

    from bitline.errors import ExportError
    from bitline.integer import onnx
    from bitline.integer.network import integer_network
    from bitline.integer.stored import store
    from bitline.nn import placement

    stored = store(model, example)
    network = integer_network(model, example, accumulator_bits=accumulator_bits)
    name = "network.onnx" if to == "onnx" else "network.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot write {folder}: {error}") from error
    if to == "onnx":
        onnx.export(network, folder / name)
    else:
        network.save(folder / name, {"chip": json.dumps(placement(model).chip.model_dump(mode="json"))})
    return {
        "file": name,
        "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        "input": {**asdict(network.source_format), "shape": network.shape},
        "exponent": network.exponent,
        "sum_bits": dict(network.sum_bits),
        "stored": [asdict(value) for value in stored],
        "check": _compared(model, network, data, folder / name, to, check) if check else None,
    }


def _compared(
    model: nn.Module, network: IntegerNetwork, data: DataSet, file: Path, to: str, images: int
) -> dict[str, Any]:
    """Compare the interpreter with onnxruntime or, where integers are exported, with the simulated chip."""
    import torch

    from bitline.chip.variants import ideal
    from bitline.integer import onnx
    from bitline.integer.network import IntegerNetwork
    from bitline.nn import on, placement

    if to == "integer":
        network = IntegerNetwork.load(file)
    parts, labels = zip(*_first(data, images), strict=True)
    q = network.quantize(torch.cat(parts))
    scores = network(q)
    if to == "onnx":
        same = onnx.run(file, q) == scores.integers
    else:
        with torch.no_grad(), on(model, ideal(placement(model).chip)):
            same = torch.cat([model.eval()(part) for part in parts]).double() == scores.real
    right = int((scores.integers.argmax(1) == torch.cat(labels)).sum())
    different = int((~same.flatten(1).all(1)).sum())
    other = "onnxruntime" if to == "onnx" else "simulated chip, ideal cells"
    return {"images": len(q), "against": other, "different": different, "accuracy": 100 * right / len(q)}


def _first(data: DataSet, images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of the first test images and their labels."""
    for batch, labels in data.batches("test", batch_size=64):
        yield batch[:images], labels[:images]
        images -= len(batch)
        if images <= 0:
            return


command.__doc__ = f"{command.__doc__}\n{EXAMPLES}"
