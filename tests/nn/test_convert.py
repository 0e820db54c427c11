"""Any network to the same network on a chip, and an honest report of it."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from bitline.chip import load
from bitline.errors import ConversionError, MappingError
from bitline.models import build
from bitline.nn import (
    CrossbarConv2d,
    CrossbarLinear,
    calibrate,
    crossbar_layers,
    placement,
    program,
    set_chip,
    to_crossbar,
)


def wide(make_chip, **sections):
    return make_chip(crossbar={"rows": 64, "cols": 64}, **sections)


class Residual(nn.Module):
    """Batch norm outside of nn.Sequential, a shortcut, a shared layer, products in code, and modules of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 1)
        self.kernel = nn.Parameter(torch.randn(8, 8, 1, 1))
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=3)
        self.layer_norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, add_zero_attn=True)
        self.table = nn.Embedding(5, 8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x)))
        y = y + self.shared(self.shared(y))
        y = F.conv2d(y, 2 * self.kernel)
        y = self.up(y).flatten(2).transpose(1, 2)[:, :6]
        y = self.layer_norm(y + self.table.weight[0])
        y = y + self.attention(y, y, y)[0]
        y = y + (y @ y.transpose(1, 2)) @ y
        return self.drop(self.fc(input=y)).mean(1)


@pytest.fixture
def residual() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Residual(), torch.randn(2, 3, 6, 6)


def test_everything_that_stays_digital_is_listed_once_with_its_reason(make_chip, residual):
    model, x = residual
    report = to_crossbar(model, wide(make_chip), example=x).report
    assert [(d.name, d.op) for d in report.digital] == [
        ("(model)", "Residual"),
        ("up", "ConvTranspose2d"),
        ("layer_norm", "LayerNorm"),
        ("attention", "MultiheadAttention"),
        ("attention.out_proj", "NonDynamicallyQuantizableLinear"),
        ("table", "Embedding"),
        ("(model)", "conv2d"),
        ("(model)", "matmul"),
    ]
    reasons = {d.name: d.why for d in report.digital[1:6]}
    assert reasons["attention.out_proj"] == "MultiheadAttention reads its weights without calling it"
    assert reasons["table"] == "is a table look-up, not a product"
    assert all(reasons.values())
    assert report.digital[-1].why == "called as a function, outside of a layer"


def test_layers_are_listed_in_the_order_they_run_with_the_positions_of_every_run(make_chip, residual):
    model, x = residual
    report = to_crossbar(model, wide(make_chip), example=x).report
    found = [(p.matmul.name, p.matmul.rows, p.matmul.cols, p.matmul.positions) for p in report.layers]
    assert found == [("conv", 27, 8, 36), ("shared", 8, 8, 72), ("fc", 8, 4, 6)]
    assert report.folded == {"norm": "conv"}
    text = str(report)
    for line in ("conv: conv2d 27 x 8, 1 row tiles", "norm: folded into conv"):
        assert line in text
    assert "table: Embedding stays digital: is a table look-up, not a product" in text


def test_the_model_given_is_unchanged_in_everything(make_chip, residual):
    model, x = residual
    model.train()
    model.attention.eval()
    before, flags = copy.deepcopy(model.state_dict()), {n: m.training for n, m in model.named_modules()}
    random_state = torch.get_rng_state()
    converted = to_crossbar(model, wide(make_chip), example=x).model
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert {n: m.training for n, m in model.named_modules()} == flags
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert type(model.conv) is nn.Conv2d
    kept = {n: m.training for n, m in converted.named_modules() if not n.endswith(".ranges")}
    assert kept == flags
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in converted.parameters()}
    assert not shared


def test_with_an_exact_chip_of_many_bits_the_converted_network_answers_as_the_plain_one(make_chip, residual):
    model, x = residual
    chip = wide(make_chip, adc={"policy": "lossless"}, weights={"bits": 14}, inputs={"bits": 14})
    converted = to_crossbar(model.eval(), chip, example=x).model
    calibrate(converted, [x])
    with torch.no_grad():
        torch.testing.assert_close(converted(x), model(x), rtol=2e-2, atol=2e-2)


def test_a_shared_layer_stays_one_layer(make_chip):
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.ModuleDict({"again": layer})["again"])
    converted = to_crossbar(model, make_chip()).model
    assert converted[0] is converted[2] is converted[3]
    assert isinstance(converted[0], CrossbarLinear)
    assert list(crossbar_layers(converted)) == ["0"]


def test_tied_weights_stay_tied(make_chip):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(6, 4)
            self.out = nn.Linear(4, 6, bias=False)
            self.out.weight = self.table.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.table(x))

    x = torch.tensor([[1, 2, 3]])
    converted = to_crossbar(Tied(), make_chip(adc={"policy": "lossless"}), example=x).model
    assert converted.out.weight is converted.table.weight
    calibrate(converted, [x])
    before = converted(x)
    with torch.no_grad():
        converted.table.weight.mul_(2)
    assert not torch.equal(converted(x), before)


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "vgg8"])
def test_our_networks_go_on_crossbars_whole(name):
    model = build(name, width=0.125, num_classes=4).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.01, 0.1)
    x = torch.randn(2, 3, 32, 32)
    chip = load("example-128", ["adc.policy=lossless", "weights.bits=12", "inputs.bits=12"])
    for example in (x, None):
        converted, report = to_crossbar(model, chip, example=example, allow_digital=False)
        weighted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(report.layers) == len(weighted) == len(crossbar_layers(converted))
        assert not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d) for m in converted.modules())
        calibrate(converted, [x])
        with torch.no_grad():
            wanted = model(x)
            torch.testing.assert_close(converted(x), wanted, rtol=0, atol=0.05 * float(wanted.abs().max()))


def test_what_stays_digital_can_be_made_an_error(make_chip, residual):
    model, x = residual
    with pytest.raises(ConversionError) as error:
        to_crossbar(model, wide(make_chip), example=x, allow_digital=False)
    assert str(error.value).startswith(
        "these operations stay digital: (model) (Residual): has parameters of its own, kernel; only Linear, Conv1d and "
    )


def test_layers_can_be_kept_digital_by_name_or_by_rule(make_chip):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    for keep in (["2"], lambda name, module: module.out_features == 2):
        converted, report = to_crossbar(model, make_chip(), keep_digital=keep)
        assert type(converted[2]) is nn.Linear
        assert [(d.name, d.op, d.why) for d in report.digital] == [("2", "Linear", "kept digital as asked")]
    with pytest.raises(ConversionError) as error:
        to_crossbar(nn.Sequential(nn.Linear(4, 4)), make_chip(), keep_digital=["1"])
    assert str(error.value) == "keep_digital names '1', which is no layer; layers: 0"


def test_a_network_without_a_layer_for_a_chip_is_refused_with_the_reason(make_chip):
    with pytest.raises(ConversionError, match=r"^ReLU has no Linear, Conv1d or Conv2d layer that a chip could hold$"):
        to_crossbar(nn.ReLU(), make_chip())
    converted = to_crossbar(nn.Sequential(nn.Linear(2, 2)), make_chip()).model
    with pytest.raises(ConversionError, match=r"could hold; 0: is on a chip already; move it with set_chip$"):
        to_crossbar(converted, make_chip())
    with pytest.raises(ConversionError, match=r"^Sequential has no layer on crossbars; call to_crossbar"):
        program(nn.Sequential(nn.Linear(2, 2)), 0)


def test_a_chip_with_too_few_crossbars_is_refused(make_chip):
    few = make_chip(system={"tiles": 1, "macros_per_tile": 1, "crossbars_per_macro": 1})
    with pytest.raises(MappingError, match=r"^the network needs 4 crossbars; chip small has 1"):
        to_crossbar(nn.Linear(16, 16), few)
    converted = to_crossbar(nn.Linear(16, 16), make_chip(), example=torch.zeros(1, 16)).model
    with pytest.raises(MappingError, match=r"^the network needs 4 crossbars; chip small has 1"):
        set_chip(converted, few)
    assert placement(converted).chip.system.tiles is None


def test_a_single_layer_is_a_network(make_chip):
    converted = to_crossbar(nn.Conv2d(2, 3, 3), make_chip()).model
    assert isinstance(converted, CrossbarConv2d)
    calibrate(converted, [torch.rand(1, 2, 4, 4)])
    assert converted(torch.rand(1, 2, 4, 4)).shape == (1, 3, 2, 2)


def test_layers_that_would_lose_something_are_left_alone_and_said_so(make_chip):
    class Standardized(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    class Rescaled(nn.Conv2d):
        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return super()._conv_forward(input, weight * 2, bias)

    model = nn.Sequential(
        Standardized(1, 1, 1),
        Rescaled(1, 1, 1),
        parametrizations.weight_norm(nn.Linear(4, 4, bias=False)),
        nn.Linear(4, 4),
        nn.Linear(4, 4),
        nn.Linear(4, 4),
        nn.LazyLinear(3),
    )
    model[3].register_forward_pre_hook(lambda *_: None)
    model[4].register_forward_hook(lambda *_: None)
    report = to_crossbar(model, make_chip()).report
    assert [p.matmul.name for p in report.layers] == ["2", "5"]
    assert report.rewritten == {"2": "its weights are plain, computed once from WeightNorm"}
    assert {d.name: d.why for d in report.digital if "." not in d.name} == {
        "0": "Standardized has a forward of its own",
        "1": "Rescaled has a forward of its own",
        "3": "it has hooks, which would be lost",
        "4": "it has hooks, which would be lost",
        "6": "its weights have no shape yet; run the model once first",
    }


def test_a_network_that_cannot_be_copied_is_refused(make_chip):
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].half = model[0].weight / 2
    with pytest.raises(ConversionError, match=r"^Sequential cannot be copied: Only Tensors created explicitly"):
        to_crossbar(model, make_chip())
    del model[0].half
    assert len(to_crossbar(model, make_chip()).report.layers) == 1


def test_a_layer_that_never_ran_on_the_example_is_left_alone(make_chip):
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aux = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.main(x) + (self.aux(x) if self.training else 0)

    report = to_crossbar(Auxiliary(), make_chip(), example=torch.rand(1, 4)).report
    assert [(d.name, d.why) for d in report.digital] == [("aux", "never ran on the example")]


def test_products_hidden_in_code_are_found_by_name_of_their_module(make_chip):
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = [nn.Linear(4, 4)]  # not registered

        def forward(self, x: Tensor) -> Tensor:
            y = torch.einsum("bi,ij->bj", x, torch.eye(4)) @ torch.eye(4)
            y = torch.tensordot(y, torch.eye(4), 1) + torch.addmm(y, y, torch.eye(4)) + torch.mm(y, torch.eye(4))
            y = y + F.scaled_dot_product_attention(y[None], y[None], y[None])[0]
            return self.plain[0](y)

    model = nn.Sequential(nn.Linear(4, 4), Hidden())
    report = to_crossbar(model, make_chip(), example=torch.rand(2, 4)).report
    assert {(d.name, d.op) for d in report.digital} == {
        ("1", op) for op in ("einsum", "matmul", "tensordot", "addmm", "mm", "scaled_dot_product_attention", "linear")
    }


def test_an_example_that_does_not_fit_is_refused(make_chip):
    model = nn.Sequential(nn.Conv2d(3, 2, 3))
    with pytest.raises(ConversionError, match=r"^Sequential does not run on a batch of shape \(1, 4, 8, 8\): "):
        to_crossbar(model, make_chip(), example=torch.rand(1, 4, 8, 8))
    with pytest.raises(MappingError, match=r"^layer 0: input of shape \(3, 8, 8\); expected \(batch, channels, height"):
        to_crossbar(model, make_chip(), example=torch.rand(3, 8, 8))


def test_training_and_evaluation_flags_reach_every_layer(make_chip, residual):
    model, x = residual
    converted = to_crossbar(model, wide(make_chip), example=x).model
    for mode in (False, True):
        converted.train(mode)
        assert all(layer.training is mode for layer in crossbar_layers(converted).values())


def test_where_positions_are_unknown_a_placement_is_refused(make_chip):
    converted = to_crossbar(nn.Sequential(nn.Conv2d(1, 2, 3)), make_chip()).model
    with pytest.raises(
        ConversionError, match="positions per image of layer 0 are unknown; give to_crossbar an example"
    ):
        placement(converted)


def test_ranges_calibrated_for_another_chip_are_not_taken_over(make_chip):
    torch.manual_seed(0)
    plain, images = nn.Sequential(nn.Linear(16, 4)), torch.rand(8, 16)
    fine, coarse = (make_chip(adc={"bits": bits, "policy": "calibrated"}) for bits in (7, 3))
    first, same, other = (to_crossbar(plain, chip).model for chip in (fine, fine, coarse))
    calibrate(first, [images])
    same.load_state_dict(first.state_dict())
    assert torch.equal(same(images), first(images))
    with pytest.raises(ConversionError, match=r"^layer 0: .* another chip than small: adc.bits = 7 there, 3 here"):
        other.load_state_dict(first.state_dict())


def test_a_transformer_that_would_compute_around_its_layers_calls_them(make_chip):
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()
    images = torch.rand(2, 3, 8)
    converted = to_crossbar(block, make_chip(), example=images).model
    calibrate(converted, [images])
    with torch.no_grad():
        assert not torch.equal(converted(images), block(images))


class WithChild(nn.Linear):
    """A plain linear layer by what it computes, with a child that takes no part."""

    def __init__(self, rows: int, cols: int) -> None:
        super().__init__(rows, cols)
        self.extra = nn.Identity()


def test_a_layer_with_children_is_replaced_whole(make_chip):
    x = torch.rand(3, 8)
    net = nn.Sequential(WithChild(8, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    net[2].train()
    model = to_crossbar(net, wide(make_chip), example=x).model
    assert [module.training for module in (model[0], model[0].ranges, model[2], model[2].ranges)] == [
        False,
        False,
        True,
        True,
    ]
