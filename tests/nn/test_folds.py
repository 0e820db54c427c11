"""A batch norm is folded where the network answers the same on every way, and stays where it does not."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.errors import ConversionError
from network_samples import IMAGE, Code, agrees, settled


class NormAct(nn.BatchNorm2d):
    """A batch norm and an activation in one, as timm's are."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        return self.act(
            F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        )


class NormOfDoubles(nn.BatchNorm2d):
    """One that is no batch norm and then something."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.square())


@pytest.mark.parametrize("example", [True, False])
@pytest.mark.parametrize("zero", [True, False])
def test_an_activation_inside_a_batch_norm_stays(make_chip, example, zero):
    model = settled(nn.Sequential(nn.Conv2d(3, 8, 3), NormAct(8), nn.Conv2d(8, 4, 3)))
    if zero:
        nn.init.zeros_(model[1].weight)
    converted, report = agrees(model, make_chip, IMAGE, example=example)
    assert report.folded == {"1": "0"}
    assert isinstance(converted[1], NormAct)
    assert [d.name for d in report.digital] == []
    nn.init.normal_(converted[0].weight)  # weights that come later meet the activation too
    converted.train()
    with torch.no_grad():
        assert bool((converted[1](torch.randn(2, 8, 4, 4)) >= 0).all())
        torch.testing.assert_close(converted[1](torch.full((2, 8, 4, 4), 3.0)), torch.full((2, 8, 4, 4), 3.0))


def test_a_batch_norm_that_does_more_before_it_normalizes_stays(make_chip):
    model = settled(nn.Sequential(nn.Conv2d(3, 8, 3), NormOfDoubles(8), nn.Conv2d(8, 4, 3)))
    _, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {}
    assert report.digital[0].why == "NormOfDoubles does more than normalize, and not after it, or has hooks"


def test_a_batch_norm_with_a_hook_stays(make_chip):
    model = settled(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)))
    model[1].register_forward_hook(lambda _m, _x, y: y + 1)
    _, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {}


def test_a_batch_norm_that_runs_on_one_of_two_ways_stays(make_chip):
    def forward(s, x: Tensor) -> Tensor:
        y = s.c(x)
        y = s.n(y) if x.mean() > 0 else y
        return s.o(F.relu(y).mean((2, 3)))

    model = settled(Code(forward, c=nn.Conv2d(3, 8, 3), n=nn.BatchNorm2d(8), o=nn.Linear(8, 4)))
    converted, report = agrees(model, make_chip, IMAGE.abs())
    assert report.folded == {}
    assert [(d.name, d.why) for d in report.digital] == [
        ("n", "the network reads values, and may go another way for others")
    ]
    with torch.no_grad():
        torch.testing.assert_close(converted(-IMAGE.abs()), model(-IMAGE.abs()), rtol=1e-4, atol=1e-4)


def test_a_decision_of_a_neighbour_leaves_a_fold_alone(make_chip):
    def forward(s, x: Tensor) -> Tensor:
        return s.a(x) if x.mean() > 100 else s.b(x)

    block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    gate = Code(forward, a=nn.ReLU(), b=nn.Sigmoid())
    _, report = agrees(settled(nn.Sequential(block, gate, nn.Conv2d(8, 4, 3))), make_chip, IMAGE)
    assert report.folded == {"0.1": "0.0"}


def test_a_result_that_another_head_reads_in_training_keeps_its_batch_norm(make_chip):
    def forward(s, x: Tensor) -> object:
        y = s.c(x)
        z = s.o(F.relu(s.n(y)).mean((2, 3)))
        return (z, s.aux(y.mean((2, 3)))) if s.training else z

    parts = {"c": nn.Conv2d(3, 8, 3), "n": nn.BatchNorm2d(8), "o": nn.Linear(8, 4), "aux": nn.Linear(8, 4)}
    model = settled(Code(forward, **parts))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    converted, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {}
    assert {d.name: d.why for d in report.digital} == {
        "n": "the result of c is read elsewhere too in training",
        "aux": "never ran on the example",
    }
    assert all(torch.equal(buffer, before[name]) for name, buffer in converted.named_buffers() if name in before)


@pytest.mark.parametrize("read", [lambda n: n.eps, lambda n: n.num_features])
def test_settings_of_a_folded_batch_norm_can_be_read(make_chip, read):
    def forward(s, x: Tensor) -> Tensor:
        return s.o(F.relu(s.n(s.c(x))).mean((2, 3)) + read(s.n))

    model = settled(Code(forward, c=nn.Conv2d(3, 8, 3), n=nn.BatchNorm2d(8), o=nn.Linear(8, 4)))
    _, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {"n": "c"}


def test_a_batch_norm_whose_numbers_are_read_elsewhere_stays(make_chip):
    def forward(s, x: Tensor) -> Tensor:
        return s.o(F.relu(s.n(s.c(x))).mean((2, 3)) * s.n.weight)

    model = settled(Code(forward, c=nn.Conv2d(3, 8, 3), n=nn.BatchNorm2d(8), o=nn.Linear(8, 4)))
    _, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {}
    assert report.digital[0].why == "the network answers otherwise when it is folded"


def test_a_fold_inside_a_branch_that_begins_silent_is_checked(make_chip):
    class Sneaky(nn.Module):
        """Reads the convolution's result behind everybody's back."""

        def forward(self, y: Tensor) -> Tensor:
            return y + y.detach().numpy().mean() if not y.is_meta else y

    def forward(s, x: Tensor) -> Tensor:
        y = s.c(x)
        return x.mean() + s.gamma * (s.n(y).mean() + s.sneaky(y).mean())

    model = settled(Code(forward, c=nn.Conv2d(3, 8, 3), n=nn.BatchNorm2d(8), sneaky=Sneaky()))
    model.gamma = nn.Parameter(torch.zeros(2))
    _, report = agrees(model, make_chip, IMAGE)
    assert report.folded == {}


def test_two_hundred_folds_are_checked_in_a_few_passes(make_chip):
    """A wrong fold among many is found by halves, not by a pass for each."""
    passes = []

    def forward(s, x: Tensor) -> Tensor:
        passes.append(1)
        for conv, norm in zip(s.convs, s.norms, strict=True):
            x = x + norm(conv(x))
        return x * s.norms[7].weight

    convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(64))
    model = settled(Code(forward, convs=convs, norms=nn.ModuleList(nn.BatchNorm2d(3) for _ in range(64))))
    model.run = forward
    _, report = agrees(nn.Sequential(model), make_chip, IMAGE[..., :3])
    assert len(report.folded) == 63
    assert "0.norms.7" not in report.folded
    assert len(passes) < 32


BRANCHES = {
    "numpy": (lambda s, x: x.detach().numpy().mean() > 0, lambda s, x: -x),
    "tolist": (lambda s, x: sum(x.flatten().tolist()) > 0, lambda s, x: -x),
    "size": (lambda s, x: x.shape[-1] >= 9, lambda s, x: x[..., :7, :7]),
    "batch": (lambda s, x: len(x) > 1, lambda s, x: x[:1]),
    "flag": (lambda s, x: s.flag, lambda s, x: setattr(s, "flag", False) or x),
}


@pytest.mark.parametrize("kind", list(BRANCHES))
def test_a_way_that_the_example_did_not_take_is_never_answered_with_a_fold(make_chip, kind):
    """Where values decide, nothing is folded; where else something does, the network says so when it goes that way."""
    decide, other = BRANCHES[kind]

    def forward(s, x: Tensor) -> Tensor:
        y = s.c(x)
        y = s.n(y) if decide(s, x) else y
        return s.o(F.relu(y).mean((2, 3)))

    model = settled(Code(forward, c=nn.Conv2d(3, 8, 3), n=nn.BatchNorm2d(8), o=nn.Linear(8, 4)))
    model.flag = True
    x = IMAGE.abs()
    converted, report = agrees(model, make_chip, x)
    if kind in ("numpy", "tolist"):
        assert report.folded == {}
        with torch.no_grad():
            torch.testing.assert_close(converted(other(converted, x)), model(other(model, x)), rtol=1e-4, atol=1e-4)
        return
    assert report.folded == {"n": "c"}
    for again in (converted, copy.deepcopy(converted)):
        with pytest.raises(ConversionError, match="n is folded into c, and ran 0 times where that ran 1 times"):
            again(other(again, x))
