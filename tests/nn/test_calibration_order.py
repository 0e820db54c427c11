"""The same images make the same ranges, bit for bit, in whatever order and batches they come."""

from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

from bitline import load_chip
from bitline.errors import ConversionError
from bitline.network import images
from bitline.nn import calibrate, crossbar_layers, to_crossbar


class TimeFirst(nn.Module):
    """Attention and a layer that see time before images, and a row of weights as input."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(27, 16)
        self.first = nn.Parameter(torch.rand(1, 16))
        self.of_first = nn.Linear(16, 16)
        self.last = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.query(x.transpose(0, 1)) + self.of_first(self.first)
        x = torch.softmax(x @ x.transpose(1, 2), -1) @ x
        return self.last(x.flatten(0, 1)).unflatten(0, (-1, x.shape[1])).mean(0)


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.ReLU(), nn.Flatten(), nn.Linear(288, 27), nn.ReLU(), nn.Linear(27, 10), nn.ReLU(), nn.Linear(10, 1),
    )  # fmt: skip


NETWORKS = {"conv": (conv, (3, 6, 6)), "time first": (TimeFirst, (5, 27))}
CUTS = [1, 7, 31, 150]


def state(model: nn.Module) -> dict[str, Tensor]:
    made = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for name, layer in crossbar_layers(model).items():
        sums = layer.ranges.sums
        made |= {f"{name} digits": sums.by_digit, f"{name} vectors": sums.vectors}
    return made


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("overrides", [(), ("inputs.calibration=max", "adc.calibration=percentile")])
@pytest.mark.parametrize("in_turn", [False, True])
def test_order_and_cut_change_no_bit(name, overrides, in_turn):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    net = make().eval()
    x = torch.randn(150, *shape).relu() * torch.rand(150, *[1] * len(shape))
    x[::9] = 0
    model = to_crossbar(net, load_chip("rram-22nm", ["adc.bits=4", *overrides]), example=x[:2]).model
    first = None
    for size in CUTS:
        for order in (torch.arange(150), torch.randperm(150)):
            calibrate(model, list(x[order].split(size)), in_turn=in_turn)
            first = first or state(model)
            assert_same(state(model), first)
        if in_turn:
            break


def test_images_beyond_the_memory_for_them_are_walked_in_parts(monkeypatch):
    torch.manual_seed(0)
    x = torch.rand(90, 3, 6, 6)
    model = to_crossbar(conv().eval(), load_chip("rram-22nm"), example=x[:2]).model
    monkeypatch.setattr(images, "HELD_BYTES", 20 * x[0].nbytes)
    walks = 0

    class Batches(list):
        def __iter__(self):
            nonlocal walks
            walks += 1
            return super().__iter__()

    calibrate(model, Batches(x.split(8)))
    first = state(model)
    assert walks == 1 + 2 * 5
    assert sum(len(run) for run in images.Images(list(x.split(8))).runs(x.device)) == 90
    calibrate(model, list(x.flip(0).split(9)))
    assert_same(state(model), first)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_walk_in_turn_fits_what_a_walk_for_each_layer_fits(monkeypatch, name):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    x = torch.rand(60, *shape)  # no more than run together in a walk for each layer
    model = to_crossbar(make().eval(), load_chip("rram-22nm", ["adc.bits=3"]), example=x[:2]).model
    calibrate(model, [x])
    plain, passes = state(model), 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    model.register_forward_pre_hook(count)
    calibrate(model, [x], in_turn=True)
    assert passes == 3
    together = state(model)
    monkeypatch.setattr(images.Images, "together", lambda *_: None)
    calibrate(model, [x], in_turn=True)
    assert passes == 3 + 2 + len(crossbar_layers(model))
    assert_same(state(model), together)
    assert any(not torch.equal(together[key], value) for key, value in plain.items() if key.endswith("adc_lsb"))


def test_images_of_several_shapes_are_fitted_in_turn_layer_by_layer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    x = [torch.rand(20, 3, 6), torch.rand(20, 7, 6)]
    model = to_crossbar(net, load_chip("rram-22nm", ["adc.bits=3"]), example=x[0]).model
    calibrate(model, x, in_turn=True)
    first = state(model)
    calibrate(model, [x[1].flip(0), x[0]], in_turn=True)
    assert_same(state(model), first)


def test_images_that_do_not_fit_together_are_fitted_in_turn_to_some_of_them(monkeypatch):
    torch.manual_seed(0)
    x, seen = torch.rand(90, 3, 6, 6), list[int]()
    model = to_crossbar(conv().eval(), load_chip("rram-22nm"), example=x[:2]).model
    largest = 4 * (8 + 8) * 36  # bytes of the second layer's input and output
    monkeypatch.setattr(import_module("bitline.nn.calibrate"), "_ACTIVATION_BYTES", 4 * largest * 25)
    model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    calibrate(model, [x], in_turn=True)
    assert seen == [64, 26, 64, 26, 25]
    first = state(model)
    monkeypatch.setattr(images, "HELD_BYTES", 20 * x[0].nbytes)
    calibrate(model, list(x.flip(0).split(9)), in_turn=True)
    again = state(model)
    calibrate(model, list(x.split(31)), in_turn=True)
    assert_same(state(model), again)
    assert first.keys() == again.keys()


class DrawnAnew(list):
    """Batches that are noisier at every walk."""

    def __iter__(self):
        return (x + 0.1 * torch.rand_like(x) for x in super().__iter__())


def test_images_drawn_anew_at_every_walk_are_those_of_the_first_walk():
    torch.manual_seed(0)
    found = images.Images(DrawnAnew([torch.rand(5, 3), torch.rand(4, 3)]))
    first, second = (torch.cat(list(found.runs(torch.device("cpu")))) for _ in range(2))
    assert torch.equal(first, second)


def test_images_drawn_anew_that_are_not_held_are_refused(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(images, "HELD_BYTES", 100)
    model = to_crossbar(nn.Sequential(nn.Linear(12, 3)), load_chip("rram-22nm")).model
    with pytest.raises(ConversionError, match="other images at every walk, as augmented ones are"):
        calibrate(model, DrawnAnew([torch.rand(9, 12)]))


def test_runs_hold_images_of_one_kind_each_once():
    torch.manual_seed(0)
    small, large, whole = torch.rand(70, 3), torch.rand(5, 4), torch.arange(6).view(2, 3)
    runs = list(images.Images([small[:30], (large, "labels"), whole, small[30:]]).runs(small.device))
    assert [tuple(run.shape) for run in runs] == [(64, 3), (6, 3), (5, 4), (2, 3)]
    rows = sorted(map(tuple, torch.cat([runs[0], runs[1]]).tolist()))
    assert rows == sorted(map(tuple, small.tolist()))


def test_images_that_are_large_run_one_by_one(monkeypatch):
    monkeypatch.setattr(images, "_RUN_VALUES", 10)
    assert [len(run) for run in images.Images([torch.rand(3, 8)]).runs(torch.device("cpu"))] == [1, 1, 1]


def test_the_largest_input_is_the_end_of_a_range_of_the_maximum():
    torch.manual_seed(0)
    x = torch.rand(40, 12)
    model = to_crossbar(nn.Sequential(nn.Linear(12, 3)), load_chip("rram-22nm", ["inputs.calibration=max"])).model
    calibrate(model, [x])
    assert float(model[0].ranges.input_scale) == float(x.max()) / 255


def test_a_loader_may_fill_one_tensor_again_and_again():
    batches = [torch.rand(4, 3), torch.rand(4, 3)]

    def refilled():
        buffer = torch.empty(4, 3)
        for batch in batches:
            yield buffer.copy_(batch)

    def content(found: images.Batches) -> Tensor:
        return torch.cat(list(images.Images(found).runs(torch.device("cpu"))))

    assert torch.equal(content(refilled()), content(batches))
