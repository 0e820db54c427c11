"""How much each layer loses alone on crossbars equals what converting it alone gives."""

import math

import pytest
import torch
from torch import Tensor, nn

import bitline
from bitline.errors import ConversionError
from bitline.nn import calibrate, program, to_crossbar

X = torch.rand(16, 8, generator=torch.Generator().manual_seed(0))


class Branches(nn.Module):
    """One branch counts a hundred times as much as the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weak, self.strong = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.weak(x) + 100 * self.strong(x)


def test_each_layer_is_measured_as_if_it_alone_were_on_crossbars(make_chip):
    chip = make_chip(cell={"programming": {"kind": "lognormal", "sigma": 0.1}}, crossbar={"rows": 16, "cols": 64})
    model = Branches().eval()
    found = bitline.sensitivity(model, chip, [X[:8], X[8:]], chips=3, seed=5)
    assert list(found) == ["strong", "weak"]
    assert found["strong"] > 1000 * found["weak"]
    with torch.no_grad():
        exact = model(X).double()
        for name, other in (("strong", "weak"), ("weak", "strong")):
            converted, _ = to_crossbar(model, chip, example=X, keep_digital=[other])
            calibrate(converted, [X])
            errors = []
            for seed in (5, 6, 7):
                program(converted, seed)
                errors.append(float((converted(X).double() - exact).square().sum() / exact.square().sum()))
            assert math.isclose(found[name], sum(errors) / 3, rel_tol=1e-6)


def test_layers_above_a_threshold_stay_digital(make_chip):
    model = Branches().eval()
    errors = bitline.sensitivity(model, make_chip(), [(X, torch.zeros(16))])
    _, report = to_crossbar(model, make_chip(), example=X, keep_digital=[n for n, e in errors.items() if e > 1e-4])
    assert [(d.name, d.why) for d in report.digital] == [("strong", "kept digital as asked")]


def test_no_data_is_refused(make_chip):
    with pytest.raises(ConversionError, match="sensitivity has no data"):
        bitline.sensitivity(Branches(), make_chip(), [])


def test_data_that_a_network_changes_in_place_stays_as_it_is(make_chip):
    class InPlace(Branches):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2))

    data = X.clone()
    found = bitline.sensitivity(InPlace().eval(), make_chip(), [data])
    assert torch.equal(data, X)
    right = bitline.sensitivity(Branches().eval(), make_chip(), [2 * X])
    assert found == pytest.approx(right, rel=1e-6)
