"""What plain ``pip install bitline`` does, and what it says of all else."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from bitline.data import load
from bitline.extras import PACKAGES, ExtraError, need

ROOT = Path(__file__).parent.parent
BLOCKED = """
import sys
for name in (
    "alembic", "datasets", "huggingface_hub", "lightning", "matplotlib", "onnx", "onnx_ir", "onnxruntime", "onnxscript",
    "optuna", "pandas", "pyarrow", "pytorch_lightning", "scipy", "sklearn", "sqlalchemy", "tensorboard", "timm",
    "torch_pruning", "torchmetrics", "torchvision", "triton",
):
    sys.modules[name] = None
"""
RUN = "from bitline.cli import main; sys.argv = ['bitline', *sys.argv[1:]]; main()"


def core(program: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program where no extra is installed."""
    command = [sys.executable, "-c", BLOCKED + program, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_digits_are_those_of_scikit_learn():
    bunch, digits = load_digits(), load("digits")
    test = np.zeros(len(bunch.target), bool)
    for label in range(10):
        test[np.flatnonzero(bunch.target == label)[4::5]] = True
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]

    for split, chosen in (("train", ~test), ("test", test)):
        assert np.array_equal(getattr(digits, f"{split}_images").numpy(), pixels[chosen])
        assert np.array_equal(getattr(digits, f"{split}_labels").numpy(), bunch.target[chosen])


def test_extras_and_what_is_imported_of_them_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {
        extra: {each.partition(">")[0].replace("-", "_") for each in project["optional-dependencies"][extra]}
        for extra in PACKAGES
    }

    assert names == {extra: set(packages) for extra, packages in PACKAGES.items()}
    plain = {each.partition(">")[0].replace("-", "_") for each in project["dependencies"]}
    assert not plain & {package for packages in PACKAGES.values() for package in packages}


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    need("a test", "train")
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "optuna", None)
    need("a test", "train", "lightning")
    with pytest.raises(ExtraError, match=r'^a test needs optuna, scipy: pip install "bitline\[train\]"$'):
        need("a test", "train")


@pytest.mark.slow
def test_without_extras_a_network_is_imported_evaluated_swept_studied_priced_and_exported(tmp_path):
    made = """
import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file
from bitline.models import build
torch.manual_seed(0)
save_file(build("lenet5", in_channels=1, image_size=8, num_classes=2).state_dict(), "w.safetensors")
generator = np.random.default_rng(0)
for name in "ab":
    for number in range(20):
        from pathlib import Path
        Path(f"photos/{name}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(f"photos/{name}/{number}.png")
"""
    assert core(made, tmp_path).returncode == 0
    (tmp_path / "net.py").write_text(
        "from bitline.models import build\n\n\n"
        "def net():\n    return build('lenet5', in_channels=1, image_size=8, num_classes=2)\n"
    )
    own = ("--model", "net.py:net", "--weights", "w.safetensors", "--data", "photos", "--split", "0.5")
    few = ("--trust-code", "--chip", "example-128", "--calibration-images", "8")
    integers = ("--set", "weights.scale=power_of_two", "--set", "inputs.scale=power_of_two")
    for command in (
        ("import", *own, "--out", "run"),
        ("evaluate", "run", *few, "--chips", "2", "--html", "page.html"),
        ("sweep", "run", *few, "--chips", "2", "--vary", "adc.bits=4,5"),
        ("cost", "run", "--trust-code"),
        ("export", "run", *few, "--to", "integer", *integers, "--set", "weights.bias_bits=8", "--check", "4"),
        ("chips",),
        ("doctor",),
    ):
        done = core(RUN, tmp_path, *command)
        assert done.returncode == 0, (command, done.stderr)
    digits = core("import bitline; print(len(bitline.data.load('digits').test_images))", tmp_path)
    assert digits.stdout == f"{len(load('digits').test_images)}\n"


GIVEN = ["evaluate", "--model", "lenet5", "--weights", "w", "--data"]
TRAIN = "lightning, optuna, scipy, tensorboard, torch_pruning"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["train", "lenet5", "--data", "digits"], f"bitline train needs {TRAIN}: pip install 'bitline[train]'"),
        (["demo"], f"bitline demo needs {TRAIN}: pip install 'bitline[train]'"),
        (["optimize", "group", "run"], f"bitline optimize needs {TRAIN}: pip install 'bitline[train]'"),
        (["export", "run", "--to", "onnx"], "--to onnx needs onnx, onnxruntime, onnxscript: pip install 'bitline[exp"),
        ([*GIVEN, "uoft/x"], "datasets: pip install 'bitline[data]'"),
        ([*GIVEN, "tables"], "datasets: pip install 'bitline[data]'"),
        (["cost", "timm:resnet18"], "needs the package timm: pip install timm (or pip install 'bitline[models]'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_that_needs_an_extra_says_so_in_one_line(tmp_path, command, said):
    (tmp_path / "tables").mkdir()
    for split in ("train", "test"):
        (tmp_path / f"tables/{split}.parquet").write_bytes(b"PAR1")
    (tmp_path / "w").touch()

    done = core(RUN, tmp_path, *command)

    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert said in done.stderr.replace('"', "'")


def test_python_says_the_same(tmp_path):
    program = """
import torch
import bitline
from bitline.evaluation import Settings, put_on_chip
from bitline.models import build
digits = bitline.data.load("digits")
chip = bitline.load_chip("example-128", ["mitigation.remap=true"])
def one(): put_on_chip(build("lenet5", in_channels=1, image_size=8), digits, chip, Settings())
for work in (lambda: bitline.optimize("group", "run"), one):
    try: work()
    except bitline.BitlineError as error: print(error)
"""

    assert core(program, tmp_path).stdout.splitlines() == [
        f'bitline.optimize needs {TRAIN}: pip install "bitline[train]"',
        'mitigation.remap needs scipy: pip install "bitline[train]"',
    ]
