"""Values of options that no command can have: seeds, threads, sizes, counts, places.

To add a case: a line in `OPTIONS`, with `RUN` for the trained network.
"""

from pathlib import Path

import pytest
from fuzz_cases import Accepted, Outcome, Refused, holds, label

from bitline.train.hardware import most_threads

EVALUATE = ("evaluate", "RUN", "--chips", "1", "--images", "8", "--calibration-images", "16")
TRAIN = ("train", "lenet5", "--data", "digits", "--epochs", "1", "--width", "0.1")
COST = ("cost", "lenet5", "--in-channels", "1", "--image-size", "8")
ROUNDING = ("study", "adc-rounding", "--columns", "2")

MOST = most_threads()
OPTIONS: list[tuple[tuple[str, ...], Outcome]] = [
    ((*EVALUATE, "--seed", str(2**63 - 1)), Accepted()),
    ((*EVALUATE, "--seed", str(2**63)), Refused("seed is 9223372036854775808; allowed: 0 to 2**63 - 1")),
    ((*EVALUATE, "--seed", str(2**64)), Refused("seed is 18446744073709551616; allowed: 0 to 2**63 - 1")),
    ((*EVALUATE, "--seed", "9" * 4000), Refused("seed is a number of about 4000 digits")),
    ((*EVALUATE, "--seed", "9" * 5000), Refused("integer", status=2)),
    ((*EVALUATE, "--seed", "-1"), Refused("seed is -1; allowed")),
    ((*EVALUATE, "--seed", "-2"), Refused("seed is -2; allowed")),
    ((*EVALUATE, "--seed", "1.5"), Refused("integer", status=2)),
    ((*EVALUATE, "--seed", "True"), Refused("integer", status=2)),
    ((*EVALUATE, "--threads", "0"), Refused(f"threads is 0; allowed: 1 to {MOST}, four for each core")),
    ((*EVALUATE, "--threads", "-1"), Refused(f"threads is -1; allowed: 1 to {MOST}, four for each core")),
    ((*EVALUATE, "--threads", "100000"), Refused(f"threads is 100000; allowed: 1 to {MOST}, four for each core")),
    ((*EVALUATE, "--image-size", "100000"), Refused("image_size is 100000; allowed: 1 to 4096")),
    ((*EVALUATE, "--image-size", "-1"), Refused("image_size is -1; allowed: 1 to 4096")),
    ((*EVALUATE, "--chips", "-1"), Refused("chips is -1")),
    ((*EVALUATE, "--batch-size", "0"), Refused("batch_size is 0")),
    ((*EVALUATE, "--calibration-images", "0"), Refused("calibration_images is 0")),
    ((*EVALUATE, "--data", "/nowhere"), Refused("no such file or folder: /nowhere")),
    ((*EVALUATE, "--set", "node=22"), Refused('write "22 nm"')),
    (("evaluate", "/nowhere"), Refused("no such run directory: /nowhere")),
    (("evaluate", "--model", "lenet", "--weights", "w", "--data", "digits"), Refused("did you mean 'lenet5'?")),
    ((*TRAIN, "--seed", str(2**64)), Refused("seed is 18446744073709551616")),
    ((*TRAIN, "--seed", "-2"), Refused("seed is -2")),
    ((*TRAIN, "--threads", "0"), Refused("threads is 0")),
    ((*TRAIN, "--threads", "100000"), Refused("threads is 100000")),
    ((*TRAIN, "--threads", str(MOST + 1)), Refused(f"threads is {MOST + 1}; allowed: 1 to ")),
    ((*TRAIN, "--width", "1e9"), Refused("width is 1000000000.0; allowed: 0.015625 to 64")),
    ((*TRAIN, "--width", "1e-9"), Refused("width is 1e-09; allowed: 0.015625 to 64")),
    ((*TRAIN, "--width", "nan"), Refused("width is nan")),
    ((*TRAIN, "--width", "inf"), Refused("width is inf")),
    ((*TRAIN, "--image-size", "100000"), Refused("image_size is 100000")),
    ((*TRAIN, "--data", "cifar10", "--data-dir", "/nowhere"), Refused("CIFAR-10 not found")),
    ((*COST, "--width", "1e9"), Refused("width is 1000000000.0; allowed: 0.015625 to 64")),
    ((*COST, "--width", "1e-9"), Refused("width is 1e-09; allowed: 0.015625 to 64")),
    ((*COST, "--width", "nan"), Refused("width is nan; allowed")),
    (("cost", "vgg16", "--width", "64"), Refused("weights; allowed: 1e+09")),
    (("cost", "lenet5", "--image-size", "100000"), Refused("image_size is 100000; allowed: 1 to 1024")),
    (("cost", "lenet5", "--image-size", "0"), Refused("image_size is 0; allowed: 1 to 1024")),
    (("cost", "lenet5", "--image-size", "2"), Refused("image_size is 2; LeNet-5 pools twice")),
    (("cost", "lenet5", "--in-channels", "1000000"), Refused("in_channels is 1000000; allowed: 1 to 1024")),
    (("cost", "lenet5", "--classes", "1000000000"), Refused("num_classes is 1000000000; allowed: 1 to 100000")),
    ((*COST, "--chip", "rram-22"), Refused("did you mean 'rram-22nm'?")),
    ((*COST, "--set", "node=22"), Refused('write "22 nm"')),
    ((*COST, "--set", "adc.bits=13"), Refused("13")),
    ((*COST, "--set", "cost_table=none"), Refused("none")),
    ((*COST, "--set", "name=[red]x[/red]"), Accepted()),
    ((*COST, "--json", "-"), Accepted(lambda content: content["energy_J"] > 0)),
    ((*COST, "--json", "/dev/full/x.json"), Refused("cannot write")),
    ((*COST, "--json", "."), Refused("it is a folder")),
    ((*COST, "--json", "x" * 300), Refused("File name too long")),
    ((*ROUNDING, "--seed", "-2"), Refused("seed is -2; allowed")),
    ((*ROUNDING, "--seed", str(2**63)), Refused("seed is 9223372036854775808; allowed")),
]


@pytest.mark.parametrize(("arguments", "expected"), OPTIONS, ids=label)
def test_an_option(run: Path, arguments: tuple[str, ...], expected: Outcome):
    holds(expected, *(run if argument == "RUN" else argument for argument in arguments))


def test_a_result_that_cannot_take_its_place_leaves_nothing_beside_it(run: Path, tmp_path: Path):
    (tmp_path / "place").mkdir()
    holds(Refused("it is a folder"), *COST, "--json", tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["place"]
    assert list((tmp_path / "place").iterdir()) == []


def test_exported_files_are_readable_by_all(run: Path, tmp_path: Path):
    holds(Accepted(), "export", run, "--to", "conductances", "--out", tmp_path / "cells", "--calibration-images", "16")
    written = [path for path in (tmp_path / "cells").rglob("*") if path.is_file()]
    assert len(written) > 1
    assert {path.stat().st_mode & 0o777 for path in written} == {0o644}
