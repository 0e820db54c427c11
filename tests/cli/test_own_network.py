"""A network of a user's own, trained outside, through every command: in an empty folder, from its file alone."""

import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from bitline import manifest
from bitline.data import load
from bitline.errors import DataError
from bitline.files import AFTER, METRICS, RECORD, RUN_MANIFEST, read_json, write_json
from bitline.models.files import load_run
from bitline.models.spec import make
from run_samples import bitline

SOURCE = Path(__file__).parents[1] / "models" / "own_networks.py"
SMALL = ("--chips", 1, "--images", 64, "--calibration-images", 64, "--chip", "example-128")


@pytest.fixture(scope="module")
def weights(once) -> Path:
    """Weights of a small network, trained in plain PyTorch on images in [0, 1]."""

    def fit(folder: Path) -> None:
        folder.mkdir()
        torch.manual_seed(0)
        net, data = make(f"{SOURCE}:Net", width=8), load("digits")
        images, labels = data.train_images.float() / 255, data.train_labels
        steps = 5 * (len(labels) // 64)
        optimizer = torch.optim.AdamW(net.parameters(), 4e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
        for _ in range(5):
            order = torch.randperm(len(labels))[: len(labels) // 64 * 64]
            for part in order.split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(images[part]), labels[part]).backward()
                optimizer.step()
                schedule.step()
        save_model(net.eval(), str(folder / "weights.safetensors"))

    return once("own-weights", fit) / "weights.safetensors"


@pytest.fixture
def own(weights, tmp_path, monkeypatch) -> list[object]:
    """What names the network, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    shutil.copy(SOURCE, tmp_path / "nets" / "parts.py")
    (tmp_path / "nets" / "mine.py").write_text(
        "from parts import Net\n\n\ndef small(width=16):\n    return Net(width=width)\n"
    )
    spec = ["--model", "nets/mine.py:small", "--model-args", "width=8", "--weights", weights, "--data", "digits"]
    return [*spec, "--no-normalize"]


@pytest.fixture
def run(own, tmp_path) -> Path:
    """Its run, with nothing else left of it."""
    bitline("import", *own, "--out", "runs/mine")
    shutil.rmtree(tmp_path / "nets")
    return Path("runs/mine")


def test_an_import_has_the_code_the_weights_how_images_are_fed_and_the_accuracy(own):
    said, _ = bitline("import", *own)
    folder = Path("runs/small-digits")
    assert "of 355 test images of digits 8x8 in floating point" in said
    assert "copied into it: code/mine.py, code/parts.py (--trust-code runs them)" in said
    record, metrics = read_json(folder / RECORD), read_json(folder / METRICS)
    assert (record["model"], record["kwargs"]) == ("code/mine.py:small", {"width": 8})
    assert (record["mean"], record["std"]) == ([0.0], [1.0])

    loaded, data = load_run(folder, trust_code=True), load("digits")
    with torch.no_grad():
        right = loaded.model(data.test_images.float() / 255).argmax(1) == data.test_labels
    assert metrics["test_accuracy"] == pytest.approx(float(right.float().mean()), abs=1e-6)
    assert metrics["test_accuracy"] > 0.9
    assert metrics["test_images"] == 355


def test_every_command_takes_the_run_wherever_it_is(run, tmp_path, monkeypatch):
    moved = tmp_path / "away" / "theirs"
    moved.parent.mkdir()
    shutil.move(run, moved)
    monkeypatch.chdir(moved.parent)

    for command in (("evaluate",), ("cost",), ("doctor", "--explain")):
        arguments = (*command, "theirs", "example-128") if "doctor" in command else (*command, "theirs")
        _, error = bitline(*arguments, status=1)
        assert "theirs has a network from code/mine.py:small; loading it runs that file: add --trust-code" in error
    shown, _ = bitline("evaluate", "theirs", "--trust-code", *SMALL, "--json", "e.json")
    assert read_json(Path("e.json"))["model"] == "mine.py:small"
    assert "called as a function" in " ".join(shown.split())
    assert "are of digital operations: their multipliers" in " ".join(shown.split())
    priced, _ = bitline("cost", "theirs", "--trust-code", "--chip", "example-128")
    explained, _ = bitline("doctor", "--explain", "theirs", "example-128", "--trust-code")
    for text in (priced, explained):
        assert "scaled_dot_product_attention stays digital" in text
        assert "called as a function, outside of a layer" in text
    assert "are of digital operations: their multipliers" in priced
    bitline("export", "theirs", "--to", "conductances", "--trust-code", "--chip", "example-128", "--out", "cells")
    bitline("optimize", "conventional", "theirs", "--trust-code", *SMALL)
    assert read_json(Path("runs/conventional-theirs") / AFTER)["model"] == "mine.py:small"
    study = ("study", "partial-sums", "theirs", "--trust-code", "--out", "study", "--images", 32, "--layer-images", 2)
    bitline(*study, "--chips", 1, "--rows", 32, "--bits", 4, "--ranges", "layer", "--tile-rows", "none")


@pytest.mark.slow
def test_recipes_change_it_and_what_they_leave_needs_no_other_folder(run):
    small = ("--trust-code", *SMALL, "--batch-size", 64, "--epoch-images", 64)
    rows = ("--set", "crossbar.rows=9", "--set", "crossbar.active_rows=9")
    bitline("optimize", "psum-aware", run, *small, "--chip-epochs", 1, "--out", "psum")
    bitline("optimize", "quantization-aware", run, *small, "--chip-epochs", 1, "--out", "quantization")
    bitline("optimize", "group", run, *small, *rows, "--epochs", 1, "--aware", "none", "--mix", "--out", "group")
    bitline("optimize", "separable", run, *small, *rows, "--epochs", 1, "--aware", "none", "--out", "separable")
    short = ("--epochs", 2, "--chip-epochs", 0, "--settle-epochs", 0)
    pruned = (*short, "--sparsity", 0.2, "--no-integer", "--simulation", "direct")
    bitline("optimize", "crimp", run, *small, *pruned, "--out", "crimp")
    shutil.rmtree(run)
    for name in ("psum", "quantization", "group", "separable", "crimp"):
        load_run(name, trust_code=True)
    assert read_json(Path("group") / RECORD)["rewrites"]
    bitline("evaluate", "group", "--trust-code", "--chips", 1, "--images", 32, "--calibration-images", 32)


def test_a_recipe_of_integers_names_what_has_no_integer_form_before_any_work(run):
    _, error = bitline("optimize", "crimp", run, "--trust-code", "--chip", "crimp-32nm", "--out", "crimp", status=1)
    assert "(Hardswish) has no integer form; allowed: layers on crossbars, ReLU" in error
    assert "; --no-integer does without" in error
    assert not Path("crimp").exists()


def test_a_kernel_of_more_rows_than_a_group_may_have_is_named_before_any_work(run):
    rows = ("--set", "crossbar.rows=8", "--set", "crossbar.active_rows=8")
    _, error = bitline("optimize", "group", run, "--trust-code", *SMALL, *rows, "--out", "group", status=1)
    assert "layer stem: one channel of its 3 x 3 kernel takes 9 rows; allowed: 8 rows x 1 row tiles = 8" in error
    assert not Path("group").exists()


def test_a_recipe_that_finds_nothing_to_change_says_so(run):
    rows = ("--set", "crossbar.rows=128", "--set", "crossbar.active_rows=128")
    _, said = bitline("optimize", "group", run, "--trust-code", *SMALL, *rows, "--epochs", 0, "--aware", "none")
    assert "group changes no layer: each fits its crossbar" in said


def test_a_model_in_the_place_of_a_run_is_imported_first_and_only_once(own):
    said = bitline("optimize", "conventional", *own, *SMALL, "--epochs", 0)[1]
    assert "nets/mine.py:small with its weights is imported: runs/small-digits" in said
    before = (Path("runs/small-digits") / RUN_MANIFEST).stat().st_mtime_ns
    bitline("export", *own, "--to", "conductances", "--chip", "example-128", "--out", "cells")
    assert (Path("runs/small-digits") / RUN_MANIFEST).stat().st_mtime_ns == before

    _, error = bitline("export", "runs/small-digits", "--to", "conductances", "--chip", "example-128", status=1)
    assert "add --trust-code" in error
    Path("nets/parts.py").write_text(SOURCE.read_text() + "# another\n")
    _, error = bitline("export", *own, "--to", "conductances", "--chip", "example-128", status=1)
    assert "runs/small-digits holds another imported network; add --overwrite, or choose another --out" in error
    bitline("import", *own, "--overwrite")
    bitline("export", *own, "--to", "conductances", "--chip", "example-128", "--out", "cells")


def test_training_starts_from_it_and_learns_from_it(run):
    _, error = bitline("train", "lenet5", "--data", "digits", "--teacher", run, "--epochs", 1, status=1)
    assert "add --trust-code" in error
    bitline("train", "lenet5", "--data", "digits", "--teacher", run, "--trust-code", "--epochs", 1, "--out", "student")
    file = f"{run}/code/mine.py:small"
    again = ("train", file, "--model-args", '{"width": 8}', "--init", run, "--data", "digits", "--epochs", 1)
    bitline(*again, "--lr", 1e-6, "--out", "again")
    here, there = (read_json(Path(each) / METRICS)["test_accuracy"] for each in ("again", run))
    assert here == pytest.approx(there, abs=0.02)
    assert read_json(Path("again") / RECORD)["mean"] == [0.0]
    _, error = bitline("train", "lenet5", "--data", "digits", "--init", "w.safetensors", "--out", "b", status=1)
    assert "init is w.safetensors, no run directory; bitline import makes one of a model and its weights" in error
    _, error = bitline("train", "lenet5", "--data", "digits", "--out", run, "--overwrite", status=1)
    assert "holds an imported network" in error


def test_a_program_goes_the_same_way_and_trusts_nobody(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sys.path.insert(0, str(SOURCE.parent))
    from safetensors.torch import load_model
    from test_exported_program import save

    net = make(f"{SOURCE}:Net", width=8)
    load_model(net, str(weights))
    save(net.eval(), tmp_path / "net.pt2", 1, 8, 8)
    bitline("import", "--model", "net.pt2", "--data", "digits", "--no-normalize")
    (tmp_path / "net.pt2").unlink()
    shown, _ = bitline("evaluate", "runs/net-digits", *SMALL)
    assert "mix" in shown
    bitline("optimize", "conventional", "runs/net-digits", *SMALL, "--epochs", 0)
    priced, _ = bitline("cost", "runs/conventional-net-digits", "--chip", "example-128")
    assert "attention.in_proj" in priced


def test_a_normalization_that_nobody_named_is_said_and_refused_where_another_is_plainly_right(own):
    *spec, _ = own
    _, error = bitline("evaluate", *spec, *SMALL, status=1)
    assert "of 256 training images right when they are normalized by mean 0.3052 and std 0.376, and" in error
    assert "with --no-normalize (images in [0, 1]): say which it was trained with" in error
    _, said = bitline("import", *spec, "--mean", 0.3052, "--std", 0.376, "--out", "kept")
    assert "with --no-normalize (images in [0, 1])" in said
    assert "images are normalized by mean 0.3052 and std 0.376, as asked for" in said
    _, said = bitline("import", *own, "--out", "right")
    assert "images are normalized by mean 0 and std 1, as asked for" in said
    assert "training images right" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mean", 0.5), "--mean and --std go together"),
        (("--no-normalize", "--mean", 0.5, "--std", 0.5), "--no-normalize is mean 0 and std 1: leave out"),
        (("--mean", "0.5,0.5,0.5", "--std", 1), "--mean has 3 numbers for 1 channels"),
        (("--mean", 127, "--std", 1), "--mean is 127; allowed: 0 to 1, as of images in [0, 1]; divide by 255"),
        (("--mean", 0.5, "--std", 0), "--std is 0; allowed: above 0"),
        (("--mean", "grey", "--std", 0), "--mean is 'grey'; expected numbers"),
        (("--model-args", "[1]"), "--model-args '[1]': expected KEY=VALUE or a JSON object"),
        (("--model-args", "{"), "--model-args '{': "),
        (("--model-args", "height=8"), "mine.py:small cannot be called with width, height: TypeError"),
        (("--width", 2), "takes no --width 2"),
        (("--device", "cuda"), "device is 'cuda', a GPU, but PyTorch"),
    ],
)
def test_options_that_do_not_fit_are_one_line(own, options, message):
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    spec = own if not {"--mean", "--no-normalize"} & set(options) else own[:-1]
    _, error = bitline("import", *spec, *options, "--out", "never", status=1)
    assert message in error
    assert not Path("never").exists()


def test_options_of_a_model_beside_a_run_and_a_recipe_of_neither_are_refused(run, own):
    for options in (("--mean", 0.5), ("--no-normalize",), ("--model-args", "width=8")):
        _, error = bitline("evaluate", run, *options, "--trust-code", status=1)
        assert f"{run} is a run directory, which has its own {options[0]}" in error
        _, error = bitline("optimize", "conventional", run, *options, status=1)
        assert f"{run} is a run directory, which has its own {options[0]}" in error
    assert "give a run directory, or --model" in bitline("optimize", "conventional", status=1)[1]
    assert "not both or neither" in bitline("export", run, *own, "--to", "onnx", status=1)[1]


def test_a_run_that_is_not_as_accurate_as_it_was_is_refused_with_what_differs(run):
    metrics = read_json(run / METRICS)
    record = read_json(run / RECORD)
    write_json(run / RECORD, {**record, "mean": [0.9], "std": [0.1]})
    bitline("accept", run)
    _, said = bitline("evaluate", run, "--trust-code", *SMALL)  # taken on purpose
    assert "model.json was edited since" in said
    write_json(run / RECORD, record)
    write_json(run / METRICS, {**metrics, "test_accuracy": 1.0, "test_images": 355})
    (run / RUN_MANIFEST).unlink()
    bitline("accept", run)
    loaded = load_run(run, trust_code=True)
    from bitline.evaluation.sanity import check_recorded

    data = loaded.record.load()
    with pytest.raises(DataError, match=r"the run recorded 100\.00% of 355, and 0\.50% are within chance"):
        check_recorded(loaded.model, data, loaded.record, {**loaded.metrics, "test_accuracy": 1.0}, run)
    check_recorded(loaded.model, data, loaded.record, metrics, run)


def test_a_network_of_ten_outputs_is_refused_on_three_classes(own, tmp_path):
    from PIL import Image

    data = load("digits")
    for split in ("train", "test"):
        for label in "abc":
            folder = tmp_path / "three" / split / label
            folder.mkdir(parents=True)
            for number in range(4):
                Image.fromarray(data.train_images[number, 0].numpy()).save(folder / f"{number}.png")
    spec = [*own[:-2], tmp_path / "three", own[-1]]
    _, error = bitline("evaluate", *spec, *SMALL, status=1)
    assert "it answers (2, 10) to 2 of them; expected (2, 3), a score for each of the 3 classes" in error


def library(monkeypatch, name: str, net: type[nn.Module]) -> None:
    """Put a library of one network in the place of torchvision or timm."""
    fake: dict[str, ModuleType] = {name: ModuleType(name), f"{name}.models": ModuleType("models")}
    home = fake[f"{name}.models"] if name == "torchvision" else fake[name]
    home.list_models = lambda: ["net"]
    if name == "torchvision":
        home.get_model = lambda _, weights, num_classes: net(classes=num_classes)
    else:
        home.create_model = lambda _, pretrained, num_classes, in_chans: net(classes=num_classes, channels=in_chans)
    fake[name].models = fake[f"{name}.models"]
    for key, module in fake.items():
        monkeypatch.setitem(sys.modules, key, module)


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_networks_of_libraries_are_built_for_the_data_and_need_no_trust(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from bitline.models.source import load_model_file

    net = type(load_model_file(SOURCE, "Net"))
    library(monkeypatch, name, net)
    network = net()
    nn.init.zeros_(network.head.weight)  # the same class for every image
    save_model(network, str(tmp_path / "w.safetensors"))
    _, said = bitline(
        "import", "--model", f"{name}:net", "--weights", "w.safetensors", "--data", "digits", "--out", "r"
    )
    assert "which is no more than chance: other weights" in said
    load_run("r")
    content = read_json(Path("r") / RECORD)
    assert content["model"] == f"{name}:net"
    content["kwargs"]["checkpoint_path"] = "w.pth"  # a pickle, which timm would read
    write_json(Path("r") / RECORD, content)
    manifest.accept(Path("r"))
    with pytest.raises(DataError, match=f"{name}:net is not made with checkpoint_path: weights come from --weights"):
        load_run("r")
    assert f"{name} has no model 'nett'; did you mean 'net'?" in bitline("cost", f"{name}:nett", status=1)[1]


def test_a_library_that_is_not_there_names_its_package(monkeypatch):
    for name in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, name, None)
        _, error = bitline("cost", f"{name}:resnet18", status=1)
        assert f"needs the package {name}: pip install {name} (or pip install 'bitline[models]')" in error


def test_the_price_of_a_network_is_that_of_the_crossbars_that_an_evaluation_has(run):
    import json

    bitline("evaluate", run, "--trust-code", *SMALL, "--json", "e.json")
    priced = json.loads(bitline("cost", run, "--trust-code", "--chip", "example-128", "--json", "-")[0])
    evaluated = read_json(Path("e.json"))
    for key in ("macs", "crossbars", "conversions", "area_m2"):
        assert priced[key] == evaluated["cost"][key]
    assert [each["name"] for each in priced["digital"]] == [each["name"] for each in evaluated["digital"]]
