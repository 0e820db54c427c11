import json

import pytest
import typer
from typer.testing import CliRunner

from bitline.cli import cost
from bitline.cost.adc import MEANINGS
from bitline.errors import BitlineError

NETWORK = """
from torch import nn

Net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 9, 5))
Bare = nn.Sequential(nn.ReLU())
"""


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(cost.command)
    runner = CliRunner()

    def invoke(*arguments: str) -> str:
        result = runner.invoke(app, list(arguments), env={"COLUMNS": "120"})
        if isinstance(result.exception, BitlineError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


@pytest.fixture
def network(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK, "utf-8")
    return f"{tmp_path / 'net.py'}"


def test_vgg8_prints_the_agreed_json_without_training(run):
    plain = json.loads(run("vgg8", "--chip", "rram-22nm", "--json", "-"))

    assert plain["conversions"] == 157288960
    assert plain["macs"] == 615917568
    assert len(plain["layers"]) == 8
    assert {"energy_J", "latency_s", "area_m2", "tops_per_watt", "energy_parts", "area_parts"} <= set(plain)
    assert plain["energy_parts"]["pooling"] > 0


def test_tables_show_the_span_of_adc_models_beside_the_chosen_figure(run):
    text = run("vgg8", "--chip", "rram-22nm")

    line = next(line for line in text.splitlines() if line.strip().startswith("energy"))
    assert "with ADC model table" in line
    assert "(the cost table's own); among all" in line
    for model, meaning in MEANINGS.items():
        assert f"{model} ({meaning})" in text
    assert "157,288,960 conversions" in text
    assert "features.conv6.0" in text
    assert "energy [µJ]" in text
    assert "bit densities are assumed" in text


def test_a_network_of_ones_own_is_priced_and_written_to_a_file(run, network, tmp_path):
    file = tmp_path / "out" / "cost.json"

    run(f"{network}:Net", "--json", str(file), "--in-channels", "1", "--image-size", "8", "--chip", "example-128")

    plain = json.loads(file.read_text("utf-8"))
    assert [layer["rows"] for layer in plain["layers"]] == [9, 54]
    assert plain["chip"] == "example-128"


def test_any_key_of_the_chip_can_be_set(run, network):
    def energy(*more: str) -> float:
        arguments = (
            f"{network}:Net",
            "--json",
            "-",
            "--in-channels",
            "1",
            "--image-size",
            "8",
            "--chip",
            "example-128",
        )
        return json.loads(run(*arguments, *more))["energy_parts"]["adc"]

    assert energy("--set", "adc.bits=8") > energy()
    assert energy("--set", "adc.bits=8", "--set", "adc.model=zigzag") < energy("--set", "adc.bits=8")


def test_fixed_energy_drives_every_wordline(run, network):
    arguments = (f"{network}:Net", "--json", "-", "--in-channels", "1", "--image-size", "8", "--chip", "example-128")

    half, full = json.loads(run(*arguments)), json.loads(run(*arguments, "--fixed"))

    assert full["data"] == "fixed"
    assert full["energy_parts"]["wordlines"] == pytest.approx(2 * half["energy_parts"]["wordlines"])


def test_a_network_without_weights_and_a_stray_file_are_refused(run, network, tmp_path):
    with pytest.raises(BitlineError, match="has no Linear, Conv1d or Conv2d layer that a chip could hold"):
        run(f"{network}:Bare")
    with pytest.raises(AssertionError, match="Got unexpected extra argument"):
        run(f"{network}:Net", str(tmp_path / "cost.json"))
