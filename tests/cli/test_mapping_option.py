"""``--mapping`` of `bitline cost` and `bitline evaluate`."""

import json
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import save_model
from torch import nn
from typer.testing import CliRunner

from bitline import manifest
from bitline.chip import load
from bitline.cli import cost, evaluate
from bitline.errors import BitlineError
from bitline.models import build
from bitline.models.record import ModelRecord
from bitline.recipes.files import write_run

NET = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Flatten(),
            nn.Linear(512, 10),
        )
"""


def run(command, *arguments: object) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})
    if isinstance(result.exception, BitlineError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("net")
    (folder / "net.py").write_text(NET)
    scope: dict[str, type[nn.Module]] = {}
    exec(NET, scope)
    torch.manual_seed(0)
    save_model(scope["Net"](), str(folder / "net.safetensors"))
    return folder


def strategies(text: str) -> list[str]:
    return [layer["strategy"] for layer in json.loads(text)["layers"]]


def priced(files: Path, *more: object) -> str:
    shape = ("--in-channels", 1, "--image-size", 8)
    return run(cost.command, f"{files / 'net.py'}:Net", *shape, "--chip", "strip-22nm", *more)


def test_cost_prices_layers_as_they_are_mapped(files):
    assert strategies(priced(files, "--json", "-")) == ["dense", "dense", "dense"]
    assert strategies(priced(files, "--json", "-", "--mapping", "depthwise=strip", "--mapping", "0=digital")) == [
        "digital",
        "strip",
        "dense",
    ]
    shown = priced(files, "--mapping", "2=digital")
    assert "mapping" in shown
    assert "digital_mac" in shown


def test_auto_takes_what_costs_least(files):
    energies = {
        s: json.loads(priced(files, "--json", "-", "--mapping", f"2={s}"))["energy_J"]
        for s in ("dense", "strip", "digital")
    }
    assert json.loads(priced(files, "--json", "-", "--mapping", "auto"))["energy_J"] <= min(energies.values())


def test_a_mapping_that_there_is_not_is_refused(files):
    with pytest.raises(BitlineError, match="did you mean 'strip'"):
        priced(files, "--mapping", "depthwise=stripp")
    with pytest.raises(BitlineError, match="did you mean 'depthwise'"):
        priced(files, "--mapping", "depthwis=strip")


def test_evaluate_maps_a_trained_network(files):
    out = run(
        evaluate.command,
        "--model",
        f"{files / 'net.py'}:Net",
        "--weights",
        files / "net.safetensors",
        "--data",
        "digits",
        "--chips",
        1,
        "--images",
        16,
        "--calibration-images",
        32,
        "--chip",
        "strip-22nm",
        "--mapping",
        "depthwise=packed",
        "--json",
        "-",
    )
    assert strategies(out) == ["dense", "packed", "dense"]


def test_cost_takes_chip_and_mapping_of_a_run_that_a_recipe_wrote(tmp_path):
    record = ModelRecord(
        model="lenet5",
        kwargs={"in_channels": 1, "image_size": 8},
        data="digits",
        title="digits",
        classes=tuple("0123456789"),
        channels=1,
        image_size=8,
        mean=(0.3,),
        std=(0.3,),
    )
    write_run(tmp_path, build("lenet5", in_channels=1, image_size=8), record, {}, {})
    (tmp_path / "chip.json").write_text(load("strip-22nm").model_dump_json())
    manifest.write(tmp_path)
    first = json.loads(run(cost.command, tmp_path, "--json", "-"))["layers"][0]["name"]
    assert strategies(run(cost.command, tmp_path, "--json", "-"))[0] == "dense"
    settings = {"run": "any", "mapping": {first: "digital"}}
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": "psum-aware", "settings": settings}))
    manifest.write(tmp_path)

    assert strategies(run(cost.command, tmp_path, "--json", "-"))[0] == "digital"
    assert strategies(run(cost.command, tmp_path, "--json", "-", "--mapping", f"{first}=dense"))[0] == "dense"
