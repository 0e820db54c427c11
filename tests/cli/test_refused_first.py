"""What cannot be done is refused before it is begun, and what would do nothing is refused rather than ignored."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from bitline import data as datasets
from bitline.cli.stop import Terminated, terminable
from bitline.errors import DataError
from bitline.evaluate import run as evaluate_run
from bitline.files import CONFIG, RECORD, WEIGHTS, probe, read_json, write_json
from bitline.lock import locked
from bitline.models.files import ModelRecord, load_run
from bitline.recipes import stages
from bitline.train.module import Classifier
from bitline.train.run import train
from bitline.train.teacher import teacher_of
from run_samples import bitline, copied, settings, trained

NET = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
"""
SMALL = ("--chips", 1, "--images", 32, "--threads", 1)


@pytest.fixture(scope="module")
def run(once) -> Path:
    return once("refused", trained)


@pytest.fixture(scope="module")
def from_file(once) -> Path:
    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "net.py").write_text(NET)
        trained(folder / "run", model=f"{folder / 'net.py'}:Net")

    return once("from-file", make) / "run"


@pytest.fixture
def nothing_measured(monkeypatch):
    """Fail where a network is trained, calibrated or measured."""

    def measured(*_, **__):
        raise AssertionError("something was measured before the refusal")

    monkeypatch.setattr(evaluate_run, "calibrate", measured)
    monkeypatch.setattr(evaluate_run, "accuracy", measured)
    monkeypatch.setattr(stages, "evaluate", measured)
    monkeypatch.setattr(Classifier, "training_step", measured)


# -- refused first


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "adc.bits=13"), "13"),
        (("--set", "cost_table=nowhere"), "nowhere"),
        (("--images", 0), "images is 0"),
        (("--images", 356), "images is 356; allowed: 1 to 355"),
        (("--calibration-images", 10**7), "calibration_images is 10000000; allowed: 1 to 1442"),
    ],
)
@pytest.mark.parametrize("command", [("evaluate",), ("optimize", "psum-aware")])
def test_what_has_no_price_or_no_images_is_refused_before_anything_is_measured(
    tmp_path, run, nothing_measured, command, options, said
):
    out = () if command == ("evaluate",) else ("--out", tmp_path / "out")

    _, error = bitline(*command, run, *options, *out, status=1)

    assert said in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["folder", "file/below.json", "n" * 300 + ".json"])
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "RUN", "--json", "PLACE"),
        ("evaluate", "RUN", "--html", "PLACE"),
        ("optimize", "psum-aware", "RUN", "--out", "OUT", "--json", "PLACE"),
        ("cost", "RUN", "--json", "PLACE"),
        ("export", "RUN", "--to", "conductances", "--out", "PLACE/deeper"),
        ("study", "partial-sums", "RUN", "--out", "PLACE/deeper"),
        ("train", "lenet5", "--data", "digits", "--out", "PLACE/deeper"),
        ("demo", "--out", "PLACE/deeper"),
        ("compare", "RUN", "RUN", "--html", "PLACE"),
        ("report", "RUN", "--html", "PLACE"),
    ],
    ids=lambda command: "-".join(each.strip("-") for each in command if each.islower()),
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path, run, nothing_measured, command, place
):
    (tmp_path / "folder" / "deeper").mkdir(parents=True)
    (tmp_path / "folder" / "deeper").rmdir()
    (tmp_path / "file").write_text("mine")
    if place == "folder" and any("deeper" in each for each in command):
        (tmp_path / "folder" / "deeper").write_text("mine")
    words = {
        "RUN": run,
        "PLACE": tmp_path / place,
        "OUT": tmp_path / "out",
        "PLACE/deeper": tmp_path / place / "deeper",
    }

    _, error = bitline(*(words.get(word, word) for word in command), status=1)

    assert len(error.splitlines()) == 1
    assert error.startswith("error: ")
    assert (tmp_path / "file").read_text() == "mine"
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("*.tmp"))
    assert not (tmp_path / "out").exists()


def test_a_part_of_a_run_is_never_overwritten_by_a_result(tmp_path, run, nothing_measured):
    whole = copied(run, tmp_path / "run")

    _, error = bitline("evaluate", whole, "--json", whole / "model.json", status=1)

    assert "it is part of the run" in error
    assert load_run(whole)


def test_an_evaluation_written_into_its_run_is_part_of_the_run(tmp_path, run):
    whole = copied(run, tmp_path / "run")
    bitline("evaluate", whole, *SMALL, "--json", whole / "evaluation.json")
    bitline("report", whole)

    (whole / "evaluation.json").write_text((whole / "evaluation.json").read_text().replace("float", "flaot", 1))

    _, error = bitline("report", whole, status=1)
    assert "evaluation.json was changed" in error


def test_tables_are_shown_even_where_a_page_cannot_be_written_in_the_end(tmp_path, run, monkeypatch):
    def full(*_, **__):
        from bitline.errors import ExportError

        raise ExportError("cannot write page: No space left on device")

    monkeypatch.setattr("bitline.report.html.write", full)

    shown, error = bitline("evaluate", run, *SMALL, "--json", tmp_path / "a.json", "--html", tmp_path / "a", status=1)

    assert "No space left" in error
    assert (tmp_path / "a.json").is_file()
    assert "accuracy" in shown


def test_probing_a_place_leaves_nothing_there(tmp_path):
    probe(tmp_path / "a" / "b" / "c.json")
    probe(Path("/dev/null"))

    assert not list(tmp_path.iterdir())


# -- options without effect


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate", "RUN", "--weights", "/nonexistent.pt"), "leave it out"),
        (("evaluate", "RUN", "--width", 0.5), "leave it out"),
        (
            ("evaluate", "RUN", "--chips", 1, "--cause-chips", 50),
            "--cause-chips 50 does nothing here: there are only 1",
        ),
        (("evaluate", "RUN", "--chip", "rram-22nm", "--set", "adc.policy=full", "--in-turn"), "--in-turn does nothing"),
        (("evaluate", "--model", "NET", "--width", 2, "--weights", "w", "--data", "digits"), "takes no --width"),
        (("cost", "NET", "--classes", 5), "takes no --width and no --classes"),
        (("train", "lenet5", "--distill", 0.5), "--distill 0.5 does nothing here: there is no --teacher"),
        (("train", "lenet5", "--temperature", 2), "--temperature 2.0 does nothing here: there is no --teacher"),
        (("train", "lenet5", "--optimizer", "adam", "--momentum", 0.5), "--momentum 0.5 does nothing here"),
        (
            ("train", "lenet5", "--data", "digits", "--cutout", 1000, "--out", "OUT"),
            "cutout is 1000; allowed: 0 to 7 px",
        ),
        (("export", "RUN", "--to", "conductances", "--check", 5), "--check 5 does nothing here"),
        (
            ("export", "RUN", "--to", "conductances", "--accumulator-bits", 20),
            "--accumulator-bits 20 does nothing here",
        ),
        (("optimize", "psum-aware", "RUN", "--lr", 0.1), "lr is 0.1, which does nothing here: epochs is 0"),
        (("optimize", "psum-aware", "RUN", "--chips", 2, "--chips-before", 3), "there are only 2 chips"),
        (("optimize", "psum-aware", "RUN", "--chip-epochs", 0, "--chip-lr", 1), "nothing is trained on the chip"),
        (("optimize", "quantization-aware", "RUN", "--range-lr", 1), "aware is 'quantization', which has no ADC"),
        (("optimize", "auto", "RUN", "--trials", 2, "--front", 3), "there are only 2 trials"),
        (("optimize", "crimp", "RUN", "--no-kernel-groups", "--kernel-share", 0.3), "there is only one phase"),
        (("study", "partial-sums", "RUN", "--out", "OUT", "--layer-images", 1000), "layer_images is 1000"),
    ],
)
def test_an_option_that_would_do_nothing_is_an_error(tmp_path, run, from_file, nothing_measured, arguments, said):
    words = {"RUN": run, "OUT": tmp_path / "out", "NET": f"{from_file.parent / 'net.py'}:Net"}

    _, error = bitline(*(words.get(str(each), each) for each in arguments), status=1)

    assert said in error
    assert not (tmp_path / "out").exists()


# -- one process at a time


def test_a_run_directory_in_use_is_refused_with_the_process_that_holds_it(tmp_path, run):
    held = copied(run, tmp_path / "run")
    words = ("--data", "digits", "--epochs", 1, "--threads", 1)

    with locked(held):
        for command in (
            ("train", "lenet5", *words, "--out", held, "--overwrite"),
            ("optimize", "psum-aware", run, "--out", held),
            ("study", "partial-sums", run, "--out", held),
            ("demo", "--out", held),
            ("evaluate", held, *SMALL, "--json", held / "evaluation.json"),
            ("export", run, "--to", "conductances", "--out", held),
            ("accept", held),
        ):
            _, error = bitline(*command, status=1)
            if command[0] != "export":  # refuses a run directory as such
                assert f"{held} is in use by process {os.getpid()} on " in error
    assert load_run(held)
    assert not (held / ".lock").exists()


def test_of_two_trainings_started_together_one_ends_and_one_is_refused(tmp_path):
    command = [
        sys.executable,
        "-m",
        "bitline",
        "train",
        "lenet5",
        "--data",
        "digits",
        "--epochs",
        "2",
        "--threads",
        "1",
    ]
    both = [
        subprocess.Popen(
            [*command, "--seed", str(seed), "--out", str(tmp_path / "run")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (0, 5)
    ]
    said = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said

    first = next(seed for seed, process in zip((0, 5), both, strict=True) if process.returncode == 0)
    assert read_json(tmp_path / "run" / CONFIG)["seed"] == first
    assert load_run(tmp_path / "run")
    assert "Traceback" not in "".join(said)


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import os, pathlib, sys\n"
        "from bitline.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False)
    assert killed.returncode == -signal.SIGKILL

    with locked(tmp_path / "run"):
        pass


# -- stopped, and full


@pytest.mark.slow
def test_sigterm_ends_a_training_with_143_and_a_line_and_it_can_be_resumed(tmp_path, run):
    told = settings(tmp_path / "run").model_dump(exclude={"model", "crop", "flip", "distill", "temperature"})
    options = [f"--{key.replace('_', '-')}={value}" for key, value in told.items() if value is not None]
    process = subprocess.Popen(
        [sys.executable, "-m", "bitline", "train", "lenet5", *options], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / CONFIG).exists():
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate()

    assert process.returncode == 143
    assert "stopped; the same command with --resume goes on from the last checkpoint" in said
    assert "Traceback" not in said
    train(settings(tmp_path / "run"), if_exists="resume")
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (run / WEIGHTS).read_bytes()


def test_sigterm_that_comes_while_an_object_ends_is_not_lost():
    class Ends:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)

    def work() -> None:
        Ends()
        time.sleep(10)

    began = time.monotonic()
    with pytest.raises(Terminated), terminable():
        work()
    assert time.monotonic() - began < 5


@pytest.mark.slow
@pytest.mark.parametrize("most", [2_000, 60_000, 100_000])
def test_a_disk_without_space_is_one_line_and_the_run_goes_on_where_there_is_some(tmp_path, run, most):
    told = settings(tmp_path / "run").model_dump(exclude={"model", "crop", "flip", "distill", "temperature"})
    options = [f"--{key.replace('_', '-')}={value}" for key, value in told.items() if value is not None]
    full = subprocess.run(
        [sys.executable, "-m", "bitline", "train", "lenet5", *options],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )

    assert full.returncode == 1, full.stderr
    assert "Traceback" not in full.stderr
    assert len([line for line in full.stderr.splitlines() if line.startswith("error: ")]) == 1
    train(settings(tmp_path / "run"), if_exists="resume")
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (run / WEIGHTS).read_bytes()


# -- a network's own statistics, and its own code


def darker(data: datasets.DataSet) -> datasets.DataSet:
    """The same test images, beside training images of other statistics."""
    return data.normalized_by((0.1,), (0.2,))


def test_other_data_are_normalized_as_the_network_was_trained(run, monkeypatch):
    original, load = datasets.load("digits"), datasets.load
    own = ModelRecord.read(run / RECORD).fed(darker(original))
    assert (own.mean, own.std) == (original.mean, original.std)

    expected = json.loads(bitline("evaluate", run, *SMALL, "--json", "-")[0])
    monkeypatch.setattr(datasets, "load", lambda *a, **k: darker(load(*a, **k)))
    found = json.loads(bitline("evaluate", run, *SMALL, "--json", "-")[0])

    assert found["accuracy"] == expected["accuracy"]


def test_a_teacher_sees_images_as_it_was_trained_whatever_the_student_sees(run):
    data = datasets.load("digits")
    teacher = load_run(run)
    expected = teacher.model(data.normalize(data.test_images[:8]))

    found = teacher_of(teacher, darker(data))(darker(data).normalize(data.test_images[:8]))

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    same = teacher_of(teacher, data)(data.normalize(data.test_images[:8]))
    assert torch.equal(same, expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"std": [0]},
        {"std": [float("nan")]},
        {"std": []},
        {"mean": []},
        {"mean": [0.1, 0.2]},
        {"classes": ["a", "b", "c"]},
        {"mean": [40]},
    ],
)
def test_statistics_that_no_network_can_have_are_refused(tmp_path, run, wrong):
    edited = copied(run, tmp_path / "run")
    content = json.loads((edited / RECORD).read_text()) | wrong
    (edited / RECORD).write_text(json.dumps(content))
    (edited / "run.json").unlink()
    config = read_json(edited / CONFIG)
    del config["manifest"]
    write_json(edited / CONFIG, config)

    with pytest.raises(DataError, match=r"model\.json"):
        load_run(edited)


def test_data_of_other_classes_are_refused(run):
    record = ModelRecord.read(run / RECORD).model_copy(update={"classes": ("a", "b")})

    with pytest.raises(DataError, match="has 10 classes; the network tells 2 apart"):
        record.fed(datasets.load("digits"))


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "RUN", *SMALL),
        ("cost", "RUN"),
        ("export", "RUN", "--to", "conductances", "--out", "OUT"),
        ("optimize", "conventional", "RUN", *SMALL, "--out", "OUT"),
        ("train", "lenet5", "--data", "digits", "--epochs", 1, "--threads", 1, "--teacher", "RUN", "--out", "OUT"),
        ("study", "partial-sums", "RUN", *SMALL, "--rows", "64", "--bits", 4, "--tile-rows", "none", "--out", "OUT"),
    ],
    ids=lambda command: command[0],
)
def test_a_network_from_a_file_is_used_everywhere_with_trust_code_and_nowhere_without(tmp_path, from_file, command):
    words = {"RUN": from_file, "OUT": tmp_path / "out"}
    arguments = [words.get(str(each), each) for each in command]

    _, error = bitline(*arguments, status=1)
    assert "loading it runs that file: add --trust-code" in error

    bitline(*arguments, "--trust-code")


def test_exports_stay_in_their_folder_whatever_a_layer_is_called(tmp_path):
    from bitline.chip import load
    from bitline.integer import conductances
    from bitline.nn import to_crossbar

    network = nn.Sequential()
    for name in (str(tmp_path / "ESCAPED").replace(".", "-"), "../up".replace(".", ""), "a/b"):
        network.add_module(name, nn.Linear(8, 8))
    model, _ = to_crossbar(network.eval(), load("example-128"), example=torch.rand(2, 8))

    conductances.write(model, tmp_path / "out" / "deep")

    assert {path.parent for path in tmp_path.rglob("*.safetensors")} == {tmp_path / "out" / "deep"}
    assert len(list((tmp_path / "out" / "deep").iterdir())) == 3


def test_a_recipe_file_without_settings_and_unknown_keys_of_a_configuration_are_one_line(tmp_path, run):
    for name, content, said in (
        ("recipe.json", {}, "recipe.json"),
        ("recipe.json", {"recipe": "psum-aware", "settings": []}, "settings"),
        (
            "recipe.json",
            {"recipe": "psum-aware", "version": 2, "settings": {"cls": 1, "run": "a"}},
            "unknown key 'cls'",
        ),
        (CONFIG, {"cls": 1, "model": "lenet5"}, "unknown key 'cls'"),
        (CONFIG, {"model": "lenet5", "epohcs": 2}, "did you mean 'epochs'"),
    ):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        (out / name).write_text(json.dumps(content))
        command = ("train", "lenet5", "--data", "digits") if name == CONFIG else ("optimize", "psum-aware", run)
        _, error = bitline(*command, "--out", out, "--resume", status=1)
        assert said in error
        assert str(out / name) in error
        assert len(error.splitlines()) == 1
