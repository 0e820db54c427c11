"""`bitline doctor` as a user starts it."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_model
from typer.testing import CliRunner

from bitline.chip import load
from bitline.cli import app, main
from bitline.errors import BitlineError, ChipError, DataError, MappingError
from bitline.models import build
from bitline.mvm import machine, native

run = CliRunner(env={"COLUMNS": "200"}).invoke
SMALL = ("--in-channels", "1", "--image-size", "8", "--width", "0.5")
LENET = ("--explain", "lenet5", "example-128", *SMALL)
NAMES = ["features.0", "features.3", "classifier.0", "classifier.2", "classifier.4"]
needs_kernels = pytest.mark.skipif(not native.paths(), reason="the native kernels are not built here")


@pytest.fixture(autouse=True)
def no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.VARIABLE, raising=False)


def printed(*arguments: str) -> str:
    result = run(app, ["doctor", *arguments])
    assert result.exit_code == 0, result.exception
    return result.stdout


def told(*arguments: str) -> dict:
    return json.loads(printed(*arguments, "--json", "-"))


def refused(*arguments: str) -> BaseException | None:
    return run(app, ["doctor", *arguments]).exception


def test_json_holds_the_machine_and_every_path_with_the_reason_why_it_does_not_run():
    found = told()
    assert set(found) == {
        "bitline",
        "processor",
        "features",
        "threads",
        "torch",
        "kernels",
        "paths",
        "choice",
        "gpu",
        "triton",
    }
    assert [path["name"] for path in found["paths"] if path["why_not"] is None] == [*native.paths(), native.TENSOR]
    assert all(path["why_not"] is None or len(path["why_not"]) > 5 for path in found["paths"])
    assert found["choice"]["path"] == native.chosen_path()
    assert found["choice"]["asked"] is None
    assert found["kernels"]["built"] == bool(native.paths())
    assert found["features"] is None or set(found["features"]) == set(machine.FEATURES)


def test_the_table_says_the_same_and_json_can_go_to_a_file_beside_it(tmp_path: Path):
    file = tmp_path / "doctor.json"
    text = printed("--json", str(file))
    found = json.loads(file.read_text())
    assert f"doctor: {file}" in text.replace("\n", "")
    for value in (found["processor"], found["torch"], found["choice"]["why"], *(p["name"] for p in found["paths"])):
        assert value in text
    assert "explain" not in found


@needs_kernels
def test_every_layer_of_lenet_takes_the_fastest_path():
    found = told(*LENET, "--set", "adc.bits=5")["explain"]
    assert [layer["name"] for layer in found["layers"]] == NAMES
    assert {layer["path"] for layer in found["layers"]} == {native.paths()[0]}
    assert all(layer["sums"] and layer["why"] is None for layer in found["layers"])
    assert found["summary"] == f"5 of 5 layers on path {native.paths()[0]}"
    assert found["chip"] == load("example-128", ["adc.bits=5"]).model_dump(mode="json")
    assert "2 random images of 1 x 8 x 8" in found["ranges"]
    assert found["digital"] == []


@needs_kernels
def test_the_environment_forces_a_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(native.VARIABLE, "portable")
    text = printed(*LENET)
    assert "chosen: the environment says BITLINE_PATH=portable" in text
    assert "5 of 5 layers on path portable" in text


def test_forced_tensors_are_told_layer_by_layer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(native.VARIABLE, native.TENSOR)
    found = told(*LENET)
    assert found["choice"] == {"path": "tensor", "asked": "tensor", "why": "the environment says BITLINE_PATH=tensor"}
    layers = found["explain"]["layers"]
    assert {layer["path"] for layer in layers} == {"tensor"}
    assert {layer["why"] for layer in layers} == {found["choice"]["why"]}
    assert found["explain"]["summary"] == "5 of 5 layers fall back to tensors"


def test_a_wish_that_does_not_run_here_is_a_finding_of_doctor_and_an_error_of_explain(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(native.VARIABLE, "avx3")
    asked = run(app, ["doctor", "--json", "-"])
    found = json.loads(asked.stdout)
    assert found["choice"]["path"] is None
    assert found["choice"]["asked"] == "avx3"
    assert "none chosen" in run(app, ["doctor"]).stdout
    assert "BITLINE_PATH = 'avx3' does not run here" in str(asked.exception)
    assert isinstance(refused(*LENET), MappingError)


@needs_kernels
def test_inputs_of_nine_bits_fall_back_and_say_so():
    text = printed(*LENET, "--set", "inputs.bits=9")
    assert text.count("inputs of 9 bits; native kernels take up to 8") == 5
    assert "5 of 5 layers fall back to tensors" in text


def test_what_can_neither_round_nor_clip_is_one_integer_product():
    exact = ("adc.policy=lossless", "cell.programming={kind='ideal'}")
    found = told("--explain", "lenet5", "rram-22nm", *SMALL, "--set", exact[0], "--set", exact[1])["explain"]
    assert {layer["sums"] for layer in found["layers"]} == {"one integer product"}
    assert found["summary"] == "5 of 5 layers as one integer product"
    assert found["ranges"].startswith("input ranges come from")


def test_ranges_that_follow_the_batch_are_told():
    found = told(*LENET, "--set", "adc.policy=batch_minmax")["explain"]
    assert "ADC ranges follow each batch" in found["ranges"]


def test_without_native_kernels_the_remedy_is_printed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "_native", None)
    monkeypatch.setattr(native, "_missing", "")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    text = printed(*LENET)
    assert "the native kernels are not built: there is no C++ compiler" in text
    assert "install g++ or clang++, then install bitline again with pip install --force-reinstall" in text
    assert "5 of 5 layers fall back to tensors" in text
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    found = told()
    assert "/usr/bin/c++ is here now: install bitline again" in found["kernels"]["remedy"]
    assert {path["why_not"] for path in found["paths"][:-1]} == {"the native kernels are not built"}
    assert found["choice"]["path"] == "tensor"


def test_kernels_that_do_not_load_give_the_error_of_the_loader(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "_native", None)
    monkeypatch.setattr(native, "_missing", "undefined symbol")
    monkeypatch.setattr(machine, "find_spec", lambda _: object())
    kernels = told()["kernels"]
    assert kernels["why_not"] == "undefined symbol"
    assert "built for another Python" in kernels["remedy"]


def test_a_module_that_gives_no_reasons_is_asked_for_its_paths_only(monkeypatch: pytest.MonkeyPatch):
    class Old:
        @staticmethod
        def paths() -> list[str]:
            return ["portable"]

    monkeypatch.setattr(native, "_native", Old)
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(machine, "cpu_flags", lambda: {"ssse3", "avx2"})
    why = {path["name"]: path["why_not"] for path in told()["paths"]}
    assert why["portable"] is None
    assert why["avx2"] == "this processor has no fma"
    monkeypatch.setattr(machine, "cpu_flags", set)
    found = told()
    assert found["features"] is None
    assert {path["name"]: path["why_not"] for path in found["paths"]}["avx2"] == "this build has no such path"
    assert "this system does not say" in printed()


def test_a_run_directory_says_its_own_image_and_weights(tmp_path: Path):
    folder = tmp_path / "lenet"
    folder.mkdir()
    kwargs = {"num_classes": 4, "in_channels": 1, "image_size": 8, "width": 0.5}
    save_model(build("lenet5", **kwargs), str(folder / "model.safetensors"))
    record = {
        "model": "lenet5",
        "kwargs": kwargs,
        "data": "digits",
        "title": "digits",
        "classes": list("0123"),
        "channels": 1,
        "image_size": 8,
        "mean": [0.5],
        "std": [0.5],
    }
    (folder / "model.json").write_text(json.dumps(record))
    for name in ("config.json", "metrics.json"):
        (folder / name).write_text("{}")
    found = told("--explain", str(folder), "example-128")["explain"]
    assert [layer["name"] for layer in found["layers"]] == NAMES
    assert "1 x 8 x 8" in found["ranges"]
    error = str(refused("--explain", str(folder), "example-128", *SMALL))
    assert "is a run directory, which has its own --in-channels, --image-size: leave it out" in error


def test_a_network_of_the_users_own_is_explained_with_what_stays_digital(tmp_path: Path):
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 2))\n"
    )
    arguments = ("--explain", f"{file}:net", "example-128", "--in-channels", "1", "--image-size", "8")
    text = printed(*arguments)
    assert "1: GroupNorm stays digital: normalizes by the input at hand" in text
    assert "2 of 2 layers" in text
    assert "takes no --width" in str(refused(*arguments, "--width", "2"))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("--explain", "lenet6", "example-128"), DataError, "did you mean 'lenet5'?"),
        (("--explain", "runs/nothing", "example-128"), DataError, "no such run directory: runs/nothing"),
        (("--explain", "lenet5", "example-129"), ChipError, "did you mean 'example-128'?"),
        ((*LENET, "--set", "adc.bitz=3"), ChipError, "did you mean 'bits'?"),
        (("--set", "adc.bits=3"), DataError, "options of a network and a chip need --explain MODEL CHIP"),
        (("--width", "0.5"), DataError, "need --explain MODEL CHIP"),
    ],
)
def test_what_is_unknown_or_out_of_place_is_refused(arguments: tuple[str, ...], kind: type[BitlineError], message: str):
    error = refused(*arguments)
    assert isinstance(error, kind)
    assert message in str(error)


def test_an_error_is_one_line_and_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["bitline", "doctor", "--explain", "lenet5", "example-129"])
    with pytest.raises(SystemExit) as status:
        main()
    assert status.value.code == 1
    assert capsys.readouterr().err.startswith("error: no chip 'example-129'")
