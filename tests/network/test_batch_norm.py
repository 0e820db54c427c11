"""Batch norm goes into the layer before it where that is right, and nowhere else."""

import pytest
import torch
from torch import Tensor, nn

from bitline.nn import to_crossbar
from network_samples import Code


def statistics(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for parameter in (module.weight, module.bias, module.running_mean):
                if parameter is not None:
                    nn.init.normal_(parameter)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def folded(model: nn.Module, make_chip, x: Tensor | None) -> dict[str, str]:
    """Fold, and check that the plain layers inside the converted network answer as before."""
    chip = make_chip(crossbar={"rows": 64, "cols": 64})
    converted, report = to_crossbar(model, chip, example=x)
    for module in converted.modules():
        if hasattr(module, "mode"):
            module.mode = "float"
    left = {d.name for d in report.digital if "BatchNorm" in d.op}
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert left | set(report.folded) == norms
    if x is not None:
        with torch.no_grad():
            torch.testing.assert_close(converted(x), model(x), rtol=1e-4, atol=1e-4)
    return report.folded


IMAGE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
LINE = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0))

IN_SEQUENCE = {
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), IMAGE, {"1": "0"}),
    "without bias": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), IMAGE, {"1": "0"}),
    "not affine": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), IMAGE, {"1": "0"}),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)), IMAGE, {"1": "0"}),
    "depthwise": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3)), IMAGE, {"1": "0"}),
    "linear": (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU()), ROWS, {"1": "0"}),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), LINE, {"1": "0"}),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.ReLU()),
        IMAGE,
        {"0.1": "0.0"},
    ),
    "in front": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), IMAGE, {}),
    "after an activation": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), IMAGE, {}),
    "without statistics": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=True), nn.Conv2d(4, 4, 1), nn.InstanceNorm2d(4)
        ),
        IMAGE,
        {"1": "0"},
    ),
}


@pytest.mark.parametrize("example", [True, False])
@pytest.mark.parametrize("kind", list(IN_SEQUENCE))
def test_in_sequence_a_batch_norm_folds_into_the_layer_before_it(make_chip, kind, example):
    make, x, wanted = IN_SEQUENCE[kind]
    assert folded(statistics(make()), make_chip, x if example else None) == wanted


def test_outside_of_a_sequence_an_example_is_needed(make_chip):
    model = statistics(Code(lambda m, x: m.norm(m.conv(x)).relu(), conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    assert folded(model, make_chip, None) == {}
    assert folded(model, make_chip, IMAGE) == {"norm": "conv"}


def both(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y) + y


def returned(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    y = m.conv(x)
    return m.norm(y), y


def in_a_dictionary(m: nn.Module, x: Tensor) -> dict[str, Tensor]:
    y = m.conv(x)
    return {"out": m.norm(y), "features": y}


def changed_in_place(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    y.relu_()
    return m.norm(y)


def gated(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y) * (y.mean() > 1e9)


def barely(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y) + 1e-9 * y


def twice(m: nn.Module, x: Tensor) -> Tensor:
    return m.norm(m.conv(x)) + m.norm(m.conv(2 * x))


def two_norms(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y) + m.other(y)


@pytest.mark.parametrize("untrained", [False, True])
@pytest.mark.parametrize(
    "forward", [both, returned, in_a_dictionary, changed_in_place, gated, barely, twice, two_norms]
)
def test_a_result_that_something_else_reads_is_not_folded(make_chip, forward, untrained):
    parts = {"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4)}
    if forward is two_norms:
        parts["other"] = nn.BatchNorm2d(4)
    model = Code(forward, **parts)
    # An untrained batch norm changes next to nothing, so that comparing answers would not tell.
    model = model.eval() if untrained else statistics(model)
    assert folded(model, make_chip, IMAGE) == {}


def test_asking_for_a_shape_is_no_reading(make_chip):
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.conv(x)
        assert y.shape[0] == len(y) == y.size(0)
        return m.norm(y)

    model = statistics(Code(forward, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    assert folded(model, make_chip, IMAGE) == {"norm": "conv"}


def test_a_layer_or_norm_that_stands_in_two_places_is_not_folded_unseen(make_chip):
    conv, norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    for model in (
        nn.Sequential(conv, nn.BatchNorm2d(3), conv, nn.BatchNorm2d(3)),
        nn.Sequential(conv, norm, nn.Conv2d(3, 3, 1), norm),
    ):
        for x in (None, IMAGE):
            assert folded(statistics(model), make_chip, x) == {}


def test_a_sequence_with_a_forward_of_its_own_is_no_sequence(make_chip):
    class Backwards(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            for module in reversed(self):
                input = module(input)
            return input

    model = statistics(Backwards(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    for x in (None, IMAGE):
        assert folded(model, make_chip, x) == {}


@pytest.mark.parametrize("features", [4, 7])
def test_a_norm_over_another_axis_than_the_layers_outputs_is_not_folded(make_chip, features):
    model = statistics(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(features)))
    x = torch.randn(5, features, 6)
    assert folded(model, make_chip, x) == {}
    if features != 4:
        assert folded(model, make_chip, None) == {}


def test_two_folds_of_one_network_are_independent(make_chip):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.na = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.b, self.nb = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.b(self.na(self.a(x)))
            return self.nb(y) + y

    assert folded(statistics(Two()), make_chip, IMAGE) == {"na": "a"}
