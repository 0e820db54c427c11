"""Whether a network fits on a chip is asked as it is measured: each evaluation with the mapping that it has."""

from pathlib import Path
from typing import Any

import pytest

from bitline.errors import MappingError
from bitline.files import AFTER, BEFORE
from bitline.recipes import checked
from bitline.recipes.run import optimize
from run_samples import trained

NET = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        deep = [nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.ReLU()]
        super().__init__(nn.Conv2d(1, 64, 1), nn.ReLU(), *deep, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10))
"""
ONE_TILE = ("system.tiles=1",)
"""64 crossbars; the network needs 67, and 3 where its depthwise layer is digital"""


def made(run: Path, out: Path, **settings: Any) -> Path:
    small = {"recipe": "conventional", "chips": 1, "images": 16, "calibration_images": 64, "threads": 1}
    return optimize(checked(run=run, out=out, chip="rram-22nm", **small, **settings), trust_code=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("deep")
    (folder / "net.py").write_text(NET)
    return trained(folder / "run", model=f"{folder / 'net.py'}:Net")


def test_a_network_that_fits_as_it_is_mapped_is_not_refused(tmp_path, run):
    digital = made(run, tmp_path / "digital", mapping=("depthwise=digital",))

    out = made(digital, tmp_path / "out", mapping=("depthwise=digital",), overrides=ONE_TILE)

    assert (out / BEFORE).is_file()
    assert (out / AFTER).is_file()


@pytest.mark.parametrize("mapping", [{}, {"mapping": ("depthwise=digital",)}])
def test_one_that_does_not_fit_before_is_refused_with_nothing_measured(tmp_path, run, mapping):
    with pytest.raises(MappingError, match="the network needs 67 crossbars; chip rram-22nm has 64"):
        made(run, tmp_path / "out", **mapping, overrides=ONE_TILE)
    assert not (tmp_path / "out").exists()


def test_one_that_does_not_fit_afterwards_is_refused_with_nothing_measured(tmp_path, run):
    digital = made(run, tmp_path / "digital", mapping=("depthwise=digital",))

    with pytest.raises(MappingError, match="the network needs 67 crossbars; chip rram-22nm has 64"):
        made(digital, tmp_path / "out", overrides=ONE_TILE)
    assert not (tmp_path / "out").exists()
