"""Run directories: files missing, damaged, changed, and changed in a way that the manifest accepts.

To add a case: a line in `RECORDS` (what `model.json` says otherwise) or `CONTENTS` (what any JSON file is replaced by).
"""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from fuzz_cases import Accepted, Outcome, Refused, holds, label

from bitline import manifest

QUICK = ("--chips", 1, "--images", 8, "--calibration-images", 16, "--json", "-")
JSON = ("model.json", "config.json", "metrics.json")
PARTS = (*JSON, "model.safetensors")

# what a JSON file is replaced by: a run that is not as it was written is refused by its manifest
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "space": b" \n",
    "null": b"null",
    "list": b"[]",
    "number": b"1",
    "object": b"{}",
    "half": b'{"model": "lenet5", ',
    "nan": b'{"model": NaN}',
    "infinity": b'{"model": -Infinity}',
    "overflow": b'{"model": 1e999}',
    "deep": b'{"model": ' + b"[" * 900 + b"]" * 900 + b"}",
    "very deep": b"[" * 200_000,
    "digits": b'{"model": ' + b"1" * 5000 + b"}",
    "binary": bytes(range(256)),
    "utf-16": '{"model": "lenet5"}'.encode("utf-16"),
    "key of a class": b'{"cls": 1, "self": 2}',
    "long": b'{"' + b"x" * 10**6 + b'": 1}',
}


def of(**changes: Any) -> dict[str, Any]:
    return changes


KWARGS = {"num_classes": 10, "in_channels": 1, "image_size": 8, "width": 0.5}
# what model.json says otherwise, where the manifest agrees
RECORDS: list[tuple[dict[str, Any], Outcome]] = [
    (of(), Accepted(lambda content: 0 <= content["accuracy"]["float"] <= 100)),
    (of(title="digits, again"), Accepted()),
    (of(model="lenet6"), Refused("did you mean 'lenet5'?")),
    (of(model="vgg8"), Refused("does not fit VGG8")),
    (of(model="resnet20"), Refused("does not fit ResNet")),
    (
        of(model="/tmp/evil.py:Net"),
        Refused("has a network from /tmp/evil.py:Net; loading it runs that file: add --trust-code"),
    ),
    (of(model=None), Refused("model = None")),
    (of(model=[]), Refused("model = []")),
    (of(model="x" * 10_000), Refused("at most 4096")),
    (of(kwargs=None), Refused("kwargs = None")),
    (of(kwargs={}), Refused("model.safetensors does not fit LeNet5")),
    (of(kwargs={**KWARGS, "cls": 1}), Refused("kwargs: unknown key 'cls'")),
    (of(kwargs={**KWARGS, "name": 1}), Refused("kwargs: unknown key 'name'")),
    (of(kwargs={**KWARGS, "width": "1"}), Refused("kwargs.width")),
    (of(kwargs={**KWARGS, "width": 1e9}), Refused("width is 1000000000.0; allowed")),
    (of(kwargs={**KWARGS, "width": 1e-9}), Refused("width is 1e-09; allowed")),
    (of(kwargs={**KWARGS, "width": -1}), Refused("width is -1; allowed")),
    (of(kwargs={**KWARGS, "width": 0.25}), Refused("does not fit LeNet5")),
    (of(kwargs={**KWARGS, "num_classes": 10**9}), Refused("num_classes")),
    (of(kwargs={**KWARGS, "num_classes": 3}), Refused("10 classes for num_classes = 3")),
    (of(kwargs={**KWARGS, "num_classes": True}), Refused("kwargs.num_classes")),
    (of(kwargs={**KWARGS, "image_size": 10**9}), Refused("image_size is 1000000000; allowed")),
    (of(kwargs={**KWARGS, "in_channels": 10**9}), Refused("in_channels is 1000000000; allowed")),
    (of(kwargs={**KWARGS, "in_channels": 1.0}), Refused("in_channels is 1.0; allowed")),
    (of(data="/nowhere"), Refused("no such file or folder")),
    (of(data=3), Refused("data = 3")),
    (of(classes=[]), Refused("classes = []")),
    (of(classes=["0", "1"]), Refused("2 classes for num_classes = 10")),
    (of(classes="0123456789"), Refused("classes = '0123456789'")),
    (of(channels=0), Refused("channels = 0")),
    (of(channels=10**12), Refused("channels = 1000000000000")),
    (of(channels=3), Refused("mean has 1 numbers for 3 channels")),
    (of(channels="1"), Refused("channels = '1'")),
    (of(image_size=100_000), Refused("image_size is 100000")),
    (of(image_size=-8), Refused("image_size = -8")),
    (of(image_size=16), Refused("16")),
    (of(mean=[]), Refused("mean has 0 numbers for 1 channels")),
    (of(mean=[0.9, 0.9]), Refused("mean has 2 numbers for 1 channels")),
    (of(mean=[7]), Refused("mean.0 = 7")),
    (of(mean=[None]), Refused("mean.0 = None")),
    (of(std=[0]), Refused("std.0 = 0")),
    (of(std=[-1]), Refused("std.0 = -1")),
    (of(std=0.5), Refused("std = 0.5")),
    (of(colour="red"), Refused("colour = 'red'")),
    (of(rewrites=None), Refused("rewrites = None")),
    (of(rewrites=[{}]), Refused("rewrites.0.kind")),
    (of(rewrites=[{"kind": "melt", "module": "x"}]), Refused("rewrites.0.kind = 'melt'")),
    (of(rewrites=[{"kind": "group", "module": "nowhere"}]), Refused("has no module 'nowhere'")),
    (of(rewrites=[{"kind": "group", "module": "features.3", "groups": 7}]), Refused("7 groups do not divide")),
    (of(rewrites=[{"kind": "group", "module": "features.3", "groups": 0}]), Refused("rewrites.0.groups = 0")),
    (of(rewrites=[{"kind": "group", "module": "features.1"}]), Refused("it is a ReLU; expected Conv2d")),
    (of(rewrites=[{"kind": "fold", "module": "features.0"}]), Refused("expected BatchNorm1d or BatchNorm2d")),
    (of(rewrites=[{"kind": "shrink", "module": "features.0"}]), Refused("inputs is None")),
    (of(rewrites=[{"kind": "shrink", "module": "features.0", "inputs": 1, "outputs": 9}]), Refused("outputs is 9")),
    (of(rewrites=[{"kind": "shrink", "module": "features.0", "inputs": 1, "outputs": 2}]), Refused("does not fit")),
    (
        of(rewrites=[{"kind": "separable", "module": "features.3", "multiplier": 10**7}]),
        Refused("rewrites.0.multiplier"),
    ),
    (of(rewrites=[{"kind": "shrink", "module": "x", "inputs": 1, "outputs": 1}] * 100_000), Refused("at most 4096")),
]


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("command", ["evaluate", "cost"])
def test_a_missing_file_is_named(copy: Path, name: str, command: str):
    (copy / name).unlink()
    holds(Refused(name), command, copy, *(QUICK if command == "evaluate" else ()))


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("content", CONTENTS)
def test_a_changed_file_is_named(copy: Path, name: str, content: str):
    (copy / name).write_bytes(CONTENTS[content])
    holds(Refused(name), "evaluate", copy, *QUICK)


@pytest.mark.parametrize("content", CONTENTS)
def test_a_record_that_is_none_is_one_line_even_where_the_manifest_agrees(copy: Path, content: str):
    (copy / "model.json").write_bytes(CONTENTS[content])
    manifest.write(copy)
    holds(Refused("model.json"), "evaluate", copy, *QUICK)


@pytest.mark.parametrize(("change", "expected"), RECORDS, ids=label)
def test_a_changed_record(copy: Path, change: dict[str, Any], expected: Outcome):
    record = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**record, **change}))
    manifest.write(copy)
    holds(expected, "evaluate", copy, *QUICK)


def test_any_byte_of_a_run_may_be_wrong(copy: Path):
    draw = random.Random(0)
    for _ in range(20):
        path = copy / draw.choice(PARTS)
        whole = path.read_bytes()
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        holds(Refused(path.name), "evaluate", copy, *QUICK)
        path.write_bytes(whole)
